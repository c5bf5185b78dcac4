//! Sends one message: to an address that was looked at, signed, and without following where it is sent on.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use aws_lc_rs::hmac;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::guard::{self, Network};
use crate::secrets::hex;

/// How long a message may take, from the look-up of the name to the answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most that is read of an answer.
const MOST: usize = 16 << 10;

/// Where messages may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Networks that are reached although they are private, or this host's.
    pub allow: Vec<Network>,
    /// Whether messages may go in the clear.
    pub plain_http: bool,
}

/// A message.
#[derive(Clone, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) url: &'a str,
    pub(crate) id: &'a str,
    pub(crate) secret: &'a [u8],
    pub(crate) body: Bytes,
    /// Seconds since 1970.
    pub(crate) now: i64,
}

/// Reads an address of a receiver: its scheme, its name and its port.
pub(crate) fn place(url: &str, reach: &Reach) -> anyhow::Result<(Uri, String, u16)> {
    if url.len() > 2048 || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("the URL is too long, or has characters that have to be written as %XX");
    }
    let uri: Uri = url.parse().context("this is no URL; write it as https://host/path")?;
    let port = match uri.scheme_str() {
        Some("https") => 443,
        Some("http") if reach.plain_http => 80,
        Some("http") => bail!(
            "http:// sends events in the clear; use https://, or set `plain-http` under [webhooks]"
        ),
        _ => bail!("the URL of a webhook begins with https://"),
    };
    let authority = uri.authority().context("the URL names no host")?;
    if authority.as_str().contains('@') || url.contains('#') {
        bail!("the URL of a webhook has no user and no fragment");
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().unwrap_or(port);
    Ok((uri, host, port))
}

/// Signs a body at a time: `t=SECONDS,v1=HMAC`, of the seconds, a dot and the body.
pub(crate) fn signature(secret: &[u8], now: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mut context = hmac::Context::with_key(&key);
    context.update(now.to_string().as_bytes());
    context.update(b".");
    context.update(body);
    format!("t={now},v1={}", hex(context.sign().as_ref()))
}

/// Sends a message, and returns the status of the answer.
pub(crate) async fn post(message: Message<'_>, reach: &Reach) -> anyhow::Result<u16> {
    let sent = tokio::time::timeout(TIMEOUT, send(message, reach)).await;
    sent.map_err(|_| anyhow!("no answer within {} seconds", TIMEOUT.as_secs()))?
}

async fn send(message: Message<'_>, reach: &Reach) -> anyhow::Result<u16> {
    let (uri, host, port) = place(message.url, reach)?;
    let found = tokio::net::lookup_host((host.as_str(), port)).await;
    let found: Vec<SocketAddr> =
        found.with_context(|| format!("nobody knows the name {host}"))?.collect();
    let stream = connect(&found, reach).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header("host", uri.authority().map_or("", |it| it.as_str()))
        .header("user-agent", concat!("kiln/", env!("CARGO_PKG_VERSION")))
        .header("content-type", "application/json")
        .header("kiln-event-id", message.id)
        .header("kiln-signature", signature(message.secret, message.now, &message.body))
        .header("connection", "close")
        .body(Full::new(message.body))?;
    if uri.scheme_str() == Some("http") {
        return converse(stream, request).await;
    }
    let name = ServerName::try_from(host.clone()).map_err(|_| anyhow!("{host} is no name"))?;
    let stream = TlsConnector::from(trusting()?).connect(name, stream).await;
    converse(stream.with_context(|| format!("{host} cannot be trusted"))?, request).await
}

/// Connects to the first address that answers, of those that may be reached. What was looked at is what is connected to:
/// no name is looked up in between.
async fn connect(found: &[SocketAddr], reach: &Reach) -> anyhow::Result<TcpStream> {
    let own: Vec<IpAddr> = crate::net::links()?
        .iter()
        .flat_map(|link| {
            let four = link.addresses.iter().map(|(address, _)| IpAddr::from(*address));
            four.chain(link.addresses6.iter().map(|(address, _)| IpAddr::from(*address)))
        })
        .collect();
    let mut last = anyhow!("the name has no address");
    for address in found {
        if let Some(why) = guard::refused(address.ip(), &own, &reach.allow) {
            last = anyhow!(
                "nothing is sent to {}: {why}; `allow` under [webhooks] can name its network",
                address.ip()
            );
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = anyhow::Error::new(error).context(format!("nobody at {address}")),
        }
    }
    Err(last)
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<u16> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await;
    let status = match response {
        Ok(response) => {
            let status = response.status().as_u16();
            // What is said beside the status means nothing, and may have no end.
            let _ = Limited::new(response.into_body(), MOST).collect().await;
            Ok(status)
        }
        Err(error) => Err(error.into()),
    };
    connection.abort();
    status
}

/// The authorities of this system, read once.
pub(crate) fn trusting() -> anyhow::Result<Arc<ClientConfig>> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(config.clone());
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(CONFIG.get_or_init(|| Arc::new(config)).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_encrypted_and_nothing_but_a_host_and_a_path() {
        let reach = Reach::default();
        let (_, host, port) = place("https://a.example/hook?x=1", &reach).unwrap();
        assert_eq!((host.as_str(), port), ("a.example", 443));
        assert_eq!(place("https://[2001:db8::1]:8443/", &reach).unwrap().1, "2001:db8::1");
        for wrong in [
            "http://a.example/",
            "file:///etc/passwd",
            "gopher://a/",
            "/x",
            "",
            "https://",
            "https://u:p@a/",
            "https://a/#x",
            "https://a/\r\nx: y",
            "https://a b/",
            "ftp://a/",
            "https:a",
        ] {
            assert!(place(wrong, &reach).is_err(), "{wrong}");
        }
        assert!(place(&format!("https://a/{}", "x".repeat(3000)), &reach).is_err());
        assert!(place("http://a/", &Reach { plain_http: true, ..reach }).is_ok());
    }

    #[test]
    fn a_signature_is_that_of_the_time_and_the_body() {
        // echo -n '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret
        let signed = signature(b"secret", 1_700_000_000, br#"{"a":1}"#);
        let mac = "49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686";
        assert_eq!(signed, format!("t=1700000000,v1={mac}"));
        assert_ne!(signed[13..], signature(b"secret", 1_700_000_001, br#"{"a":1}"#)[13..]);
        assert_ne!(signed, signature(b"other", 1_700_000_000, br#"{"a":1}"#));
        assert_ne!(signed, signature(b"secret", 1_700_000_000, br#"{"a":2}"#));
    }

    #[tokio::test]
    async fn nothing_is_sent_to_this_host_unless_it_is_allowed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "2130706433"] {
            let url = format!("http://{host}:{port}/");
            let message =
                Message { url: &url, id: "1.1", secret: b"s", body: Bytes::new(), now: 0 };
            let reach = Reach { plain_http: true, allow: Vec::new() };
            let error = post(message, &reach).await.unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains("nothing is sent") || error.contains("nobody knows"), "{error}");
        }
        let nobody = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
        assert!(nobody.is_err(), "somebody connected");
    }
}
