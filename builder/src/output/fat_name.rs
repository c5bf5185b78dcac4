//! Names of files on FAT: short ones as they are, others as long ones with a short one that is made up ("FAT: General
//! Overview of On-Disk Format", Long Directory Entries).

/// A long name has no more characters.
const MOST: usize = 255;
/// What one entry of a long name holds.
const PER_ENTRY: usize = 13;
/// Where in an entry the characters are.
const PLACES: [usize; PER_ENTRY] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

/// The name of a file or folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Name {
    /// As the directory's own entry has it.
    pub(super) short: [u8; 11],
    text: String,
    is_long: bool,
}

impl Name {
    /// Makes a name, unless it has something in it that cannot be written. Short names that others have are not made up
    /// again.
    pub(super) fn new(text: &str, taken: impl Fn([u8; 11]) -> bool) -> Option<Self> {
        let fits = |c: u8| c.is_ascii_alphanumeric() || b"._-+".contains(&c);
        let ends = text.starts_with('.') || text.ends_with('.');
        if text.is_empty() || text.len() > MOST || ends || !text.bytes().all(fits) {
            return None;
        }
        let text = text.to_owned();
        if let Some(short) = short(&text).filter(|short| !taken(*short)) {
            return Some(Self { short, text, is_long: false });
        }
        let short = (1..=999_999).map(|n| made_up(&text, n)).find(|short| !taken(*short))?;
        Some(Self { short, text, is_long: true })
    }

    /// Returns whether this is the name: case does not count.
    pub(super) fn is(&self, text: &str) -> bool {
        self.text.eq_ignore_ascii_case(text)
    }

    /// Returns how many entries come before the directory's own.
    pub(super) fn long_entries(&self) -> usize {
        if self.is_long { self.text.len().div_ceil(PER_ENTRY) } else { 0 }
    }

    /// Returns these entries: the end of the name first.
    pub(super) fn long(&self) -> Vec<u8> {
        let sum = self.short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        let mut out = Vec::new();
        let count = self.long_entries();
        let parts = self.text.as_bytes().chunks(PER_ENTRY).take(count);
        for (n, part) in parts.enumerate().collect::<Vec<_>>().into_iter().rev() {
            let mut entry = [0; 32];
            let last = if n + 1 == count { 0x40 } else { 0 };
            let mut put = |at: usize, byte: u8| {
                if let Some(place) = entry.get_mut(at) {
                    *place = byte;
                }
            };
            put(0, u8::try_from(n + 1).unwrap_or_default() | last);
            put(11, 0x0f);
            put(13, sum);
            for (i, at) in PLACES.into_iter().enumerate() {
                // The name ends with a zero where there is room for it; behind that it is filled up.
                let [low, high] = match part.get(i) {
                    Some(byte) => [*byte, 0],
                    None if i == part.len() => [0, 0],
                    None => [0xff, 0xff],
                };
                put(at, low);
                put(at + 1, high);
            }
            out.extend(entry);
        }
        out
    }
}

/// Returns the short form of a name that has one.
fn short(text: &str) -> Option<[u8; 11]> {
    let (base, extension) = text.split_once('.').unwrap_or((text, ""));
    let plain = base.bytes().chain(extension.bytes()).all(is_plain);
    let fits = !base.is_empty() && base.len() <= 8 && extension.len() <= 3;
    (fits && plain).then(|| join(base, extension))
}

/// Returns a short name for a long one: what of it can stay, and a number.
fn made_up(text: &str, number: u32) -> [u8; 11] {
    let (base, extension) = text.rsplit_once('.').unwrap_or((text, ""));
    let plain = |text: &str, most| -> String {
        let upper = text.bytes().map(|c| c.to_ascii_uppercase()).filter(|c| is_plain(*c));
        upper.take(most).map(char::from).collect()
    };
    let number = format!("~{number}");
    let base = plain(base, 8_usize.saturating_sub(number.len()));
    join(&(base + &number), &plain(extension, 3))
}

fn join(base: &str, extension: &str) -> [u8; 11] {
    let mut out = [b' '; 11];
    let bytes = base.bytes().take(8).enumerate();
    let bytes = bytes.chain(extension.bytes().take(3).enumerate().map(|(n, byte)| (n + 8, byte)));
    for (at, byte) in bytes {
        if let Some(place) = out.get_mut(at) {
            *place = byte;
        }
    }
    out
}

/// Returns whether a short name may have this in it.
pub(super) const fn is_plain(c: u8) -> bool {
    c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, b'_' | b'-')
}
