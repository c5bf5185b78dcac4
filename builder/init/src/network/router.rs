//! What routers announce (RFC 4861, RFC 8106). Prefixes and routes are the kernel's work; here it is about names and about
//! whether there is a DHCPv6 server.

#![warn(clippy::indexing_slicing)]

use std::net::Ipv6Addr;
use std::time::Duration;

use super::names;

/// The kinds of ICMPv6 messages.
pub(super) const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
const RDNSS: u8 = 25;
const DNSSL: u8 = 31;
/// More than this of each is not kept.
const MOST: usize = 8;

/// An announcement.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Announcement {
    /// Addresses come from DHCPv6.
    pub(super) managed: bool,
    /// Other settings come from DHCPv6.
    pub(super) other: bool,
    /// For how many seconds each is good; 0 takes it back.
    pub(super) servers: Vec<(Ipv6Addr, u32)>,
    pub(super) search: Vec<(String, u32)>,
}

/// Reads an announcement; `None` when it is anything else or broken.
pub(super) fn read(packet: &[u8]) -> Option<Announcement> {
    if packet.first() != Some(&ADVERTISEMENT) || packet.get(1) != Some(&0) {
        return None;
    }
    let flags = *packet.get(5)?;
    let mut news =
        Announcement { managed: flags & 0x80 != 0, other: flags & 0x40 != 0, ..Default::default() };
    let mut rest = packet.get(16..)?;
    while let Some((&kind, more)) = rest.split_first() {
        // In units of eight octets, with kind and length; 0 is forbidden.
        let length = usize::from(*more.first()?) * 8;
        let option = rest.get(..length).filter(|option| !option.is_empty())?;
        rest = rest.get(length..)?;
        let lifetime = option.get(4..8).and_then(|bytes| bytes.try_into().ok());
        let (Some(lifetime), Some(value)) = (lifetime.map(u32::from_be_bytes), option.get(8..))
        else {
            continue;
        };
        match kind {
            RDNSS => {
                let (all, _) = value.as_chunks::<16>();
                let all = all.iter().map(|&octets| (Ipv6Addr::from(octets), lifetime));
                news.servers.extend(all.filter(|(server, _)| !server.is_unspecified()).take(MOST));
            }
            DNSSL => {
                let all = names::read(value, false).into_iter();
                news.search.extend(all.map(|name| (name, lifetime)));
            }
            _ => {}
        }
    }
    Some(news)
}

/// Things that are good for some time only.
#[derive(Debug)]
pub(super) struct Fading<T>(Vec<(T, Duration)>);

impl<T: PartialEq + Clone> Fading<T> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Takes what was announced: new things, new times for known ones, and 0 for those that are gone.
    pub(super) fn learn(&mut self, now: Duration, all: Vec<(T, u32)>) {
        for (thing, seconds) in all {
            let until = match seconds {
                u32::MAX => Duration::MAX,
                seconds => now + Duration::from_secs(seconds.into()),
            };
            if let Some((_, end)) = self.0.iter_mut().find(|(known, _)| *known == thing) {
                *end = until;
            } else if self.0.len() < MOST {
                self.0.push((thing, until));
            }
        }
    }

    /// Returns what is good now.
    pub(super) fn now(&mut self, now: Duration) -> Vec<T> {
        self.0.retain(|(_, until)| *until > now);
        self.0.iter().map(|(thing, _)| thing.clone()).collect()
    }

    /// Returns when the next one fades.
    pub(super) fn timer(&self) -> Option<Duration> {
        self.0.iter().map(|(_, until)| *until).min().filter(|until| *until != Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(options: &[u8]) -> Vec<u8> {
        let mut packet = vec![ADVERTISEMENT, 0, 0, 0, 64, 0xc0, 0, 30, 0, 0, 0, 0, 0, 0, 0, 0];
        packet.extend(options);
        packet
    }

    fn server(last: u8) -> [u8; 16] {
        [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
    }

    #[test]
    fn servers_and_names_are_read_with_how_long_they_are_good() {
        let servers = [&[RDNSS, 5, 0, 0, 0, 0, 0, 60], &server(1)[..], &server(2)[..]].concat();
        let search = [DNSSL, 2, 0, 0, 0, 0, 0, 0, 3, b'l', b'a', b'b', 0, 0, 0, 0];
        let news = read(&packet(&[&[1, 1, 0, 0, 0, 0, 0, 0][..], &servers, &search].concat()));
        let news = news.unwrap();
        assert!(news.managed && news.other);
        assert_eq!(news.servers, [(server(1).into(), 60), (server(2).into(), 60)]);
        assert_eq!(news.search, [("lab".to_owned(), 0)]);
    }

    #[test]
    fn what_is_broken_is_passed_over() {
        let whole = packet(&[[RDNSS, 3, 0, 0, 0, 0, 0, 60].as_slice(), &server(1)].concat());
        assert!(read(&whole).is_some());
        for end in 0..whole.len() {
            // Without any option it is whole as well.
            assert_eq!(read(&whole[..end]).is_some(), end == 16, "{end}");
        }
        for options in [&[RDNSS, 0, 0, 0][..], &[RDNSS], &[0; 8], &[RDNSS, 255, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(read(&packet(options)), None, "{options:?}");
        }
        assert_eq!(read(&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0]), None);
        // Too short to hold a server.
        let short = read(&packet(&[RDNSS, 1, 0, 0, 0, 0, 0, 9])).unwrap();
        assert!(short.servers.is_empty());
    }

    #[test]
    fn what_was_announced_fades_unless_it_is_announced_again() {
        let mut known = Fading::new();
        known.learn(Duration::ZERO, vec![("a", 10), ("b", 20), ("c", u32::MAX)]);
        assert_eq!(known.timer(), Some(Duration::from_secs(10)));
        known.learn(Duration::from_secs(5), vec![("a", 30), ("b", 0)]);
        assert_eq!(known.now(Duration::from_secs(6)), ["a", "c"]);
        assert_eq!(known.now(Duration::from_secs(35)), ["c"]);
        assert_eq!(known.timer(), None);
        known.learn(Duration::ZERO, (0..20).map(|_| ("x", 1)).collect());
        known.learn(
            Duration::ZERO,
            vec![("d", 1), ("e", 1), ("f", 1), ("g", 1), ("h", 1), ("i", 1), ("j", 1)],
        );
        assert_eq!(known.0.len(), MOST);
    }

    #[test]
    fn fuzzed_advertisements_are_read_or_passed_over() {
        let servers = [&[RDNSS, 5, 0, 0, 0, 0, 0, 60], &server(1)[..], &server(2)[..]].concat();
        let search = [DNSSL, 2, 0, 0, 0, 0, 0, 0, 3, b'l', b'a', b'b', 0, 0, 0, 0];
        let whole = packet(&[&servers[..], &search].concat());
        kiln_fuzz::check("init-router", &[&whole], |bytes| drop(read(bytes)));
    }
}
