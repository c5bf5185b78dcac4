//! Where a registry may send us on: nowhere that only this host can reach, unless the registry is there itself.
//!
//! Blobs are often elsewhere, so redirects are followed; uploads may go on elsewhere, and tokens are often given elsewhere.
//! What is named so is looked at when it is connected to, not before: a name may have another address by then.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_types::Reach;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::{Attempt, Policy};

/// Returns whether a registry that is here may send us there.
fn may_lead(here: Reach, there: Reach) -> bool {
    match there {
        Reach::Everybody => true,
        Reach::Nobody => false,
        Reach::Private => matches!(here, Reach::Private | Reach::Host | Reach::Link),
        Reach::Host | Reach::Link => here == there,
    }
}

const fn name(there: Reach) -> &'static str {
    match there {
        Reach::Everybody => "a public address",
        Reach::Private => "an address of a private network",
        Reach::Host => "an address of this host itself",
        Reach::Link => "a link-local address, as those of metadata services are",
        Reach::Nobody => "no address of a host",
    }
}

/// A registry sends us to where it must not.
#[derive(Debug, thiserror::Error)]
#[error("it sends on to {to}, which is {what}")]
pub(super) struct SentOn {
    to: String,
    what: &'static str,
}

/// Returns it where it is the reason of an error.
pub(super) fn sent_on<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a SentOn> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|it| it.downcast_ref())
}

/// Knows where a registry is, and so where it may send us.
#[derive(Clone)]
pub(super) struct Guard(Arc<Known>);

struct Known {
    /// The host of the registry.
    own: String,
    reach: Mutex<Option<Reach>>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("own", &self.0.own).finish_non_exhaustive()
    }
}

impl Guard {
    /// Makes one for a registry: its host, and its port if it has one.
    pub(super) fn new(registry: &str) -> Self {
        let own = match registry.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(rest),
            None => registry.split(':').next().unwrap_or(registry),
        };
        let reach = own.parse().ok().map(Reach::of);
        Self(Arc::new(Known { own: own.to_ascii_lowercase(), reach: Mutex::new(reach) }))
    }

    /// Follows redirects, a few of them, but for those to addresses that are not for us. Names are for the resolver.
    pub(super) fn policy(&self, most: usize) -> Policy {
        let (guard, limited) = (self.clone(), Policy::limited(most));
        Policy::custom(move |attempt: Attempt<'_>| match guard.check(attempt.url()) {
            Err(refused) => attempt.error(refused),
            Ok(()) => limited.redirect(attempt),
        })
    }

    /// Refuses a URL that the registry names, where its host is an address that is not for us. Names are for the
    /// resolver.
    pub(super) fn check(&self, url: &Url) -> Result<(), SentOn> {
        let host = url.host_str().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match address.ok().and_then(|address| self.refuses(host, address)) {
            Some(refused) => Err(refused),
            None => Ok(()),
        }
    }

    fn refuses(&self, host: &str, address: IpAddr) -> Option<SentOn> {
        if self.is_own(host) {
            return None;
        }
        let there = Reach::of(address);
        let here = *self.0.reach.lock().unwrap_or_else(PoisonError::into_inner);
        let may = may_lead(here.unwrap_or(Reach::Everybody), there);
        (!may).then(|| SentOn { to: host.chars().take(260).collect(), what: name(there) })
    }

    fn is_own(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        self.0.own == host.to_ascii_lowercase()
    }

    /// Notes where the registry is, or takes out where it may not send us.
    fn sift(&self, host: &str, found: Vec<IpAddr>) -> Result<Vec<IpAddr>, SentOn> {
        if self.is_own(host) {
            let first = found.first().copied().map(Reach::of);
            *self.0.reach.lock().unwrap_or_else(PoisonError::into_inner) = first;
            return Ok(found);
        }
        let mut refused = None;
        let mut may = Vec::new();
        for address in found {
            match self.refuses(host, address) {
                Some(reason) => refused = Some(reason),
                None => may.push(address),
            }
        }
        match refused {
            Some(refused) if may.is_empty() => Err(refused),
            _ => Ok(may),
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found = found.map(|address| address.ip()).collect();
            let may = guard.sift(name.as_str(), found)?;
            let addresses: Addrs = Box::new(may.into_iter().map(|address| (address, 0).into()));
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn refused(guard: &Guard, host: &str, address: &str) -> bool {
        guard.sift(host, vec![ip(address)]).is_err()
    }

    #[test]
    fn a_public_registry_leads_to_nothing_that_only_we_can_reach() {
        let guard = Guard::new("registry.example:443");
        assert!(guard.sift("Registry.Example", vec![ip("203.0.113.7")]).is_ok());
        for address in [
            "127.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "10.0.0.1",
            "172.31.0.1",
            "192.168.0.1",
            "100.64.0.1",
            "224.0.0.1",
            "::",
            "::1",
            "fe80::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "::127.0.0.1",
        ] {
            assert!(refused(&guard, "blobs.example", address), "{address}");
            assert!(guard.refuses(address, ip(address)).is_some(), "{address}");
        }
        for address in ["203.0.113.8", "2001:db8::1", "::ffff:8.8.8.8"] {
            assert!(!refused(&guard, "blobs.example", address), "{address}");
        }
        // A name with both kinds of addresses keeps those that are for us.
        let both = vec![ip("127.0.0.1"), ip("203.0.113.8")];
        assert_eq!(guard.sift("blobs.example", both).unwrap(), [ip("203.0.113.8")]);
        let text = guard.sift("a.example", vec![ip("169.254.169.254")]).unwrap_err().to_string();
        let expected = "it sends on to a.example, which is a link-local address, as those of metadata services are";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_registry_of_the_site_leads_within_the_site() {
        let private = Guard::new("10.0.0.5:5000");
        assert!(!refused(&private, "store.site", "10.0.0.6"));
        assert!(refused(&private, "store.site", "127.0.0.1"));
        assert!(refused(&private, "store.site", "169.254.169.254"));
        let local = Guard::new("[::1]:5000");
        assert!(!refused(&local, "localhost", "127.0.0.1"));
        assert!(!refused(&local, "store.site", "192.168.0.9"));
        assert!(refused(&local, "metadata.internal", "169.254.169.254"));
    }

    #[test]
    fn before_it_is_known_where_a_registry_is_it_is_taken_for_a_public_one() {
        assert!(refused(&Guard::new("registry.example"), "blobs.example", "10.0.0.1"));
    }
}
