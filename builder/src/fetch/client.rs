//! Requests: straight to the server, or by way of a proxy.

use std::io;
use std::sync::OnceLock;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::header::{
    HOST, IF_MODIFIED_SINCE, IF_NONE_MATCH, PROXY_AUTHORIZATION, RANGE, USER_AGENT,
};
use hyper::{Request, Response, Uri};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::proxy::Proxies;
use super::{CONNECT_TIMEOUT, FetchError, SILENCE, Validators};

type Body = Empty<Bytes>;
type Https = Client<HttpsConnector<HttpConnector>, Body>;
type Tunnelled = Client<HttpsConnector<Tunnel<HttpConnector>>, Body>;

/// Clients for every way to a server. Connections are kept and reused, except those to a proxy.
pub(super) struct Clients {
    http: Client<HttpConnector, Body>,
    // Reading the system's certificates takes a while, and most mirrors are plain HTTP.
    https: OnceLock<Https>,
    tunnelled: OnceLock<Tunnelled>,
    proxies: Proxies,
}

impl Default for Clients {
    fn default() -> Self {
        Self::new(Proxies::of_host())
    }
}

impl Clients {
    pub(super) fn new(proxies: Proxies) -> Self {
        let http = Client::builder(TokioExecutor::new()).build(connector());
        Self { http, https: OnceLock::new(), tunnelled: OnceLock::new(), proxies }
    }

    /// Sends one request and waits for the head of its answer. `from` is how many bytes are there already, `known`
    /// what was said of a whole file that is there.
    pub(super) async fn request(
        &self,
        at: &Uri,
        from: u64,
        known: &Validators,
    ) -> Result<Response<Incoming>, FetchError> {
        let url = at.to_string();
        let mut request = Request::get(at)
            .header(USER_AGENT, concat!("kiln/", env!("CARGO_PKG_VERSION")))
            .header(HOST, at.authority().map_or("", |authority| authority.as_str()));
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        if let Some(etag) = &known.etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        if let Some(date) = &known.last_modified {
            request = request.header(IF_MODIFIED_SINCE, date);
        }
        let request = request
            .body(Empty::new())
            .map_err(|_| FetchError::Address { url: url.clone(), reason: "it is malformed" })?;
        let connect = |source| FetchError::Connect { url: url.clone(), source };
        let answer = async {
            match (at.scheme_str(), self.proxies.find(at)) {
                (Some("https"), Some(proxy)) => {
                    self.tunnelled(&url, &proxy)?.request(request).await.map_err(connect)
                }
                (Some("https"), None) => self.https(&url)?.request(request).await.map_err(connect),
                (_, Some(proxy)) => by_proxy(request, &proxy).await.map_err(|source| {
                    FetchError::Proxy { url: url.clone(), proxy: proxy_name(&proxy), source }
                }),
                (_, None) => self.http.request(request).await.map_err(connect),
            }
        };
        timeout(SILENCE, answer)
            .await
            .unwrap_or_else(|_| Err(FetchError::Silent { url: url.clone() }))
    }

    fn https(&self, url: &str) -> Result<&Https, FetchError> {
        if let Some(client) = self.https.get() {
            return Ok(client);
        }
        let connector = tls(url, connector())?;
        Ok(self.https.get_or_init(|| Client::builder(TokioExecutor::new()).build(connector)))
    }

    /// One proxy leads to all servers that are asked by HTTPS.
    fn tunnelled(&self, url: &str, proxy: &Intercept) -> Result<&Tunnelled, FetchError> {
        if let Some(client) = self.tunnelled.get() {
            return Ok(client);
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), connector());
        if let Some(auth) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        let connector = tls(url, tunnel)?;
        Ok(self.tunnelled.get_or_init(|| Client::builder(TokioExecutor::new()).build(connector)))
    }
}

/// Puts TLS over a way to servers, with the certificates of the system.
fn tls<C>(url: &str, connector: C) -> Result<HttpsConnector<C>, FetchError> {
    let config = rustls::ClientConfig::builder_with_provider(
        rustls::crypto::aws_lc_rs::default_provider().into(),
    );
    let config = config
        .with_safe_default_protocol_versions()
        .map_err(|error| FetchError::Certificates {
            url: url.to_owned(),
            source: io::Error::other(error),
        })?
        .with_native_roots()
        .map_err(|source| FetchError::Certificates { url: url.to_owned(), source })?
        .with_no_client_auth();
    let builder = HttpsConnectorBuilder::new().with_tls_config(config);
    Ok(builder.https_only().enable_http1().wrap_connector(connector))
}

/// Asks a proxy for an address of plain HTTP (RFC 9112 §3.2.2: the whole address stands in the request line).
async fn by_proxy(mut request: Request<Body>, proxy: &Intercept) -> io::Result<Response<Incoming>> {
    if proxy.uri().scheme_str() != Some("http") {
        return Err(io::Error::other(
            "only proxies with an address that begins with http:// are supported",
        ));
    }
    if let Some(auth) = proxy.basic_auth() {
        request.headers_mut().insert(PROXY_AUTHORIZATION, auth.clone());
    }
    let host = proxy.uri().host().unwrap_or_default().trim_matches(['[', ']']);
    let port = proxy.uri().port_u16().unwrap_or(80);
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port))).await??;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // It ends with the answer.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(io::Error::other)
}

/// The proxy without the password that may be in its address.
fn proxy_name(proxy: &Intercept) -> String {
    let authority = proxy.uri().authority().map_or("", |authority| authority.as_str());
    authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_owned()
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_nodelay(true);
    connector
}
