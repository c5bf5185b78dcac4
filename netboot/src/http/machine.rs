//! The first segment of an initrd: what this one machine is told in this one boot.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;

use kiln_builder::cpio;
use kiln_builder::tree::{Kind, Node, Tree, TreePath};
use kiln_inventory::{Flag, Snapshot, StateDisk};
use kiln_ipxe::Endpoints;
use kiln_types::Mac;
use serde::Serialize;

use crate::boots::Identity;
use crate::view::View;

/// Where the booting system finds it, and its secrets, each in a file.
const PATH: &str = "etc/kiln/machine.json";
const SECRETS: &str = "etc/kiln/secrets";

#[derive(Serialize)]
struct MachineFile<'a> {
    server: String,
    boot: i64,
    token: &'a str,
    hostname: &'a str,
    mac: String,
    version: String,
    /// What the card had while the machine booted: its system asks to keep it.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    /// The keys whose signatures count when it is told to start another version, in hexadecimal digits.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    keys: &'a [String],
    /// The disk on which the machine may make a state partition.
    #[serde(rename = "state-disk", skip_serializing_if = "Option::is_none")]
    state_disk: Option<&'a StateDisk>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secure: Option<Secure>,
}

/// How the system talks to the server where that encrypts. An older kiln-init knows nothing of it and takes `server`.
#[derive(Serialize)]
struct Secure {
    server: String,
    /// The certificate of the one authority that counts (DER), in hexadecimal digits.
    authority: String,
    /// What the clock of this server showed when the boot began: that of the machine may show anything.
    time: u64,
}

impl Secure {
    fn new(identity: &Identity, at: &Endpoints, authority: &[u8]) -> Option<Self> {
        let time = u64::try_from(identity.started / 1000).unwrap_or_default();
        let server = format!("https://{}", at.agent?);
        Some(Self { server, authority: hex(authority), time })
    }
}

/// Makes the segment of a machine that boots.
pub(crate) fn machine_segment(
    view: &View,
    identity: &Identity,
    at: &Endpoints,
) -> io::Result<Vec<u8>> {
    let keys = view.keys();
    let snapshot = view.snapshot();
    let authority = view.authority();
    let secure = authority.and_then(|authority| Secure::new(identity, at, &authority));
    let disk = state_disk(&snapshot, identity.mac);
    let secrets = view.secrets_for(identity).unwrap_or_default();
    segment(identity, at.for_system(), &keys, disk, secure, &secrets)
}

/// Returns the disk on which a machine may make a state partition. Only a machine of the inventory has one, so that one
/// that was removed meanwhile has none, and what runs for maintenance has no state of its own.
fn state_disk(snapshot: &Snapshot, mac: Mac) -> Option<&StateDisk> {
    let (machine, settings) = snapshot.known(mac)?;
    let works = !machine.spec.is(Flag::Maintenance) && !machine.spec.is(Flag::Retired);
    settings.state_disk.as_ref().map(|said| &said.value).filter(|_| works)
}

/// Makes the segment. The same identity gives the same bytes.
///
/// It is small, and not compressed: as first in the initrd, or after another segment, it begins at a multiple of four,
/// where the kernel looks for bare archives, and it ends at one.
fn segment(
    identity: &Identity,
    server: String,
    keys: &[String],
    state_disk: Option<&StateDisk>,
    secure: Option<Secure>,
    secrets: &BTreeMap<String, Vec<u8>>,
) -> io::Result<Vec<u8>> {
    let file = serde_json::to_vec(&MachineFile {
        server,
        boot: identity.boot.0,
        token: &identity.token,
        hostname: &identity.hostname,
        mac: identity.mac.to_string(),
        version: identity.version.to_string(),
        address: identity.address,
        keys,
        state_disk,
        secure,
    })?;
    let mut tree = Tree::new();
    let path = TreePath::new(PATH).map_err(io::Error::other)?;
    tree.insert(path, Node::file(0o600, file));
    if !secrets.is_empty() {
        let dir = TreePath::new(SECRETS).map_err(io::Error::other)?;
        tree.insert(dir, Node::new(0o700, Kind::Dir));
    }
    for (name, secret) in secrets {
        let path = TreePath::new(&format!("{SECRETS}/{name}")).map_err(io::Error::other)?;
        tree.insert(path, Node::file(0o600, secret.clone()));
    }
    let mut archive = Vec::new();
    cpio::write(&tree, 0, &mut archive).map_err(io::Error::other)?;
    Ok(archive)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use kiln_inventory::BootId;
    use kiln_types::Digest;

    use super::*;

    #[test]
    fn the_segment_holds_the_token_in_a_file_for_root_only() {
        let identity = Identity {
            boot: BootId(12),
            peer: [10, 0, 0, 5].into(),
            given: true,
            token: "ab".repeat(32),
            hostname: "n1".to_owned(),
            mac: Mac::new([0x52, 0x54, 0, 0, 0, 1]),
            version: Digest::from_bytes([1; 32]),
            address: Some([10, 0, 0, 5].into()),
            started: 1_763_712_000_999,
        };
        let disk = "serial:ABC".parse().unwrap();
        let server = "http://10.0.0.1:8080".to_owned();
        let plain = segment(&identity, server.clone(), &[], None, None, &BTreeMap::new()).unwrap();
        let plain = String::from_utf8_lossy(&plain);
        assert!(!plain.contains("secure") && !plain.contains("etc/kiln/secrets"));
        let at = Endpoints::new([10, 0, 0, 1], 8080);
        assert!(Secure::new(&identity, &at, &[]).is_none(), "nobody listens for TLS");
        let at = at.with_agents_at("10.0.0.1:8443".parse().ok());
        let secure = Secure::new(&identity, &at, &[1, 0xab]);
        let secrets = BTreeMap::from([("password".to_owned(), b"geheim".to_vec())]);
        let segment = segment(&identity, server, &[], Some(&disk), secure, &secrets).unwrap();
        assert_eq!(segment.len() % 4, 0);
        let text = String::from_utf8_lossy(&segment);
        assert!(text.starts_with("070701"));
        assert!(text.contains("000081800000000000000000"), "mode 0600, owner 0, group 0");
        assert!(text.contains("etc/kiln/machine.json\0"));
        assert!(text.contains("etc/kiln/secrets/password\0") && text.contains("geheim"));
        assert_eq!(text.matches("000081800000000000000000").count(), 2, "both for root only");
        assert!(text.contains("000041c00000000000000000"), "mode 0700");
        assert!(text.contains(r#""boot":12,"token":"abab"#), "{text}");
        assert!(text.contains(r#""address":"10.0.0.5""#), "{text}");
        assert!(text.contains(r#""state-disk":"serial:ABC","#), "{text}");
        let secure =
            r#""secure":{"server":"https://10.0.0.1:8443","authority":"01ab","time":1763712000}}"#;
        assert!(text.contains(secure), "{text}");
    }
}
