/// Addresses that are looked at for one that nobody ever had, before one is taken whose lease has ended.
const LOOKS: usize = 512;

/// Finds an open address of a pool. What no one ever had comes before what someone may come back for.
pub(super) fn find<A: Copy>(
    pool: impl IntoIterator<Item = A>,
    is_open: impl Fn(&A) -> bool,
    was_had: impl Fn(A) -> bool,
) -> Option<A> {
    let mut remembered = None;
    for (looked, address) in pool.into_iter().enumerate() {
        if looked >= LOOKS && remembered.is_some() {
            break;
        }
        if is_open(&address) {
            if !was_had(address) {
                return Some(address);
            }
            remembered = remembered.or(Some(address));
        }
    }
    remembered
}

/// FNV-1a of who asks, to determine where the search begins: the same on every host and in every version, unlike the
/// hashes of the standard library.
pub(super) fn place<'a>(who: impl IntoIterator<Item = &'a u8>) -> u64 {
    who.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_had_comes_first_but_is_not_looked_for_without_end() {
        let looks = u32::try_from(LOOKS).unwrap();
        let all = |_: &u32| true;
        assert_eq!(find(0..9, all, |it| it < 5), Some(5));
        assert_eq!(find(0..9, |it| it % 2 == 1, |_| true), Some(1));
        assert_eq!(find(0..9, |_| false, |_| false), None);
        assert_eq!(find(0..9999, all, |it| it != looks - 1), Some(looks - 1));
        assert_eq!(find(0..9999, all, |it| it != looks), Some(0), "one too far");
        assert_eq!(find(0..9999, |it| *it == 9998, |_| true), Some(9998), "none is open before");
    }
}
