//! Whether a service is well, by the check that its image gives.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde::Deserialize;

use crate::clock::uptime;

/// The most of an answer that is read to find its status.
const STATUS_LINE: u64 = 256;

/// A check: one of `exec`, `tcp` and `http`. Times are in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Health {
    /// A program in the container that has to end with 0.
    pub(crate) exec: Vec<String>,
    /// `address:port` that has to accept connections.
    tcp: Option<String>,
    /// `http://` URL that has to answer with a status from 200 to 399.
    http: Option<String>,
    interval: u64,
    timeout: u64,
    retries: u32,
}

impl Health {
    /// Returns the time between two checks.
    pub(crate) fn interval(&self) -> Duration {
        Duration::from_millis(self.interval.max(100))
    }

    /// Returns how long one check may take.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout.max(100))
    }

    /// Returns how many failures in a row make a service ill.
    pub(crate) fn retries(&self) -> u32 {
        self.retries.max(1)
    }

    /// Makes the check over the machine's network once and says what is wrong.
    pub(crate) fn ask(&self) -> Result<(), String> {
        if let Some(address) = &self.tcp {
            return connect(address, self.timeout()).map(drop);
        }
        self.http.as_deref().map_or(Ok(()), |url| get(url, self.timeout()))
    }
}

fn connect(address: &str, timeout: Duration) -> Result<TcpStream, String> {
    let failed = |error| format!("no connection to {address}: {error}");
    let addresses: Vec<SocketAddr> = address.to_socket_addrs().map_err(failed)?.collect();
    let first = addresses.first().ok_or_else(|| format!("{address} is no address"))?;
    TcpStream::connect_timeout(first, timeout).map_err(failed)
}

fn get(url: &str, timeout: Duration) -> Result<(), String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url} is not an http:// URL"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let start = uptime();
    let mut stream = connect(&address, timeout)?;
    let failed = |error: std::io::Error| format!("no answer from {address}: {error}");
    let left = timeout.saturating_sub(uptime().saturating_sub(start)).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left)).map_err(failed)?;
    stream.set_write_timeout(Some(left)).map_err(failed)?;
    let request = format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut head = Vec::new();
    let mut limited = stream.take(STATUS_LINE);
    let mut byte = [0];
    while limited.read(&mut byte).map_err(failed)? == 1 && byte[0] != b'\n' {
        head.push(byte[0]);
    }
    match status(&head) {
        Some(200..=399) => Ok(()),
        Some(code) => Err(format!("{url} answers {code}")),
        None => Err(format!("{url} does not answer in HTTP")),
    }
}

/// Returns the number in a status line (RFC 9112 §4).
fn status(line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(line).ok()?;
    let (version, rest) = line.split_once(' ')?;
    let code = rest.split(' ').next()?.trim();
    version.starts_with("HTTP/").then(|| code.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn served(answer: &'static str) -> (String, std::thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        });
        (address, thread)
    }

    #[test]
    fn a_page_is_well_by_its_status() {
        for (answer, well) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.0 302 Found\r\n\r\n", true),
            ("HTTP/1.1 500 Oh\r\n\r\n", false),
            ("SSH-2.0-x\r\n", false),
            ("", false),
        ] {
            let (address, thread) = served(answer);
            let http = Some(format!("http://{address}/ok"));
            let health = Health { http, timeout: 2000, ..Health::default() };
            assert_eq!(health.ask().is_ok(), well, "{answer:?}");
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_port_is_well_when_it_accepts() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = Some(listener.local_addr().unwrap().to_string());
        let health = Health { tcp, timeout: 2000, ..Health::default() };
        assert_eq!(health.ask(), Ok(()));
        drop(listener);
        assert!(health.ask().unwrap_err().starts_with("no connection to 127.0.0.1:"));
    }

    #[test]
    fn the_check_of_an_image_file_is_read() {
        let text = r#"{"tcp":"127.0.0.1:80","interval":10000,"timeout":5000,"retries":3}"#;
        let health: Health = serde_json::from_str(text).unwrap();
        assert_eq!(health.interval(), Duration::from_secs(10));
        assert_eq!(health.retries(), 3);
    }
}
