//! A registry as people run it: Debian's `docker-registry`, filled by `skopeo`.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use kiln_types::Digest;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::time::Instant;

use super::Need;

/// The user of a registry that wants one.
pub(crate) const USER: &str = "kiln";
/// The password of [`USER`].
pub(crate) const PASSWORD: &str = "correct horse";
/// bcrypt of [`PASSWORD`] with the least cost, for the registry takes no other kind of hash.
const HASH: &str = "$2b$04$4dQFbW9qYLMDf2SL52bGR.CV0sPL3Ri5orSCTA2xA58t5jSuzPj5q";

const PATIENCE: Duration = Duration::from_secs(20);

/// A registry on the loopback interface. It ends with this value.
#[derive(Debug)]
pub(crate) struct Registry {
    process: Child,
    address: SocketAddr,
    dir: PathBuf,
    guarded: bool,
}

impl Registry {
    /// What a case needs that starts one.
    pub(crate) fn needs() -> [Need; 2] {
        [Need::Tool("docker-registry", "docker-registry"), Need::Tool("skopeo", "skopeo")]
    }

    /// Starts one that everybody may read and write, without encryption. `dir` is its own.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        Self::start(dir, false)
    }

    /// Starts one with TLS that wants [`USER`] and [`PASSWORD`].
    pub(crate) fn guarded(dir: &Path) -> anyhow::Result<Self> {
        Self::start(dir, true)
    }

    fn start(dir: &Path, guarded: bool) -> anyhow::Result<Self> {
        fs::create_dir_all(dir.join("certs"))?;
        let address = free()?;
        let at = |name: &str| dir.join(name).display().to_string();
        let mut lines = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http:\n  addr: {address}\n  secret: for-tests\n",
            at("data")
        );
        if guarded {
            certificates(dir)?;
            fs::write(dir.join("htpasswd"), format!("{USER}:{HASH}\n"))?;
            lines += &format!(
                "  tls: {{certificate: {}, key: {}}}\nauth: {{htpasswd: {{realm: tests, path: {}}}}}\n",
                at("leaf.pem"),
                at("leaf.key"),
                at("htpasswd")
            );
        }
        fs::write(dir.join("config.yml"), lines)?;
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "docker-registry", "serve"])
            .arg(dir.join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("log"))?)
            .spawn()
            .context("cannot run docker-registry")?;
        let mut registry = Self { process, address, dir: dir.to_owned(), guarded };
        let begin = Instant::now();
        while TcpStream::connect(address).is_err() {
            let log = || fs::read_to_string(dir.join("log")).unwrap_or_default();
            if let Some(status) = registry.process.try_wait()? {
                bail!("docker-registry ended with {status}: {}", log());
            }
            ensure!(begin.elapsed() < PATIENCE, "docker-registry does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }

    /// Returns where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the certificate of the authority that vouches for it, if it has one.
    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.join("certs/ca.crt")
    }

    /// Returns the file that has a blob (storage driver `filesystem`).
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let name = format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
        self.dir.join(name)
    }

    /// Copies an image of a layout, for all architectures, to a repository with a tag.
    pub(crate) fn push(&self, layout: &Path, name: &str, target: &str) -> anyhow::Result<()> {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests"]);
        if self.guarded {
            let credentials = format!("{USER}:{PASSWORD}");
            skopeo.args(["--dest-creds", &credentials, "--dest-cert-dir"]);
            skopeo.arg(self.dir.join("certs"));
        } else {
            skopeo.arg("--dest-tls-verify=false");
        }
        skopeo.arg(format!("oci:{}:{name}", layout.display()));
        skopeo.arg(format!("docker://{}/{target}", self.address));
        let output = skopeo.output().context("cannot run skopeo")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "skopeo cannot copy to {target}: {errors}");
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Returns an address where nobody listens now.
pub(crate) fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Makes an authority and a certificate for 127.0.0.1 that it vouches for.
fn certificates(dir: &Path) -> anyhow::Result<()> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    fs::write(dir.join("certs/ca.crt"), authority.self_signed(&key)?.pem())?;
    let authority = Issuer::new(authority, key);
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
    fs::write(dir.join("leaf.pem"), leaf.signed_by(&key, &authority)?.pem())?;
    fs::write(dir.join("leaf.key"), key.serialize_pem())?;
    Ok(())
}
