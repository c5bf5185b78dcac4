//! Flattened device trees (Devicetree Specification v0.4, chapter 5): a kernel without a firmware in front of it reads
//! from one where its initrd is and what its arguments are. Pure.

const MAGIC: u32 = 0xd00d_feed;
const VERSION: u32 = 17;
const OLDEST: u32 = 16;
const HEADER: usize = 40;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;
/// The most that kernels map of a tree (`Documentation/arch/arm64/booting.rst`).
pub(super) const LARGEST: usize = 2 << 20;

/// What stands under `/chosen` for one start only.
const REPLACED: [&str; 5] =
    ["bootargs", "linux,initrd-start", "linux,initrd-end", "kaslr-seed", "rng-seed"];

/// Returns the tree with other arguments and another initrd. Nothing when it is no device tree.
pub(super) fn with_chosen(tree: &[u8], cmdline: &str, initrd: (u64, u64)) -> Option<Vec<u8>> {
    if word(tree, 0)? != MAGIC || word(tree, 24)? > VERSION || word(tree, 20)? < OLDEST {
        return None;
    }
    let offset = |at: usize| usize::try_from(word(tree, at)?).ok();
    let part = |from: usize, size: usize| tree.get(from..from.checked_add(size)?);
    let structure = part(offset(8)?, offset(36)?)?;
    let mut strings = part(offset(12)?, offset(32)?)?.to_vec();
    let reserved = reservations(tree.get(offset(16)?..)?)?;

    let mut chosen = Vec::new();
    let mut arguments = cmdline.as_bytes().to_vec();
    arguments.push(0);
    property(&mut chosen, &mut strings, "bootargs", &arguments);
    property(&mut chosen, &mut strings, "linux,initrd-start", &initrd.0.to_be_bytes());
    property(&mut chosen, &mut strings, "linux,initrd-end", &initrd.1.to_be_bytes());
    let structure = replaced(structure, &strings, &chosen)?;

    let reserved_at = HEADER;
    let structure_at = reserved_at + reserved.len();
    let strings_at = structure_at + structure.len();
    let total = strings_at + strings.len();
    if total > LARGEST {
        return None;
    }
    let mut out = Vec::with_capacity(total);
    for number in [total, structure_at, strings_at, reserved_at] {
        if out.is_empty() {
            push(&mut out, MAGIC);
        }
        push(&mut out, u32::try_from(number).ok()?);
    }
    for number in [VERSION, OLDEST, word(tree, 28)?] {
        push(&mut out, number);
    }
    push(&mut out, u32::try_from(strings.len()).ok()?);
    push(&mut out, u32::try_from(structure.len()).ok()?);
    out.extend(reserved);
    out.extend(structure);
    out.extend(strings);
    Some(out)
}

/// Returns the list of reserved memory with the pair of zeros that ends it.
fn reservations(bytes: &[u8]) -> Option<&[u8]> {
    let entries = bytes.chunks_exact(16);
    let count = entries.clone().position(|entry| entry.iter().all(|&byte| byte == 0))?;
    bytes.get(..(count + 1) * 16)
}

/// Copies the nodes, with these properties in `/chosen` in place of those that it had.
fn replaced(structure: &[u8], strings: &[u8], chosen: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(structure.len() + chosen.len() + 64);
    let (mut at, mut depth, mut inside, mut found) = (0, 0_usize, false, false);
    loop {
        let token = word(structure, at)?;
        let start = at;
        at += 4;
        match token {
            BEGIN_NODE => {
                let name = text(structure.get(at..)?)?;
                at = aligned(at + name.len() + 1);
                out.extend(structure.get(start..at)?);
                if depth == 1 && name == b"chosen" && !found {
                    (inside, found) = (true, true);
                    out.extend(chosen);
                }
                depth += 1;
            }
            END_NODE => {
                depth = depth.checked_sub(1)?;
                if depth == 1 {
                    inside = false;
                }
                if depth == 0 && !found {
                    push(&mut out, BEGIN_NODE);
                    out.extend(b"chosen\0\0");
                    out.extend(chosen);
                    push(&mut out, END_NODE);
                }
                push(&mut out, END_NODE);
            }
            PROPERTY => {
                let size = usize::try_from(word(structure, at)?).ok()?;
                let name = usize::try_from(word(structure, at + 4)?).ok()?;
                at = aligned(at.checked_add(8)?.checked_add(size)?);
                let name = text(strings.get(name..)?)?;
                let old = inside && depth == 2 && REPLACED.iter().any(|r| r.as_bytes() == name);
                if !old {
                    out.extend(structure.get(start..at)?);
                }
            }
            NOP => {}
            END if depth == 0 => {
                push(&mut out, END);
                return Some(out);
            }
            _ => return None,
        }
    }
}

fn property(out: &mut Vec<u8>, strings: &mut Vec<u8>, name: &str, value: &[u8]) {
    push(out, PROPERTY);
    push(out, u32::try_from(value.len()).unwrap_or(u32::MAX));
    push(out, u32::try_from(strings.len()).unwrap_or(u32::MAX));
    out.extend(value);
    out.resize(aligned(out.len()), 0);
    strings.extend(name.as_bytes());
    strings.push(0);
}

fn text(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(..bytes.iter().position(|&byte| byte == 0)?)
}

const fn aligned(at: usize) -> usize {
    at.saturating_add(3) & !3
}

fn push(out: &mut Vec<u8>, number: u32) {
    out.extend(number.to_be_bytes());
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(four.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree with `/cpus` and, if wanted, `/chosen` with a node inside.
    fn tree(chosen: bool) -> Vec<u8> {
        let (mut nodes, mut strings) = (Vec::new(), Vec::new());
        push(&mut nodes, BEGIN_NODE);
        push(&mut nodes, 0);
        property(&mut nodes, &mut strings, "model", b"box\0");
        push(&mut nodes, NOP);
        if chosen {
            push(&mut nodes, BEGIN_NODE);
            nodes.extend(b"chosen\0\0");
            property(&mut nodes, &mut strings, "bootargs", b"old arguments\0");
            property(&mut nodes, &mut strings, "linux,uefi-system-table", &[7; 8]);
            property(&mut nodes, &mut strings, "linux,initrd-end", &[1; 4]);
            push(&mut nodes, BEGIN_NODE);
            nodes.extend(b"sub\0");
            property(&mut nodes, &mut strings, "bootargs", b"not ours\0");
            push(&mut nodes, END_NODE);
            push(&mut nodes, END_NODE);
        }
        push(&mut nodes, BEGIN_NODE);
        nodes.extend(b"cpus\0\0\0\0");
        push(&mut nodes, END_NODE);
        push(&mut nodes, END_NODE);
        push(&mut nodes, END);
        let sizes = [nodes.len(), strings.len()].map(|size| u32::try_from(size).unwrap());
        let mut out = Vec::new();
        let total = 40 + 32 + sizes[0] + sizes[1];
        for number in [MAGIC, total, 72, 72 + sizes[0], 40, 17, 16, 3, sizes[1], sizes[0]] {
            push(&mut out, number);
        }
        out.extend([[1_u8; 16], [0; 16]].concat());
        out.extend(nodes);
        out.extend(strings);
        out
    }

    fn count(tree: &[u8], needle: &[u8]) -> usize {
        tree.windows(needle.len()).filter(|window| *window == needle).count()
    }

    #[test]
    fn the_arguments_and_the_initrd_are_replaced_and_the_rest_is_kept() {
        let new = with_chosen(&tree(true), "new arguments", (0x1000, 0x2345)).unwrap();
        assert_eq!(count(&new, b"new arguments\0"), 1);
        assert_eq!(count(&new, b"old arguments"), 0);
        assert_eq!(count(&new, b"not ours\0"), 1, "of a node inside");
        assert_eq!(count(&new, &[7; 8]), 1);
        assert_eq!(count(&new, &0x2345_u64.to_be_bytes()), 1);
        assert_eq!(word(&new, 4).unwrap() as usize, new.len());
        assert_eq!(word(&new, 28), Some(3), "the processor that starts");
        // What comes out is a tree again, and the same when it is made again.
        let again = with_chosen(&new, "new arguments", (0x1000, 0x2345)).unwrap();
        assert_eq!(word(&again, 36), word(&new, 36));
    }

    #[test]
    fn a_tree_without_chosen_gets_one() {
        let new = with_chosen(&tree(false), "a", (1, 2)).unwrap();
        assert_eq!(count(&new, b"chosen\0"), 1);
    }

    #[test]
    fn what_is_no_tree_is_refused_wherever_it_breaks_off() {
        let whole = tree(true);
        for length in 0..whole.len() {
            // Shorter strings may still be enough.
            let _ = with_chosen(&whole[..length], "a", (1, 2));
        }
        assert!(with_chosen(&whole[..100], "a", (1, 2)).is_none());
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                let _ = with_chosen(&damaged, "a", (1, 2));
            }
        }
        assert!(with_chosen(&[], "a", (1, 2)).is_none());
        assert!(with_chosen(&whole, &"x".repeat(LARGEST), (1, 2)).is_none());
    }
}
