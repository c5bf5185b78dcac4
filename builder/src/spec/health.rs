//! How a service is known to be well.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::Scalar;
use super::text::{as_text, short};

/// How a service is known to be well: exactly one of `exec`, `tcp` and `http`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct HealthSpec {
    /// A program in the container, with arguments, that ends with 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<Vec<String>>,
    /// A port, or `address:port`, that accepts connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Scalar>,
    /// A URL that is answered with a status from 200 to 399.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// Time between two checks; 10 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Period>,
    /// Time that one check may take; 5 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// Failures one after the other until the service is ill; 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
}

impl HealthSpec {
    /// Returns what is wrong with it.
    pub(super) fn problem(&self) -> Option<String> {
        let given = [self.exec.is_some(), self.tcp.is_some(), self.http.is_some()];
        if given.iter().filter(|given| **given).count() != 1 {
            return Some("`health` needs exactly one of `exec`, `tcp` and `http`".to_owned());
        }
        if self.exec.as_ref().is_some_and(Vec::is_empty) {
            return Some("`exec` of `health` names no program".to_owned());
        }
        if let Some(tcp) = &self.tcp {
            let (address, port) =
                tcp.as_str().rsplit_once(':').unwrap_or(("127.0.0.1", tcp.as_str()));
            if address.is_empty() || !port.parse::<u16>().is_ok_and(|port| port > 0) {
                let text = short(tcp.as_str());
                return Some(format!("`{text}` is not a port from 1 to 65535 or `address:port`"));
            }
        }
        if let Some(url) = self.http.as_ref().filter(|url| !url.starts_with("http://")) {
            return Some(format!("`{}` of `health` does not begin with `http://`", short(url)));
        }
        if self.retries == Some(0) {
            return Some("`retries` of `health` is 0; it must be 1 at least".to_owned());
        }
        None
    }
}

/// The same, settled, as kiln-init reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// A program in the container that ends with 0; empty when something else is checked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exec: Vec<String>,
    /// `address:port` that accepts connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<String>,
    /// A URL that is answered with a status from 200 to 399.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// Time between two checks, in milliseconds.
    pub interval: u64,
    /// Time that one check may take, in milliseconds.
    pub timeout: u64,
    /// Failures one after the other until the service is ill.
    pub retries: u32,
}

impl HealthSpec {
    pub(super) fn settle(&self) -> Health {
        let millis = |period: Option<Period>, usual: u64| {
            period.map_or(usual, |period| {
                u64::try_from(period.duration().as_millis()).unwrap_or(u64::MAX)
            })
        };
        Health {
            exec: self.exec.clone().unwrap_or_default(),
            tcp: self.tcp.as_ref().map(|tcp| match tcp.as_str() {
                port if !port.contains(':') => format!("127.0.0.1:{port}"),
                whole => whole.to_owned(),
            }),
            http: self.http.clone(),
            interval: millis(self.interval, 10_000),
            timeout: millis(self.timeout, 5_000),
            retries: self.retries.unwrap_or(3),
        }
    }
}

/// A time, written as a number of seconds or with `ms`, `s`, `m` or `h`; more than nothing, a day at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(Duration);

impl Period {
    /// Returns how long it is.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let millis = match unit {
            "ms" => Some(1),
            "" | "s" => Some(1000),
            "m" => Some(60_000),
            "h" => Some(3_600_000),
            _ => None,
        };
        let day = 24 * 3_600_000;
        let number = number.parse::<u64>().ok();
        match number.zip(millis).and_then(|(number, unit)| number.checked_mul(unit)) {
            Some(millis) if (1..=day).contains(&millis) => Ok(Self(Duration::from_millis(millis))),
            _ => Err(format!(
                "`{}` is not a time such as `500ms`, `10s` or `2m`, a day at most",
                short(text)
            )),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis.is_multiple_of(1000) {
            write!(f, "{}s", millis / 1000)
        } else {
            write!(f, "{millis}ms")
        }
    }
}

as_text!(Period);
