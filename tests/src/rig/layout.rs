//! OCI layouts (image specification 1.1) with images that a case puts together.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use kiln_builder::hash::sha256;
use kiln_types::Digest;
use serde_json::{Value, json};
use tar::{EntryType, Header};

/// `security.capability` with `cap_net_bind_service=ep`: revision 2 (linux/capability.h).
pub(crate) const CAPABILITY: [u8; 20] =
    [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// One member of a layer.
#[derive(Clone, Debug)]
pub(crate) enum Member {
    /// A folder.
    Dir(&'static str),
    /// A file with its mode and its contents. Each `{arch}` in them becomes the architecture.
    File(&'static str, u32, Vec<u8>),
    /// A file with [`CAPABILITY`].
    Capable(&'static str, Vec<u8>),
    /// A symbolic link and where it points.
    Symlink(&'static str, &'static str),
    /// A hard link and the file that it is another name of, which may be in a layer below.
    Hardlink(&'static str, &'static str),
    /// Takes away what layers below have there.
    Whiteout(&'static str),
    /// Takes away everything that layers below have in a folder.
    Opaque(&'static str),
}

/// An image.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// What it is called in the layout.
    pub(crate) name: String,
    /// Architectures, as OCI calls them: `amd64`, `arm64`.
    pub(crate) arches: Vec<&'static str>,
    /// Labels in its configuration.
    pub(crate) labels: Vec<(&'static str, String)>,
    /// What it runs.
    pub(crate) cmd: Vec<&'static str>,
    /// Its layers, the lowest first.
    pub(crate) layers: Vec<Vec<Member>>,
}

impl Sample {
    /// Returns an image for two architectures with every way in which layers change each other.
    pub(crate) fn new(name: &str) -> Self {
        let file = |path, text: &str| Member::File(path, 0o644, text.as_bytes().to_vec());
        let lower = vec![
            Member::Dir("bin"),
            Member::File("bin/tool", 0o755, b"tool for {arch}".to_vec()),
            Member::Capable("bin/server", b"server".to_vec()),
            Member::Symlink("bin/link", "tool"),
            Member::Dir("gone"),
            file("gone/below", "below"),
            Member::Dir("etc"),
            file("etc/old", "old"),
        ];
        let upper = vec![
            Member::Dir("gone"),
            Member::Opaque("gone"),
            file("gone/above", "above"),
            Member::Whiteout("etc/old"),
            Member::Hardlink("bin/same", "bin/tool"),
        ];
        Self {
            name: name.to_owned(),
            arches: vec!["amd64", "arm64"],
            labels: Vec::new(),
            cmd: vec!["/bin/tool"],
            layers: vec![lower, upper],
        }
    }

    /// Adds a layer of about this many bytes, which no compression makes smaller.
    pub(crate) fn with_large_layer(mut self, bytes: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let noise = std::iter::repeat_with(|| {
            // Xorshift (Marsaglia 2003): the same in every run.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        let noise = noise.flatten().take(bytes).collect();
        self.layers.push(vec![Member::File("large", 0o644, noise)]);
        self
    }
}

/// Writes a layout with these images, and returns the digest of the index of each.
pub(crate) fn write(dir: &Path, samples: &[Sample]) -> anyhow::Result<Vec<Digest>> {
    fs::create_dir_all(dir.join("blobs/sha256"))?;
    let (mut entries, mut digests) = (Vec::new(), Vec::new());
    for sample in samples {
        let (digest, mut index) = image(dir, sample)?;
        index["annotations"] = json!({"org.opencontainers.image.ref.name": sample.name});
        entries.push(index);
        digests.push(digest);
    }
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    fs::write(
        dir.join("index.json"),
        json!({"schemaVersion": 2, "manifests": entries}).to_string(),
    )?;
    Ok(digests)
}

/// Writes a layout of one x86_64 image with the files of a folder as its only layer.
pub(crate) fn of_folder(layout: &Path, root: &Path, name: &str) -> anyhow::Result<()> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let blob = |kind: &str, bytes: &[u8]| -> anyhow::Result<Value> {
        let digest = sha256(bytes);
        fs::write(blobs.join(digest.hex()), bytes)?;
        let kind = format!("application/vnd.oci.image.{kind}");
        Ok(json!({"mediaType": kind, "digest": digest.to_string(), "size": bytes.len()}))
    };
    let tar = layout.join("layer.tar");
    let made = Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&tar).arg(".").status()?;
    anyhow::ensure!(made.success(), "tar: {made}");
    let layer = fs::read(&tar)?;
    fs::remove_file(&tar)?;
    let rootfs = json!({"type": "layers", "diff_ids": [sha256(&layer).to_string()]});
    let config = json!({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs});
    let config = blob("config.v1+json", &serde_json::to_vec(&config)?)?;
    let layer = blob("layer.v1.tar", &layer)?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
    let mut entry = blob("manifest.v1+json", &serde_json::to_vec(&manifest)?)?;
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(layout.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(())
}

/// Writes the parts of an image and returns its index: digest and descriptor.
fn image(dir: &Path, sample: &Sample) -> anyhow::Result<(Digest, Value)> {
    let mut manifests = Vec::new();
    for arch in &sample.arches {
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for members in &sample.layers {
            let tar = layer(members, arch)?;
            diff_ids.push(sha256(&tar).to_string());
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            packed.write_all(&tar)?;
            layers.push(put(dir, "image.layer.v1.tar+gzip", &packed.finish()?)?.1);
        }
        let labels: serde_json::Map<_, _> = sample
            .labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_str().into()))
            .collect();
        let config = json!({
            "architecture": arch, "os": "linux",
            "config": {"Cmd": sample.cmd, "Labels": labels, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = put(dir, "image.config.v1+json", config.to_string().as_bytes())?.1;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": layers,
        });
        let mut manifest = put(dir, "image.manifest.v1+json", manifest.to_string().as_bytes())?.1;
        manifest["platform"] = json!({"architecture": arch, "os": "linux"});
        manifests.push(manifest);
    }
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    });
    put(dir, "image.index.v1+json", index.to_string().as_bytes())
}

/// Writes a blob and returns its digest and its descriptor.
fn put(dir: &Path, kind: &str, bytes: &[u8]) -> anyhow::Result<(Digest, Value)> {
    let digest = sha256(bytes);
    fs::write(dir.join("blobs/sha256").join(digest.hex()), bytes)?;
    let media_type = format!("application/vnd.oci.{kind}");
    let descriptor =
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()});
    Ok((digest, descriptor))
}

fn layer(members: &[Member], arch: &str) -> anyhow::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for member in members {
        let header = |kind: EntryType, mode: u32, size: usize| {
            let mut header = Header::new_ustar();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(size as u64);
            header.set_mtime(1_700_000_000);
            header.set_uid(0);
            header.set_gid(0);
            header
        };
        let empty = || header(EntryType::Regular, 0o644, 0);
        match member {
            Member::Dir(path) => {
                tar.append_data(&mut header(EntryType::Directory, 0o755, 0), path, &[][..])?;
            }
            Member::File(path, mode, bytes) => {
                let bytes = match std::str::from_utf8(bytes) {
                    Ok(text) => text.replace("{arch}", arch).into_bytes(),
                    Err(_) => bytes.clone(),
                };
                let mut header = header(EntryType::Regular, *mode, bytes.len());
                tar.append_data(&mut header, path, bytes.as_slice())?;
            }
            Member::Capable(path, bytes) => {
                tar.append_pax_extensions([("SCHILY.xattr.security.capability", &CAPABILITY[..])])?;
                let mut header = header(EntryType::Regular, 0o755, bytes.len());
                tar.append_data(&mut header, path, bytes.as_slice())?;
            }
            Member::Symlink(path, target) => {
                tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, target)?;
            }
            Member::Hardlink(path, target) => {
                tar.append_link(&mut header(EntryType::Link, 0o644, 0), path, target)?;
            }
            Member::Whiteout(path) => {
                let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
                let path = format!("{folder}/.wh.{name}");
                tar.append_data(&mut empty(), path.trim_start_matches('/'), &[][..])?;
            }
            Member::Opaque(path) => {
                tar.append_data(&mut empty(), format!("{path}/.wh..wh..opq"), &[][..])?;
            }
        }
    }
    Ok(tar.into_inner()?)
}
