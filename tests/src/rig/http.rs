use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Fetches what a URL of the server names, as a loader would. Needs no more of HTTP than a length.
pub(crate) async fn fetch(url: &str) -> anyhow::Result<Vec<u8>> {
    let rest = url.strip_prefix("http://").with_context(|| format!("{url} is no HTTP URL"))?;
    let (host, path) = rest.split_once('/').with_context(|| format!("{url} has no path"))?;
    let mut stream =
        TcpStream::connect(host).await.with_context(|| format!("cannot reach {host}"))?;
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.with_context(|| format!("{url} broke off"))?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let body = answer.split_off(end.with_context(|| format!("{url} has no answer"))? + 4);
    let head = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    ensure!(head.starts_with("http/1.1 200 "), "{url} is answered with {head}");
    let length = format!("\r\ncontent-length: {}\r\n", body.len());
    ensure!(head.contains(&length), "{url} has {} bytes, not as its head says: {head}", body.len());
    Ok(body)
}
