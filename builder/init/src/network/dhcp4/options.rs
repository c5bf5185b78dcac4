//! The options of a DHCP message: found wherever they are, joined where they are long.

#![warn(clippy::indexing_slicing)]

use std::net::Ipv4Addr;

/// Where a message has options: behind the cookie, and in two fields that may be lent to them.
const SNAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..236;
const START: usize = 240;
const PAD: u8 = 0;
const END: u8 = 255;
const OVERLOAD: u8 = 52;

/// The options of one message, each area checked to its end.
#[derive(Debug)]
pub(super) struct Options<'a>(Vec<&'a [u8]>);

impl<'a> Options<'a> {
    /// Finds the areas; `None` when an option does not end within its own.
    pub(super) fn find(packet: &'a [u8]) -> Option<Self> {
        let main = packet.get(START..)?;
        let mut areas = vec![main];
        is_whole(main).then_some(())?;
        // RFC 2131 §4.1: the file's field is read before the server's.
        let lent = Self(areas.clone()).value(OVERLOAD).and_then(|value| value.first().copied());
        for (bit, area) in [(1, FILE), (2, SNAME)] {
            if lent.unwrap_or(0) & bit != 0 {
                let area = packet.get(area)?;
                is_whole(area).then_some(())?;
                areas.push(area);
            }
        }
        Some(Self(areas))
    }

    /// Returns the value of an option, its parts joined in the order in which they stand (RFC 3396).
    pub(super) fn value(&self, wanted: u8) -> Option<Vec<u8>> {
        let mut value: Option<Vec<u8>> = None;
        for area in &self.0 {
            each(area, |code, part| {
                if code == wanted {
                    value.get_or_insert_default().extend(part);
                }
            });
        }
        value
    }

    /// Returns a value of this many octets. A server that repeats itself is taken at its first word.
    fn fixed<const N: usize>(&self, code: u8) -> Option<[u8; N]> {
        self.value(code)?.first_chunk().copied()
    }

    pub(super) fn byte(&self, code: u8) -> Option<u8> {
        self.fixed::<1>(code).map(|[byte]| byte)
    }

    pub(super) fn short(&self, code: u8) -> Option<u16> {
        self.fixed(code).map(u16::from_be_bytes)
    }

    pub(super) fn number(&self, code: u8) -> Option<u32> {
        self.fixed(code).map(u32::from_be_bytes)
    }

    pub(super) fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.fixed::<4>(code).map(Ipv4Addr::from)
    }

    /// Returns a list of addresses, without those that no host can have.
    pub(super) fn addresses(&self, code: u8, most: usize) -> Vec<Ipv4Addr> {
        let value = self.value(code).unwrap_or_default();
        let (all, _) = value.as_chunks::<4>();
        all.iter().map(|&octets| octets.into()).filter(is_of_a_host).take(most).collect()
    }
}

/// Says whether an address can be that of a host.
pub(super) fn is_of_a_host(address: &Ipv4Addr) -> bool {
    let first = address.octets()[0];
    (1..224).contains(&first) && first != 127
}

/// Says whether every option ends within the area.
fn is_whole(area: &[u8]) -> bool {
    each(area, |_, _| ())
}

fn each<'a>(area: &'a [u8], mut take: impl FnMut(u8, &'a [u8])) -> bool {
    let mut rest = area;
    while let Some((&code, more)) = rest.split_first() {
        match code {
            PAD => rest = more,
            END => return true,
            _ => {
                let Some((&length, more)) = more.split_first() else { return false };
                let Some((value, more)) = more.split_at_checked(length.into()) else {
                    return false;
                };
                take(code, value);
                rest = more;
            }
        }
    }
    // Some servers forget the end.
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(main: &[u8], file: &[u8], sname: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; START];
        packet[SNAME][..sname.len()].copy_from_slice(sname);
        packet[FILE][..file.len()].copy_from_slice(file);
        packet.extend(main);
        packet
    }

    #[test]
    fn an_option_in_parts_is_joined_over_all_areas_in_their_order() {
        let packet = packet(
            &[52, 1, 3, 6, 2, 10, 0, 0, 53, 1, 5, 255],
            &[6, 2, 0, 1, 255],
            &[6, 4, 10, 0, 0, 2, 255],
        );
        let options = Options::find(&packet).unwrap();
        let expected = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
        assert_eq!(options.addresses(6, 8), expected);
        assert_eq!(options.addresses(6, 1), expected[..1]);
        assert_eq!(options.byte(53), Some(5));
        assert_eq!(options.value(54), None);
    }

    #[test]
    fn fields_that_are_not_lent_hold_no_options() {
        let packet = packet(&[52, 1, 1, 255], &[], &[6, 4, 10, 0, 0, 2, 255]);
        assert!(Options::find(&packet).unwrap().addresses(6, 8).is_empty());
    }

    #[test]
    fn options_that_go_past_their_area_are_not_read() {
        for main in [&[53][..], &[53, 2, 1], &[1, 200, 0], &[0, 0, 12, 1]] {
            assert!(Options::find(&packet(main, &[], &[])).is_none(), "{main:?}");
        }
        // In a lent field as well: this one would go on in the cookie.
        let mut file = [0; 128];
        file[126..].copy_from_slice(&[6, 4]);
        assert!(Options::find(&packet(&[52, 1, 1, 255], &file, &[])).is_none());
        assert!(Options::find(&[0; 239]).is_none());
        assert!(Options::find(&[0; 240]).is_some());
        // Lent fields cannot lend again.
        let again = packet(&[52, 1, 1, 255], &[52, 1, 2, 255], &[53, 1, 5, 255]);
        assert_eq!(Options::find(&again).unwrap().byte(53), None);
    }

    #[test]
    fn addresses_that_no_host_has_are_passed_over() {
        let main = [3, 18, 0, 0, 0, 0, 127, 0, 0, 1, 224, 0, 0, 1, 10, 0, 0, 1, 9, 9];
        let packet = packet(&main, &[], &[]);
        let routers = Options::find(&packet).unwrap().addresses(3, 8);
        assert_eq!(routers, [Ipv4Addr::new(10, 0, 0, 1)]);
    }
}
