//! Handshakes over loopback, with clients as there are: modern ones, firmware, and those that should not get in.

use std::net::Ipv4Addr;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;

use super::*;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn settings() -> HttpsSettings {
    HttpsSettings {
        port: 0,
        urls: None,
        own: None,
        client_certificates: None,
        names: vec!["boot.example".to_owned()],
    }
}

struct Site {
    dir: TempDir,
    keys: KeyDir,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyDir::new(dir.path().join("keys"));
        Self { dir, keys }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let authority = Authority::open(&self.keys).unwrap();
        roots.add(CertificateDer::from(authority.der().to_vec())).unwrap();
        roots
    }

    fn tls(&self, settings: &HttpsSettings) -> Result<Tls, TlsError> {
        Tls::new(settings, &self.keys, vec![LOCALHOST])
    }
}

/// Lets a client and the server agree, and returns what each of them says.
async fn shake(
    tls: &Tls,
    client: ClientConfig,
    name: &str,
) -> (Result<String, Failure>, Result<(), io::Error>) {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let client = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await?;
        stream.write_all(b"x").await?;
        stream.read_exact(&mut [0]).await?;
        Ok(())
    };
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = tls.accept(stream).await?;
        stream.read_exact(&mut [0]).await.map_err(Failure::after_hello)?;
        stream.write_all(b"y").await.map_err(Failure::Broken)?;
        let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap();
        Ok(format!("{:?}", suite.suite()))
    };
    tokio::join!(server, client)
}

fn modern(roots: RootCertStore) -> ClientConfig {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// As EDK2 without elliptic curves says hello.
fn without_curves(roots: RootCertStore) -> ClientConfig {
    let mut provider = firmware::crypto();
    provider.cipher_suites.retain(|suite| [0x9e, 0x9f].contains(&u16::from(suite.suite())));
    provider.kx_groups.retain(|group| group.name() == rustls::NamedGroup::FFDHE2048);
    assert_eq!((provider.cipher_suites.len(), provider.kx_groups.len()), (2, 1));
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[tokio::test]
async fn clients_with_and_without_curves_trust_the_site_by_address_and_by_name() {
    let site = Site::new();
    let tls = site.tls(&settings()).unwrap();
    for name in ["127.0.0.1", "boot.example"] {
        let (suite, client) = shake(&tls, modern(site.roots()), name).await;
        client.unwrap();
        assert!(suite.unwrap().starts_with("TLS13_"));
    }
    let (suite, client) = shake(&tls, without_curves(site.roots()), "127.0.0.1").await;
    client.unwrap();
    // TLS_DHE_RSA_WITH_AES_256_GCM_SHA384, for which rustls has no name.
    assert_eq!(suite.unwrap(), "CipherSuite(0x9f)");
    let (_, client) = shake(&tls, modern(site.roots()), "other.example").await;
    assert!(client.unwrap_err().to_string().contains("not valid for name"));
}

#[tokio::test]
async fn a_client_with_another_authority_is_told_apart_from_noise() {
    let (site, other) = (Site::new(), Site::new());
    let tls = site.tls(&settings()).unwrap();
    let (server, client) = shake(&tls, modern(other.roots()), "127.0.0.1").await;
    assert!(client.is_err());
    let failure = server.unwrap_err();
    assert!(failure.is_refusal());
    assert!(failure.to_string().contains("`kiln ca export`"), "{failure}");
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    for noise in [&b""[..], b"\0\0\0\0\0\0\0\0", &[0xff; 4096]] {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(noise).await.unwrap();
        client.shutdown().await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let failure = tls.accept(stream).await.unwrap_err();
        assert!(!failure.is_refusal(), "{failure}");
    }
    // It says hello and goes: that is how EDK2 refuses a certificate.
    let gone = Failure::after_hello(io::ErrorKind::UnexpectedEof.into());
    assert!(gone.is_refusal());
}

#[tokio::test]
async fn files_of_somebody_else_are_used_as_they_are_and_named_when_they_are_wrong() {
    let site = Site::new();
    let issued = Authority::open(&site.keys).unwrap().issue(&[LOCALHOST], &[]).unwrap();
    let path = |name: &str| site.dir.path().join(name);
    let own = OwnCertificate { certificate: path("c.pem"), key: path("k.pem") };
    let given = HttpsSettings { own: Some(own), ..settings() };
    let error = site.tls(&given).unwrap_err().to_string();
    assert!(error.starts_with("cannot read "), "{error}");
    std::fs::write(path("c.pem"), "nothing").unwrap();
    let error = site.tls(&given).unwrap_err().to_string();
    assert!(error.starts_with("there is no certificate (PEM) in "), "{error}");
    // A certificate as others make it, whose key is elsewhere.
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(vec!["x.example".to_owned()]).unwrap();
    let cert = cert.self_signed(&key).unwrap();
    std::fs::write(path("c.pem"), cert.pem()).unwrap();
    std::fs::copy(site.keys.path().join("server-tls.pem"), path("k.pem")).unwrap();
    assert!(matches!(site.tls(&given).unwrap_err(), TlsError::Certificate(_)));
    std::fs::write(path("k.pem"), key.serialize_pem()).unwrap();
    let tls = site.tls(&given).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    shake(&tls, modern(roots), "x.example").await.1.unwrap();
    assert_eq!(issued.chain.len(), 2);
}

#[tokio::test]
async fn only_clients_with_a_certificate_come_in_where_the_settings_ask_for_one() {
    let site = Site::new();
    let clients = Site::new();
    let authority = Authority::open(&clients.keys).unwrap();
    let ca = clients.dir.path().join("clients.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let asking = HttpsSettings { client_certificates: Some(ca), ..settings() };
    let tls = site.tls(&asking).unwrap();
    let (server, _) = shake(&tls, modern(site.roots()), "127.0.0.1").await;
    assert!(server.unwrap_err().to_string().contains("cannot agree"));
    let own = rcgen::KeyPair::generate().unwrap();
    let text = std::fs::read_to_string(authority.path()).unwrap();
    let key = rcgen::KeyPair::from_pem(&text).unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    let issuer = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
    let ca = clients.dir.path().join("others.pem");
    std::fs::write(&ca, issuer.pem()).unwrap();
    let tls = site.tls(&HttpsSettings { client_certificates: Some(ca), ..settings() }).unwrap();
    let mut client = rcgen::CertificateParams::new(Vec::new()).unwrap();
    client.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = client.signed_by(&own, &issuer).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(site.roots())
        .with_client_auth_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(own.serialize_der()).unwrap(),
        )
        .unwrap();
    let (server, client) = shake(&tls, client, "127.0.0.1").await;
    client.unwrap();
    server.unwrap();
}

/// As kiln-init says hello, which knows these authorities.
fn agent(roots: RootCertStore) -> ClientConfig {
    let names = roots.subjects();
    let mut config = modern(roots.clone());
    config.alpn_protocols = vec![b"kiln-agent".to_vec()];
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider);
    let verifier = Knows(verifier.build().unwrap(), names);
    config.dangerous().set_certificate_verifier(Arc::new(verifier));
    config
}

/// Tells the server which authorities it knows.
#[derive(Debug)]
struct Knows(Arc<rustls::client::WebPkiServerVerifier>, Vec<rustls::DistinguishedName>);

mod knows {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::UnixTime;
    use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

    use super::*;

    impl ServerCertVerifier for Knows {
        fn verify_server_cert(
            &self,
            certificate: &CertificateDer<'_>,
            between: &[CertificateDer<'_>],
            name: &ServerName<'_>,
            ocsp: &[u8],
            now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            self.0.verify_server_cert(certificate, between, name, ocsp, now)
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls12_signature(message, certificate, signed)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls13_signature(message, certificate, signed)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            // What kiln-init knows: RSA under certificates, Ed25519 for the rest.
            vec![SignatureScheme::ED25519, SignatureScheme::RSA_PKCS1_SHA256]
        }

        fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
            Some(&self.1)
        }
    }
}

#[tokio::test]
async fn kiln_init_trusts_the_sites_authority_whatever_certificate_others_get() {
    let site = Site::new();
    let clients = Site::new();
    let ca = clients.dir.path().join("clients.pem");
    std::fs::write(&ca, Authority::open(&clients.keys).unwrap().pem()).unwrap();
    // Others need a certificate of their own; it has the token of its boot.
    let asking = HttpsSettings { client_certificates: Some(ca), ..settings() };
    let tls = site.tls(&asking).unwrap();
    let (suite, client) = shake(&tls, agent(site.roots()), "127.0.0.1").await;
    client.unwrap();
    assert!(suite.unwrap().starts_with("TLS13_"));
    let (server, client) = shake(&tls, agent(clients.roots()), "127.0.0.1").await;
    assert!(client.is_err());
    let failure = server.unwrap_err();
    assert!(failure.is_refusal() && failure.to_string().contains("start the machine anew"));
}

#[tokio::test]
async fn kiln_init_that_knows_an_earlier_authority_is_talked_to_after_a_change() {
    let site = Site::new();
    let before = site.roots();
    let first = site.tls(&settings()).unwrap().authority();
    Authority::rotate(&site.keys).unwrap();
    let tls = site.tls(&settings()).unwrap();
    assert_ne!(first, tls.authority(), "machines that start now are told of the new one");
    for roots in [before, site.roots()] {
        shake(&tls, agent(roots), "127.0.0.1").await.1.unwrap();
    }
}

#[test]
fn what_speaks_http_there_is_told_so_with_its_true_length() {
    let text = std::str::from_utf8(NOT_ENCRYPTED).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
}
