//! Where a kernel for arm64 and what it reads lie in memory, when no firmware places them. Pure.
//!
//! The rules are those of `Documentation/arch/arm64/booting.rst` of the kernel: the image on a multiple of 2 MiB, the
//! device tree not across one, the initrd within 32 GiB of the image.

/// Alignment of the image and of the device tree.
const BLOCK: u64 = 2 << 20;
const PAGE: u64 = 4096;
pub(super) const LARGEST_PAGE: u64 = 64 << 10;
/// No kernel is larger.
const LARGEST_IMAGE: u64 = 1 << 30;

/// Addresses in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) image: u64,
    pub(super) image_size: u64,
    /// Where the kernel is entered.
    pub(super) entry: u64,
    pub(super) tree: u64,
    /// A few instructions that hand the device tree to the kernel.
    pub(super) start: u64,
    pub(super) initrd: u64,
}

/// Finds a place. `image` is the beginning of the kernel's file, `map` is `/proc/iomem`. Nothing when the file is no
/// kernel of this kind or there is no place.
pub(super) fn place(image: &[u8], initrd_size: u64, map: &str) -> Option<Layout> {
    let number = |at: usize| Some(u64::from_le_bytes(image.get(at..at + 8)?.try_into().ok()?));
    if image.get(56..60)? != b"ARM\x64" {
        return None;
    }
    let (offset, size) = (number(8)?, number(16)?);
    if size == 0 || size > LARGEST_IMAGE || offset >= BLOCK {
        return None;
    }
    let image_size = up(offset + size, BLOCK);
    let initrd_space = space(initrd_size);
    let needed = image_size.checked_add(2 * BLOCK)?.checked_add(initrd_space)?;
    let (from, _) = free(map).into_iter().find(|(from, to)| {
        let from = up(*from, BLOCK);
        from.checked_add(needed).is_some_and(|end| end <= *to)
    })?;
    let image = up(from, BLOCK);
    let tree = image + image_size;
    let start = tree + BLOCK;
    Some(Layout {
        image: image + offset,
        image_size: image_size - offset,
        entry: image + offset,
        tree,
        start,
        initrd: start + BLOCK,
    })
}

/// Returns the ranges of memory in which nothing lies that the next kernel needs; the end is exclusive.
fn free(map: &str) -> Vec<(u64, u64)> {
    let mut free = Vec::new();
    for line in map.lines() {
        let Some((range, what)) = line.split_once(" : ") else { continue };
        let Some((from, to)) = range.trim().split_once('-') else { continue };
        let parse = |text| u64::from_str_radix(text, 16).ok();
        let (Some(from), Some(to)) = (parse(from), parse(to)) else { continue };
        let Some(to) = to.checked_add(1) else { continue };
        match what.trim() {
            "System RAM" if !line.starts_with(' ') => free.push((from, to)),
            "reserved" => cut(&mut free, from / PAGE * PAGE, up(to, PAGE)),
            _ => {}
        }
    }
    free
}

fn cut(ranges: &mut Vec<(u64, u64)>, from: u64, to: u64) {
    let parts = ranges.iter().flat_map(|&(start, end)| {
        [(start, end.min(from)), (start.max(to), end)].into_iter().filter(|(a, b)| a < b)
    });
    *ranges = parts.collect();
}

/// Returns the instructions: the device tree's address in the first register, zero in the next three, and on to the
/// kernel.
pub(super) fn start_code(layout: &Layout) -> Vec<u8> {
    const CODE: [u32; 6] = [
        0x5800_00c0, // ldr x0, tree
        0x5800_00e4, // ldr x4, entry
        0xaa1f_03e1, // mov x1, xzr
        0xaa1f_03e2, // mov x2, xzr
        0xaa1f_03e3, // mov x3, xzr
        0xd61f_0080, // br x4
    ];
    let mut bytes: Vec<u8> = CODE.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(layout.tree.to_le_bytes());
    bytes.extend(layout.entry.to_le_bytes());
    bytes
}

/// Returns how much memory a file of this length takes, in whole pages of any size.
pub(super) const fn space(size: u64) -> u64 {
    up(size, LARGEST_PAGE)
}

const fn up(value: u64, to: u64) -> u64 {
    value.saturating_add(to - 1) / to * to
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "08000000-08000fff : device\n\
                       40000000-4fffffff : System RAM\n\
                       \x20 40210000-41a2ffff : Kernel code\n\
                       \x20 42000000-42ffffff : reserved\n\
                       \x20 45100010-451fffff : reserved\n\
                       60000000-600fffff : reserved\n\
                       80000000-bfffffff : System RAM\n";

    fn image(size: u64) -> Vec<u8> {
        let mut head = vec![0; 64];
        head[16..24].copy_from_slice(&size.to_le_bytes());
        head[56..60].copy_from_slice(b"ARM\x64");
        head
    }

    #[test]
    fn memory_that_is_reserved_is_left_out() {
        let free = free(MAP);
        assert_eq!(
            free,
            [
                (0x4000_0000, 0x4200_0000),
                (0x4300_0000, 0x4510_0000),
                (0x4520_0000, 0x5000_0000),
                (0x8000_0000, 0xc000_0000),
            ]
        );
    }

    #[test]
    fn everything_lies_one_after_the_other_where_it_fits() {
        let layout = place(&image(0x01e7_0000), 0x0200_0001, MAP).unwrap();
        // The first two ranges are too small for 32 MB of kernel and 32 MB of initrd.
        assert_eq!(layout.image, 0x4520_0000);
        assert_eq!(layout.tree, 0x4520_0000 + 0x0200_0000);
        assert!(layout.initrd + 0x0200_0001 <= 0x5000_0000);
        for address in [layout.image, layout.tree, layout.start, layout.initrd] {
            assert_eq!(address % BLOCK, 0);
        }
        let code = start_code(&layout);
        assert_eq!((code.len(), &code[24..32]), (40, &layout.tree.to_le_bytes()[..]));
    }

    #[test]
    fn what_is_no_kernel_or_does_not_fit_has_no_place() {
        assert_eq!(place(&image(0x0100_0000), 1 << 40, MAP), None);
        assert_eq!(place(&image(0), 1, MAP), None);
        assert_eq!(place(&image(u64::MAX), 1, MAP), None);
        assert_eq!(place(&image(0x0100_0000)[..59], 1, MAP), None);
        assert_eq!(place(&[0; 64], 1, MAP), None);
        assert_eq!(place(&image(0x0100_0000), u64::MAX, MAP), None);
        assert_eq!(place(&image(0x0100_0000), 1, "nonsense\n0-zz : System RAM\n"), None);
    }
}
