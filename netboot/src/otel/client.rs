//! Sends requests of the exporters: one connection for each, with the TLS that the rest of the program has.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Uri;
use hyper::header::{HOST, HeaderValue, USER_AGENT};
use hyper_util::rt::TokioIo;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_sdk::error::OTelSdkError;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::webhook::trusting;

/// How long a request may take, from the look-up of the name to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most that is read of an answer.
const MOST: usize = 64 << 10;

/// The client of one exporter. Clones share what it remembers.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    /// Why the last request came to nothing, with its causes: the library says of all of them that it was the network.
    failed: Arc<Mutex<Option<String>>>,
}

impl Client {
    /// Says why an export failed.
    pub(super) fn why(&self, error: &OTelSdkError) -> String {
        self.failed().take().unwrap_or_else(|| error.to_string())
    }

    fn failed(&self) -> MutexGuard<'_, Option<String>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(&'a self, request: Request<Bytes>) -> Answer<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let sent = tokio::time::timeout(TIMEOUT, send(request)).await;
            let sent = sent
                .map_err(|_| anyhow!("no answer within {} seconds", TIMEOUT.as_secs()))
                .and_then(|answer| answer);
            *self.failed() = sent.as_ref().err().map(|error| format!("{error:#}"));
            sent.map_err(HttpError::from)
        })
    }
}

async fn send(request: Request<Bytes>) -> anyhow::Result<Response<Bytes>> {
    let uri = request.uri().clone();
    let authority = uri.authority().context("the URL of the collector names no host")?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let encrypted = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => bail!("the URL of the collector begins with http:// or https://"),
    };
    let port = authority.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
    let (mut parts, body) = request.into_parts();
    parts.uri = uri.path_and_query().map_or("/", |path| path.as_str()).parse::<Uri>()?;
    parts.headers.insert(HOST, HeaderValue::from_str(authority.as_str())?);
    let agent = HeaderValue::from_static(concat!("kiln/", env!("CARGO_PKG_VERSION")));
    parts.headers.insert(USER_AGENT, agent);
    let request = Request::from_parts(parts, Full::new(body));
    let stream = TcpStream::connect((host.as_str(), port)).await;
    let stream = stream.with_context(|| format!("nobody at {host} port {port}"))?;
    if !encrypted {
        return converse(stream, request).await;
    }
    let name = ServerName::try_from(host.clone()).map_err(|_| anyhow!("{host} is no name"))?;
    let stream = TlsConnector::from(trusting()?).connect(name, stream).await;
    converse(stream.with_context(|| format!("{host} cannot be trusted"))?, request).await
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Response<Bytes>> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let answer = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MOST).collect().await;
        let body = body.map_err(|error| anyhow!(error).context("its answer broke off"))?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    };
    let answer = answer.await;
    connection.abort();
    answer
}
