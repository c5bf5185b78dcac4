//! Who may come in: tokens are looked up, failures are counted, and what cannot be checked is refused.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use kiln_inventory::{Store, Stored};
use kiln_types::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::peer::{Caller, Peer};
use super::problem::Fault;
use super::scope::Rights;
use super::tokens::TokenDoc;
use super::users::UserDoc;
use crate::boots::secret::same;

/// After so many failures within [`WINDOW`], an address has to wait until it is over.
const MOST_FAILURES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// The most addresses whose failures are remembered; the oldest go first.
const MOST_SOURCES: usize = 4096;
/// Refusals that are written to the log of changes, in [`WINDOW`].
const MOST_RECORDED: u32 = 30;
/// Passwords that are checked at a time: each takes 19 MiB and a good part of a processor's time.
const CHECKS_AT_ONCE: usize = 2;
/// Those who follow the events at a time.
const READERS: usize = 64;
/// How far the clock may be behind the time at which a token was made.
const CLOCK_SLACK: i64 = 5 * 60 * 1000;
/// What tokens begin with, so that people and scanners know one when they see it.
pub(super) const PREFIX: &str = "kiln_";

/// What stands between a request and the routes.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    failures: Mutex<HashMap<IpAddr, Window>>,
    recorded: Mutex<Option<Window>>,
    used: Mutex<HashMap<i64, i64>>,
    pub(super) checks: Semaphore,
    readers: Arc<Semaphore>,
    /// Where the clock stands, in tests that are not to depend on how long they take.
    stands: Option<Instant>,
}

impl Default for Gate {
    fn default() -> Self {
        Self::with_clock(None)
    }
}

impl Gate {
    /// Returns one for which no time passes.
    #[cfg(test)]
    pub(super) fn out_of_time() -> Self {
        Self::with_clock(Some(Instant::now()))
    }

    fn with_clock(stands: Option<Instant>) -> Self {
        Self(Arc::new(Inner {
            stands,
            failures: Mutex::default(),
            recorded: Mutex::default(),
            used: Mutex::default(),
            checks: Semaphore::new(CHECKS_AT_ONCE),
            readers: Arc::new(Semaphore::new(READERS)),
        }))
    }
}

#[derive(Clone, Copy, Debug)]
struct Window {
    since: Instant,
    count: u32,
}

impl Gate {
    /// Finds out who asks. Whatever goes wrong on the way, nobody comes in by it.
    pub(super) async fn caller(
        &self,
        store: &Store,
        peer: &Peer,
        headers: &HeaderMap,
        now: i64,
    ) -> Result<Caller, Fault> {
        let source = match peer {
            Peer::Local(name) => return Ok(Caller::local(name)),
            Peer::Remote(address) => *address,
        };
        self.let_try(source)?;
        let refuse = |text: &str| {
            self.failed(source);
            Err(Fault::new(StatusCode::UNAUTHORIZED, text))
        };
        let Some(token) = bearer(headers) else {
            return refuse(
                "give a token: `Authorization: Bearer kiln_…`; `kiln token create` makes one",
            );
        };
        match holder(store, sha256(token), now).await? {
            Ok((id, caller)) => {
                self.0.used.lock().unwrap_or_else(PoisonError::into_inner).insert(id, now);
                Ok(caller)
            }
            Err(why) => refuse(why),
        }
    }

    /// Returns when a token was used last, since the server started.
    pub(super) fn last_used(&self, token: i64) -> Option<i64> {
        self.0.used.lock().unwrap_or_else(PoisonError::into_inner).get(&token).copied()
    }

    /// Refuses an address that has failed too often.
    pub(super) fn let_try(&self, source: IpAddr) -> Result<(), Fault> {
        self.let_try_at(source, self.now())
    }

    /// The same, for something that counts as a failure until it is [forgiven](Self::forgive).
    pub(super) fn let_try_once(&self, source: IpAddr) -> Result<(), Fault> {
        self.let_try(source)?;
        self.failed(source);
        Ok(())
    }

    fn now(&self) -> Instant {
        self.0.stands.unwrap_or_else(Instant::now)
    }

    fn let_try_at(&self, source: IpAddr, now: Instant) -> Result<(), Fault> {
        let failures = self.0.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(window) = failures.get(&network(source)) else { return Ok(()) };
        let left = WINDOW.saturating_sub(now.saturating_duration_since(window.since));
        if window.count < MOST_FAILURES || left.is_zero() {
            return Ok(());
        }
        let text = "too many failures from this address; wait";
        Err(Fault::new(StatusCode::TOO_MANY_REQUESTS, text).again_after(left.as_secs() + 1))
    }

    /// Counts a failure of an address.
    pub(super) fn failed(&self, source: IpAddr) {
        self.failed_at(source, self.now());
    }

    /// Takes one back that was counted before it was known.
    pub(super) fn forgive(&self, source: IpAddr) {
        let mut failures = self.0.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(window) = failures.get_mut(&network(source)) {
            window.count = window.count.saturating_sub(1);
        }
    }

    fn failed_at(&self, source: IpAddr, now: Instant) {
        let mut failures = self.0.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let key = network(source);
        if failures.len() >= MOST_SOURCES && !failures.contains_key(&key) {
            failures.retain(|_, window| !window.is_over(now));
            let oldest =
                failures.iter().min_by_key(|(_, window)| window.since).map(|(key, _)| *key);
            if let Some(oldest) = oldest.filter(|_| failures.len() >= MOST_SOURCES) {
                failures.remove(&oldest);
            }
        }
        failures.entry(key).or_insert_with(|| Window::new(now)).add(now);
    }

    /// Returns whether another refusal may be written down now.
    pub(super) fn may_record(&self) -> bool {
        let mut recorded = self.0.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        recorded.get_or_insert_with(|| Window::new(now)).add(now) <= MOST_RECORDED
    }

    /// Returns a place for somebody who follows the events, where there is one.
    pub(super) fn reader(&self) -> Option<OwnedSemaphorePermit> {
        self.0.readers.clone().try_acquire_owned().ok()
    }

    /// Waits for its turn to check a password.
    pub(super) async fn turn(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        self.0.checks.acquire().await.ok()
    }
}

impl Window {
    const fn new(now: Instant) -> Self {
        Self { since: now, count: 0 }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= WINDOW
    }

    fn add(&mut self, now: Instant) -> u32 {
        if self.is_over(now) {
            *self = Self::new(now);
        }
        self.count = self.count.saturating_add(1);
        self.count
    }
}

/// Looks whether who was let in would be let in still, and as the same. Fails with the reason where he would not.
pub(super) async fn still(store: &Store, caller: &Caller, now: i64) -> Result<(), Fault> {
    let Some(hash) = &caller.token else { return Ok(()) };
    let gone = |why: &str| Fault::new(StatusCode::UNAUTHORIZED, why);
    let (_, there) = holder(store, hash.to_string(), now).await?.map_err(gone)?;
    match there.rights == caller.rights {
        true => Ok(()),
        false => Err(gone("what you may see has changed; come again")),
    }
}

/// Finds out whose token that is, by its hash; or says why nobody comes in by it.
async fn holder(
    store: &Store,
    hash: String,
    now: i64,
) -> Result<Result<(i64, Caller), &'static str>, Fault> {
    // The store says nothing: nobody is let in, and nobody is at fault.
    let unsure = |error: kiln_inventory::StoreError| {
        tracing::error!(error = &error as &dyn std::error::Error, "tokens cannot be checked");
        Fault::new(StatusCode::SERVICE_UNAVAILABLE, "tokens cannot be checked now").again_after(5)
    };
    let found: Option<Stored<TokenDoc>> = store.keyed(&hash).await.map_err(unsure)?;
    let found = found.filter(|found| same(&found.document.sha256, &hash));
    let Some(Stored { id, document: token, .. }) = found else {
        return Ok(Err("nobody has this token; it may have been revoked"));
    };
    if now < token.created - CLOCK_SLACK {
        return Ok(Err("the clock of this server is behind the time at which the token was made"));
    }
    if token.expires.is_some_and(|expires| expires <= now) {
        return Ok(Err("the token has expired; make another with `kiln token create`"));
    }
    let (name, scopes, selector) = match &token.user {
        None => (format!("token {}", token.name), token.scopes, token.selector),
        Some(user) => {
            let found: Option<Stored<UserDoc>> = store.named(user).await.map_err(unsure)?;
            let Some(Stored { document, .. }) = found else {
                return Ok(Err("the user of this token is gone"));
            };
            (format!("user {user}"), document.scopes, document.selector)
        }
    };
    let rights = Rights::Some { scopes: scopes.into(), machines: selector.map(Arc::new) };
    Ok(Ok((id, Caller { name, rights, token: Some(hash.into()) })))
}

/// Who has one address of IPv6 has 2⁶⁴ of them.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
    }
}

/// Returns the token of a request that has exactly one.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(only), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    let sound = token.starts_with(PREFIX) && token.len() > PREFIX.len() + 40;
    (scheme.eq_ignore_ascii_case("bearer") && sound).then_some(token)
}

/// Returns the SHA-256 of a token in hexadecimal digits, which is all that is kept of it.
pub(super) fn sha256(token: &str) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    let bytes: [u8; 32] = hash.as_ref().try_into().unwrap_or_default();
    Digest::from_bytes(bytes).hex()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_fails_too_often_waits_and_others_do_not() {
        let gate = Gate::default();
        let (bad, good): (IpAddr, IpAddr) =
            ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let start = Instant::now();
        for _ in 0..MOST_FAILURES {
            assert!(gate.let_try_at(bad, start).is_ok());
            gate.failed_at(bad, start);
        }
        let fault = gate.let_try(bad).unwrap_err();
        assert_eq!(fault.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(gate.let_try(good).is_ok());
        let later = start + WINDOW;
        assert!(gate.let_try_at(bad, later).is_ok());
        gate.failed_at(bad, later);
        assert!(gate.let_try_at(bad, later).is_ok(), "the count begins anew");
    }

    #[test]
    fn failures_of_many_addresses_take_bounded_memory() {
        let gate = Gate::default();
        for address in 0..20_000_u32 {
            gate.failed(std::net::Ipv4Addr::from_bits(address).into());
        }
        assert!(gate.0.failures.lock().unwrap().len() <= MOST_SOURCES);
        // All of one network of IPv6 are one.
        for host in 0..100_u128 {
            gate.failed(Ipv6Addr::from_bits((0x2001_0db8 << 96) | host).into());
        }
        let next = Ipv6Addr::from_bits((0x2001_0db8 << 96) | 7777);
        assert!(gate.let_try(next.into()).is_err());
    }

    #[test]
    fn a_request_has_one_token_or_none() {
        let token = format!("{PREFIX}{}", "0".repeat(64));
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(str::to_owned)
        };
        let good = format!("Bearer {token}");
        assert_eq!(read(&[&good]), Some(token.clone()));
        assert_eq!(read(&[&format!("bearer  {token}")]), Some(token));
        for bad in [
            &[][..],
            &[good.as_str(), good.as_str()],
            &["Bearer"],
            &["Bearer kiln_1"],
            &["Basic cm9vdDpyb290"],
            &["Bearer "],
            &[&good[7..]],
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
