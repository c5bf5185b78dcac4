//! Files, as loaders fetch them: into nowhere.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;

/// How long a transfer may stand still before it has failed.
const STALLED: Duration = Duration::from_secs(20);
/// How often a server that is busy is asked again, and after how long if it does not say.
const TURNS: u32 = 200;
const TURN: Duration = Duration::from_secs(3);
/// How long one packet of TFTP is waited for, and how often it is asked for again.
const SILENCE: Duration = Duration::from_secs(1);
const RETRIES: u32 = 20;
/// What EDK2 asks for.
const BLOCK: usize = 1468;
const WINDOW: u16 = 4;
/// Loaders are no longer than this.
const MAX_LOADER: u64 = 256 << 20;

/// A file did not arrive.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the network fails")]
    Network(#[source] io::Error),
    #[error("the server closes the connection")]
    Http(#[source] hyper::Error),
    #[error("{0} is nothing that can be asked for here")]
    Url(String),
    #[error("the server answers {0}")]
    Status(u16),
    #[error("nothing comes for {} seconds", STALLED.as_secs())]
    Stalled,
    #[error("the server says error {0} of TFTP")]
    Tftp(u16),
    #[error("the server is busy for too long")]
    Busy,
}

/// Fetches a URL, and returns its length and the first bytes of it.
pub(super) async fn http(
    from: Ipv4Addr,
    url: &str,
    keep: usize,
) -> Result<(u64, Vec<u8>), FetchError> {
    for _ in 0..TURNS {
        match timeout(STALLED, once(from, url, keep)).await.map_err(|_| FetchError::Stalled)?? {
            Ok(got) => return Ok(got),
            Err(wait) => tokio::time::sleep(wait).await,
        }
    }
    Err(FetchError::Busy)
}

type Got = (u64, Vec<u8>);

/// Asks once; returns how long to wait when others are served first.
async fn once(from: Ipv4Addr, url: &str, keep: usize) -> Result<Result<Got, Duration>, FetchError> {
    let bad = || FetchError::Url(url.to_owned());
    let rest = url.strip_prefix("http://").ok_or_else(bad)?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let to: SocketAddrV4 = with_port.parse().map_err(|_| bad())?;
    let socket = TcpSocket::new_v4().map_err(FetchError::Network)?;
    socket.bind(SocketAddrV4::new(from, 0).into()).map_err(FetchError::Network)?;
    let stream = socket.connect(to.into()).await.map_err(FetchError::Network)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(FetchError::Http)?;
    let connection = tokio::spawn(connection);
    let request = Request::get(if path.is_empty() { "/" } else { path })
        .header(header::HOST, host)
        .header(header::USER_AGENT, "iPXE/simulated")
        .body(Empty::<Bytes>::new())
        .map_err(|_| bad())?;
    let mut response = sender.send_request(request).await.map_err(FetchError::Http)?;
    let status = response.status();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let said =
            response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let seconds = said.and_then(|text| text.parse().ok()).map_or(TURN, Duration::from_secs);
        return Ok(Err(seconds.min(STALLED)));
    }
    if !status.is_success() {
        return Err(FetchError::Status(status.as_u16()));
    }
    let (mut length, mut kept) = (0, Vec::new());
    while let Some(frame) = response.frame().await {
        if let Some(data) = frame.map_err(FetchError::Http)?.data_ref() {
            length += data.len() as u64;
            let room = keep.saturating_sub(kept.len()).min(data.len());
            kept.extend(data.iter().take(room));
        }
    }
    connection.abort();
    Ok(Ok((length, kept)))
}

/// Fetches a file by TFTP, and returns its length.
pub(super) async fn tftp(from: Ipv4Addr, server: Ipv4Addr, name: &str) -> Result<u64, FetchError> {
    let socket = UdpSocket::bind((from, 0)).await.map_err(FetchError::Network)?;
    let mut last =
        format!("\0\u{1}{name}\0octet\0tsize\u{0}0\0blksize\0{BLOCK}\0windowsize\0{WINDOW}\0")
            .into_bytes();
    let mut peer = (server, 69).into();
    let mut packet = vec![0; BLOCK + 4];
    let (mut block, mut window, mut expected, mut since) = (512, 1, 1_u16, 0);
    let (mut length, mut silent, mut begun) = (0_u64, 0, false);
    socket.send_to(&last, peer).await.map_err(FetchError::Network)?;
    loop {
        let Ok(heard) = timeout(SILENCE, socket.recv_from(&mut packet)).await else {
            silent += 1;
            if silent > RETRIES {
                return Err(FetchError::Stalled);
            }
            socket.send_to(&last, peer).await.map_err(FetchError::Network)?;
            continue;
        };
        let (count, who) = heard.map_err(FetchError::Network)?;
        if begun && who != peer {
            continue;
        }
        let Some(([0, kind, a, b], data)) = packet.get(..count).and_then(<[u8]>::split_first_chunk)
        else {
            continue;
        };
        let number = u16::from_be_bytes([*a, *b]);
        let acknowledge = match kind {
            // The answer to the options: names and values, each ended by 0.
            6 if !begun || expected == 1 => {
                let words = packet.get(2..count).unwrap_or_default().split(|byte| *byte == 0);
                let words: Vec<_> = words.map(String::from_utf8_lossy).collect();
                for pair in words.chunks(2) {
                    match pair {
                        [name, value] if name == "blksize" => block = value.parse().unwrap_or(512),
                        [name, value] if name == "windowsize" => {
                            window = value.parse().unwrap_or(1)
                        }
                        _ => {}
                    }
                }
                (block, window) = (block.clamp(8, BLOCK), window.clamp(1, WINDOW));
                Some(0)
            }
            3 if number == expected => {
                expected = expected.wrapping_add(1);
                since += 1;
                length += data.len() as u64;
                if length > MAX_LOADER {
                    return Err(FetchError::Tftp(3));
                }
                if data.len() < block {
                    let [high, low] = number.to_be_bytes();
                    let _ = socket.send_to(&[0, 4, high, low], who).await;
                    return Ok(length);
                }
                (since >= window).then_some(number)
            }
            // A packet before it is missing: say once where to go on.
            3 if since > 0 => Some(expected.wrapping_sub(1)),
            5 => return Err(FetchError::Tftp(number)),
            _ => None,
        };
        (begun, peer, silent) = (true, who, 0);
        if let Some(number) = acknowledge {
            since = 0;
            let [high, low] = number.to_be_bytes();
            last = vec![0, 4, high, low];
            socket.send_to(&last, peer).await.map_err(FetchError::Network)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_cannot_be_asked_for_is_told() {
        for url in ["https://10.0.0.1/x", "http://name/x", "ftp"] {
            let error = http(Ipv4Addr::LOCALHOST, url, 0).await.unwrap_err();
            assert!(matches!(error, FetchError::Url(_)), "{error}");
        }
        let error = http(Ipv4Addr::LOCALHOST, "http://127.0.0.1:1/x", 0).await.unwrap_err();
        assert!(matches!(error, FetchError::Network(_)), "{error}");
    }
}
