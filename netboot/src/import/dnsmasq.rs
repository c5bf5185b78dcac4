//! dnsmasq: `dhcp-host` lines of its settings or of a `dhcp-hostsfile`, /etc/ethers and /etc/hosts, which it reads too, and
//! its file of leases (dnsmasq(8)).

mod host;
mod lease;
mod left;

use kiln_types::Mac;

use self::lease::Given;
use super::told::Since;
use super::{ImportError, Page, octets, short};

/// The setting that describes a host.
const HOST: &str = "dhcp-host";

/// The number of Ethernet among the types of hardware.
const ETHERNET: u32 = 1;

pub(super) fn read(text: &str) -> Result<Page, ImportError> {
    let mut page = Page::default();
    // A file of settings has `key=value` or single keys, a file of hosts only entries, a file of leases starts with
    // a time or `duid`.
    for (number, line) in text.lines().enumerate() {
        let at = number + 1;
        let line = without_comment(line).trim();
        if line.is_empty() {
            continue;
        }
        if line.starts_with("duid ") {
            page.note(at, "the server's own DUID is left out: Kiln has another, and clients turn to it by themselves");
        } else if let Some(lease) = lease::read(line) {
            match lease.map_err(|what| ImportError::at(at, what))? {
                Given::Four(lease) => page.leases.say(lease.address, Some(lease), Since::default()),
                Given::Six(lease) => page.leases6.say(lease.address, Some(lease), Since::default()),
                Given::Left(what) => page.note(at, what),
            }
        } else if let Some((key, value)) = setting(line) {
            match key {
                HOST => host::read(&mut page, at, value)?,
                _ => page.note(at, left::left(key, value)),
            }
        } else if host::is_entry(line) {
            host::read(&mut page, at, line)?;
        } else if !host::named(&mut page, at, line) {
            let what = format!("`{}` is no setting of dnsmasq, no host and no lease", short(line));
            return Err(ImportError::at(at, what));
        }
    }
    Ok(page)
}

/// Comments begin with a line, or behind a blank.
fn without_comment(line: &str) -> &str {
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        if c == '#' && before.is_whitespace() {
            return line.get(..at).unwrap_or(line);
        }
        before = c;
    }
    line
}

/// Reads `key=value`, or a single key.
fn setting(line: &str) -> Option<(&str, &str)> {
    let (key, value) = match line.split_once('=') {
        Some((key, value)) => (key.trim(), value.trim()),
        None if line.parse::<Mac>().is_ok() => return None,
        None => (line, ""),
    };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (!key.is_empty() && key.bytes().all(plain)).then_some((key, value))
}

/// Reads a hardware address, with or without its type (`06-00:11:…`, in hexadecimal digits) before it, or says why it is
/// none that can be taken. Returns nothing where it is something else.
fn hardware(text: &str) -> Option<Result<Mac, String>> {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    if text.contains('*') {
        let mut parts = text.split([':', '-']);
        let many = text.contains([':', '-']) && parts.all(|part| part == "*" || is_digits(part));
        return many.then(|| Err("it stands for many machines".to_owned()));
    }
    let typed = text.split_once('-').filter(|(kind, rest)| is_digits(kind) && rest.contains(':'));
    let kind = typed.and_then(|(kind, _)| u32::from_str_radix(kind, 16).ok()).unwrap_or(ETHERNET);
    let rest = typed.map_or(text, |(_, rest)| rest);
    if let Ok(mac) = super::mac(rest)
        && kind == ETHERNET
    {
        return Some(Ok(mac));
    }
    octets(rest).filter(|_| rest.contains(':')).map(|_| {
        Err(match kind {
            ETHERNET => "it is no address of Ethernet, which has six bytes".to_owned(),
            _ => format!("it is not of Ethernet but of hardware type {kind}"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Imported, Source, read};

    pub(super) fn one(text: &str) -> Imported {
        read(Source::Dnsmasq, &[text.to_owned()]).unwrap()
    }

    #[test]
    fn what_is_no_file_of_dnsmasq_is_refused_with_its_line() {
        for (text, start) in [
            ("port=0\nhost n1 {\n", "line 2: `host n1 {`"),
            ("dhcp-host=52:54:00:00:00:01,a b", "line 1: `a b` is no part"),
            ("dhcp-host=52:54:00:00:00:01,fd00::1", "line 1: `fd00::1` is no part"),
        ] {
            let (at, error) = read(Source::Dnsmasq, &[text.to_owned()]).unwrap_err();
            let error = error.to_string();
            assert!(at == 0 && error.starts_with(start), "{error}");
        }
    }
}
