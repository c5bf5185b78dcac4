//! Talks to the rustls that the server has, whose arithmetic is another.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize, SanType, date_time_ymd,
};
use rustls::crypto::aws_lc_rs as other;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection};

use super::*;
use crate::http::{HttpError, Limits, Request, Server, ask};

const LOCALHOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
/// The 1st of March 2026.
const BOOTED: u64 = 1_772_323_200;

/// An authority with a certificate under it.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Vec<u8>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn trust(&self) -> Trust {
        Trust::new(&self.certificate, BOOTED).unwrap()
    }

    /// Makes what a server for an address has until the end of a year.
    fn server(&self, address: IpAddr, until: i32) -> ServerConfig {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![SanType::IpAddress(address)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 12, 31);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain = vec![certificate.der().clone(), CertificateDer::from(self.certificate.clone())];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(other::default_provider()))
            .with_protocol_versions(&[&version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config
    }
}

/// Answers one request over TLS with a body, and hands on what came of the handshake and what was asked.
fn serve(config: ServerConfig, length: usize) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (say, said) = channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut tls = ServerConnection::new(Arc::new(config)).unwrap();
        let mut stream = rustls::Stream::new(&mut tls, &mut stream);
        let mut request = Vec::new();
        let mut buffer = [0; 1024];
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(count) => request.extend_from_slice(&buffer[..count]),
            }
        }
        let _ = say.send(String::from_utf8(request).unwrap());
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        let _ = stream.write_all(&vec![7; length]);
        stream.conn.send_close_notify();
        let _ = stream.flush();
    });
    (address, said)
}

fn asked(
    server: ServerConfig,
    trust: Trust,
    length: usize,
) -> (Result<Vec<u8>, HttpError>, String) {
    let (address, said) = serve(server, length);
    let request = Request { token: Some("s3cret"), ..Request::get("/x") };
    let result = ask(&Server::trusting(address, trust), &request, Limits::SHORT, length);
    (result.map(|answer| answer.body), said.recv().unwrap_or_default())
}

#[test]
fn a_server_of_the_site_is_asked_encrypted_and_a_long_answer_comes_whole() {
    let site = Authority::new("site");
    let (result, request) = asked(site.server(LOCALHOST, 2027), site.trust(), 300_001);
    assert_eq!(result.unwrap(), vec![7; 300_001]);
    assert!(request.contains("Authorization: Bearer s3cret"), "{request}");
}

#[test]
fn a_server_of_another_site_another_address_or_another_time_gets_nothing() {
    let (site, other) = (Authority::new("site"), Authority::new("site"));
    let elsewhere = IpAddr::from([10, 0, 0, 1]);
    for (server, expected) in [
        (other.server(LOCALHOST, 2027), "its certificate is not of this site's authority"),
        (site.server(elsewhere, 2027), "its certificate is for another address"),
        (site.server(LOCALHOST, 2025), "its certificate is not valid now"),
    ] {
        let (result, request) = asked(server, site.trust(), 1);
        let error = result.unwrap_err();
        assert!(matches!(error, HttpError::Untrusted(why) if why == expected), "{error:?}");
        assert_eq!(request, "", "it was told something");
    }
}

#[test]
fn what_does_not_speak_tls_gets_nothing() {
    let site = Authority::new("site");
    for answer in
        [&b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..], b"", &[0xff; 9000]]
    {
        let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let heard = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut hello = vec![0; 4096];
            let count = stream.read(&mut hello).unwrap();
            hello.truncate(count);
            let _ = stream.write_all(answer);
            hello
        });
        let request = Request { token: Some("s3cret"), ..Request::get("/x") };
        let result = ask(&Server::trusting(address, site.trust()), &request, Limits::SHORT, 1);
        let error = result.unwrap_err();
        let expected = if answer.is_empty() {
            matches!(error, HttpError::Short | HttpError::Broken(_))
        } else {
            matches!(error, HttpError::Untrusted(_))
        };
        assert!(expected, "{error:?}");
        let hello = heard.join().unwrap();
        assert!(!hello.windows(6).any(|six| six == b"s3cret"));
    }
}
