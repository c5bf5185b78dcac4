//! One registry or mirror, over HTTP.

mod access;
mod challenge;
mod pull;
mod push;

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kiln_types::Digest;
use oci_client::{Reference as Parsed, RegistryOperation};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use tokio::sync::Mutex;

pub(super) use self::pull::Object;
use super::guard::{self, Guard};
use super::{RegistryError, RegistrySettings};
use crate::oci::document::Descriptor;
use crate::progress::Task;

const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// However long a registry asks to wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(15);
/// How long a registry may be silent: before its answer and between two pieces of it.
const SILENCE: Duration =
    if cfg!(test) { Duration::from_millis(300) } else { Duration::from_secs(30) };
const MAX_REDIRECTS: usize = 5;

/// One registry or mirror.
pub(in crate::oci) struct Host {
    name: String,
    settings: Option<RegistrySettings>,
    plain: bool,
    http: reqwest::Client,
    /// Where it may send us; nothing where a proxy settles that.
    guard: Option<Guard>,
    /// By repository.
    tokens: Mutex<HashMap<String, Login>>,
    first_pause: Duration,
    down: AtomicBool,
}

/// How often something was tried, and how long to wait before the next time.
struct Tries {
    /// Which try it is, the first one being 1.
    number: u32,
    pause: Duration,
}

impl Tries {
    /// Returns whether another try may help.
    fn are_left_after(&self, error: &RegistryError) -> bool {
        error.is_transient() && self.number < TRIES
    }

    /// Waits for the next try, each time for longer.
    async fn wait(&mut self) {
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.number += 1;
    }
}

#[derive(Clone, Debug)]
enum Login {
    Token(String),
    Basic(String, String),
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Host {
    pub(super) fn new(
        name: &str,
        settings: Option<RegistrySettings>,
    ) -> Result<Self, RegistryError> {
        // An error says that one is installed already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let plain = settings.as_ref().is_some_and(|settings| settings.plain_http);
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .https_only(!plain)
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::limited(MAX_REDIRECTS));
        // A proxy looks for names itself, and settles what can be reached.
        let guard = (!has_proxy()).then(|| Guard::new(name));
        if let Some(guard) = &guard {
            http = http.redirect(guard.policy(MAX_REDIRECTS)).dns_resolver(guard.clone());
        }
        for path in settings.iter().flat_map(|settings| &settings.ca) {
            let wrong = |problem: String| RegistryError::File { path: path.clone(), problem };
            let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            let parsed = reqwest::Certificate::from_pem_bundle(&pem)
                .ok()
                .filter(|parsed| !parsed.is_empty())
                .ok_or_else(|| wrong("it has no certificate in PEM form".to_owned()))?;
            http = http.tls_certs_merge(parsed);
        }
        let unusable = |error: reqwest::Error| RegistryError::Unreachable {
            host: name.to_owned(),
            problem: error.to_string(),
        };
        Ok(Self {
            name: name.to_owned(),
            settings,
            plain,
            http: http.build().map_err(unusable)?,
            guard,
            tokens: Mutex::default(),
            first_pause: if cfg!(test) { Duration::from_millis(1) } else { FIRST_PAUSE },
            down: AtomicBool::default(),
        })
    }

    fn tries(&self) -> Tries {
        Tries { number: 1, pause: self.first_pause }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether it could not be reached, however often that was tried.
    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    fn noted<T>(&self, done: Result<T, RegistryError>) -> Result<T, RegistryError> {
        if matches!(done, Err(RegistryError::Unreachable { .. })) {
            self.down.store(true, Ordering::Relaxed);
        }
        done
    }

    /// Sends a request that is ready.
    async fn sent(&self, request: RequestBuilder) -> Result<Response, RegistryError> {
        request.send().await.map_err(|error| match guard::sent_on(&error) {
            Some(refused) => self.sent_on(refused),
            None => self.unreachable(cause(&error)),
        })
    }

    /// Refuses a URL that the registry names, where it must not send us there.
    fn may_go_to(&self, url: &Url) -> Result<(), RegistryError> {
        let checked = self.guard.as_ref().map_or(Ok(()), |guard| guard.check(url));
        checked.map_err(|refused| self.sent_on(&refused))
    }

    fn sent_on(&self, refused: &guard::SentOn) -> RegistryError {
        RegistryError::SentOn { host: self.name.clone(), problem: refused.to_string() }
    }

    /// Tells what is no matter of the network from what is, by the words that rustls has for it.
    fn unreachable(&self, problem: String) -> RegistryError {
        let host = self.name.clone();
        if problem.starts_with("invalid peer certificate") {
            RegistryError::Certificate { host, problem }
        } else if problem.contains("InvalidContentType") {
            RegistryError::Plain { host }
        } else {
            RegistryError::Unreachable { host, problem }
        }
    }

    fn parsed(&self, repository: &str) -> Parsed {
        Parsed::with_tag(self.name.clone(), repository.to_owned(), "latest".to_owned())
    }
}

/// Returns the innermost cause, which is the one that a person understands; the outer ones repeat the address.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it does not answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Returns whether requests go by a proxy, as the environment says.
fn has_proxy() -> bool {
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}
