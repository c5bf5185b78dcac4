//! The patterns of `modules.alias`: `*`, `?` and `[…]`, where `-` and `_` are the same letter.

/// Says whether the whole `name` is described by `pattern`.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where to go on when what follows the last star does not fit: one letter further.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match step(pattern, p, name.get(n).copied()) {
            Step::Star => {
                retry = Some((p + 1, n));
                p += 1;
            }
            Step::Fits(next) => {
                p = next;
                n += 1;
            }
            Step::Differs => match retry {
                Some((after_star, from)) => {
                    retry = Some((after_star, from + 1));
                    p = after_star;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|&byte| byte == b'*')
}

enum Step {
    Star,
    /// The letter fits; the pattern goes on here.
    Fits(usize),
    Differs,
}

fn step(pattern: &[u8], at: usize, letter: Option<u8>) -> Step {
    let (Some(&wanted), Some(letter)) = (pattern.get(at), letter) else { return Step::Differs };
    match wanted {
        b'*' => Step::Star,
        b'?' => Step::Fits(at + 1),
        b'[' => set(pattern, at + 1, letter),
        _ if fold(wanted) == fold(letter) => Step::Fits(at + 1),
        _ => Step::Differs,
    }
}

/// A set of letters and ranges, from behind its opening bracket.
fn set(pattern: &[u8], start: usize, letter: u8) -> Step {
    let rest = pattern.get(start..).unwrap_or_default();
    let Some(length) = rest.iter().position(|&byte| byte == b']') else { return Step::Differs };
    let (negated, mut body) = match rest.get(..length).unwrap_or_default() {
        [b'!' | b'^', body @ ..] => (true, body),
        body => (false, body),
    };
    let mut found = false;
    loop {
        match body {
            [low, b'-', high, more @ ..] => {
                found |= (*low..=*high).contains(&letter);
                body = more;
            }
            [one, more @ ..] => {
                found |= *one == letter;
                body = more;
            }
            [] => break,
        }
    }
    if found == negated { Step::Differs } else { Step::Fits(start + length + 1) }
}

fn fold(byte: u8) -> u8 {
    if byte == b'-' { b'_' } else { byte }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_describe_the_names_of_devices() {
        let nic = "pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00";
        for (pattern, name, expected) in [
            ("pci:v00001AF4d*sv*sd*bc*sc*i*", nic, true),
            ("pci:v00008086d*sv*sd*bc*sc*i*", nic, false),
            ("pci:v*d*sv*sd*bc02sc*i*", nic, true),
            ("virtio:d00000001v*", "virtio:d00000001v00001AF4", true),
            ("virtio:d00000001v*", "virtio:d00000002v00001AF4", false),
            ("of:N*T*Cpci-host", "of:NpcieT(null)Cpci-host", true),
            ("snd-seq", "snd_seq", true),
            ("usb:v0[1-3a]d?", "usb:v02d9", true),
            ("usb:v0[1-3a]d?", "usb:vad9", false),
            ("usb:v0[!1-3]d?", "usb:v02d9", false),
            ("usb:v0[!1-3]d?", "usb:v04d9", true),
            ("broken[", "broken[", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} against {name}");
        }
    }
}
