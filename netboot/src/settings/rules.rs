//! What a `[[subnet]]` says about DHCP besides addresses.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use kiln_inventory::{OptionValue, may_set_option};
use toml::Spanned;

use super::{Problems, parse_duration};
use crate::dhcp::{Hostnames, Route, Rules, is_domain};

/// The keys of a `[[subnet]]` that become [`Rules`].
pub(super) struct WireRules {
    pub(super) authoritative: Option<bool>,
    pub(super) conflict_probe: Option<bool>,
    pub(super) min_lease_time: Option<Spanned<String>>,
    pub(super) max_lease_time: Option<Spanned<String>>,
    pub(super) shared_network: Option<Spanned<String>>,
    pub(super) ntp: Vec<Ipv4Addr>,
    pub(super) search: Vec<Spanned<String>>,
    pub(super) routes: Vec<Spanned<String>>,
    pub(super) mtu: Option<Spanned<u16>>,
    pub(super) hostnames: Hostnames,
    pub(super) options: BTreeMap<String, Spanned<String>>,
}

impl WireRules {
    /// Checks them by themselves and against the usual lease time.
    pub(super) fn check(self, relay: bool, usual: Duration, problems: &mut Problems) -> Rules {
        let mut wrong = |span, message: String| problems.push((Some(span), message));
        let mut time = |text: Option<Spanned<String>>, least: Duration, most: Duration| {
            let text = text?;
            let time = parse_duration(text.get_ref()).and_then(|time| {
                (least..=most).contains(&time).then_some(time).ok_or_else(|| {
                    "`min-lease-time` is at most and `max-lease-time` at least `lease-time`"
                        .to_owned()
                })
            });
            time.map_err(|message| wrong(text.span(), message)).ok()
        };
        let min_lease = time(self.min_lease_time, Duration::ZERO, usual);
        let max_lease = time(self.max_lease_time, usual, Duration::MAX);
        if let Some(name) = self.shared_network.as_ref().filter(|_| !relay) {
            let message = "`shared-network` goes with `relay = true`; subnets of one interface share its wire anyway";
            wrong(name.span(), message.to_owned());
        }
        if let Some(mtu) = self.mtu.as_ref().filter(|mtu| *mtu.get_ref() < 68) {
            wrong(mtu.span(), "`mtu` is at least 68".to_owned());
        }
        for domain in self.search.iter().filter(|domain| !is_domain(domain.get_ref())) {
            wrong(domain.span(), format!("`{}` is no domain name", domain.get_ref()));
        }
        let mut routes = Vec::new();
        for text in self.routes {
            match text.get_ref().parse::<Route>() {
                Ok(route) => routes.push(route),
                Err(error) => wrong(text.span(), error.to_string()),
            }
        }
        let mut options = BTreeMap::new();
        for (code, value) in self.options {
            let number = code.parse().ok().filter(|code| may_set_option(*code));
            match (number, value.get_ref().parse::<OptionValue>()) {
                (Some(code), Ok(value)) => {
                    options.insert(code, value);
                }
                (Some(_), Err(error)) => wrong(value.span(), error.to_string()),
                (None, _) => {
                    let message = format!(
                        "`{code}` is no number of an option that can be set; it is one from 1 to 254, without those of the exchange itself"
                    );
                    wrong(value.span(), message);
                }
            }
        }
        let usual = Rules::default();
        Rules {
            authoritative: self.authoritative.unwrap_or(usual.authoritative),
            probe: self.conflict_probe.unwrap_or(usual.probe),
            min_lease,
            max_lease,
            shared: self.shared_network.map(Spanned::into_inner),
            ntp: self.ntp,
            search: self.search.into_iter().map(Spanned::into_inner).collect(),
            routes,
            mtu: self.mtu.map(Spanned::into_inner),
            hostnames: self.hostnames,
            options,
        }
    }
}
