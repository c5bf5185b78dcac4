//! Images that stand in for those that specifications name: small, with all that an image can have, and different for
//! every name and architecture.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kiln_builder::hash::sha256;
use kiln_types::Arch;
use serde_json::{Value, json};
use tar::{EntryType, Header};

use super::expect::{Entry, Kind};

/// What images say with their label `org.mobyproject.config`, by the last part of their names.
const LABELS: [(&str, &str); 6] = [
    (
        "getty",
        r#"{"capabilities":["all"],"binds":["/run:/run","/tmp:/etc:ro"],"net":"host","pid":"host"}"#,
    ),
    (
        "sshd",
        r#"{"capabilities":["CAP_SYS_CHROOT","CAP_KILL"],"binds":["/root:/root"],"env":["A=label"]}"#,
    ),
    ("rngd", r#"{"capabilities":["CAP_SYS_ADMIN"],"oomScoreAdj":-800,"readonly":true}"#),
    (
        "sysctl",
        r#"{"capabilities":["CAP_SYS_ADMIN"],"readonly":true,"pid":"host","binds":["/etc/sysctl.d:/etc/sysctl.d"]}"#,
    ),
    (
        "mount",
        r#"{"capabilities":["CAP_SYS_ADMIN"],"binds":["/var:/var:rshared,rbind"],"rootfsPropagation":"shared"}"#,
    ),
    (
        "swap",
        r#"{"command":["/swap.sh"],"runtime":{"mkdir":["/var/swap"],"cgroups":["swap"]},"cwd":"/srv"}"#,
    ),
];

/// One image, for one architecture.
pub(super) struct StandIn {
    layers: [Vec<(String, Entry)>; 2],
    /// What `kernel.tar` holds, when it is a kernel.
    pub(super) modules: Vec<(String, Entry)>,
    /// The part `config` of its configuration.
    pub(super) config: Value,
    /// Its label.
    pub(super) label: Option<Value>,
}

impl StandIn {
    pub(super) fn new(reference: &str, arch: Arch) -> Self {
        let name = reference.trim_end_matches(":latest");
        let path = name.rsplit('/').next().unwrap_or(name);
        let (short, tag) = path.split_once(':').unwrap_or((path, "latest"));
        let seed: usize = name.bytes().map(usize::from).sum();
        let label = LABELS.iter().find(|(of, _)| *of == short);
        let label = label.and_then(|(_, text)| serde_json::from_str(text).ok());
        let number = u32::try_from(seed % 1000).unwrap_or(0);
        let config = json!({
            "Entrypoint": [format!("/usr/bin/{short}")],
            "Cmd": ["--number", number.to_string()],
            "Env": ["PATH=/usr/bin:/bin", format!("NAME={short}")],
            "WorkingDir": if seed.is_multiple_of(2) { "/srv" } else { "" },
            "Labels": label.as_ref().map(|label: &Value| json!({"org.mobyproject.config": label.to_string()})),
        });
        let mut new = Self { layers: [Vec::new(), Vec::new()], modules: Vec::new(), config, label };
        if short == "kernel" {
            new.fill_kernel(tag, arch);
        } else {
            new.fill(short, &format!("{name} {arch} ").repeat(1 + seed % 7), number);
        }
        new
    }

    fn fill_kernel(&mut self, tag: &str, arch: Arch) {
        let modules = format!("lib/modules/{tag}-linuxkit");
        self.modules = vec![
            ("lib".to_owned(), Entry::dir(0o755)),
            ("lib/modules".to_owned(), Entry::dir(0o755)),
            (modules.clone(), Entry::dir(0o750)),
            // With both lists it is a kernel as LinuxKit's are, which nothing has to be added to.
            (format!("{modules}/modules.alias"), Entry::file(0o640, "# aliases\n")),
            (format!("{modules}/modules.dep"), Entry::file(0o640, "kernel/a.ko:\n")),
            (format!("{modules}/kernel"), Entry::dir(0o755)),
            (format!("{modules}/kernel/a.ko"), Entry::file(0o644, format!("{arch} {tag}"))),
            (format!("{modules}/build"), Entry::symlink("/usr/src/linux")),
        ];
        let tar = archive(&self.modules);
        let [first, second] = &mut self.layers;
        first.push(("kernel".to_owned(), Entry::file(0o755, format!("kernel {arch} {tag}"))));
        first.push(("kernel.tar".to_owned(), Entry::bytes(0o644, tar)));
        first.push(("kernel-dev.tar".to_owned(), Entry::file(0o644, "not wanted")));
        second.push(("intel-ucode.cpio".to_owned(), Entry::file(0o644, "ucode 1234")));
    }

    fn fill(&mut self, short: &str, text: &str, number: u32) {
        let [first, second] = &mut self.layers;
        let mut put = |name: &str, entry: Entry| first.push((name.to_owned(), entry));
        put(".dockerenv", Entry::file(0o644, ""));
        put("Dockerfile", Entry::file(0o644, "FROM scratch\n"));
        put("bin", Entry::symlink("usr/bin"));
        put("dev", Entry::dir(0o755));
        put("dev/console", Entry::device(5, 1));
        put("dev/null", Entry::device(1, 3));
        put("dev/pts", Entry::dir(0o700));
        put("dev/shm", Entry::dir(0o1777));
        match number % 4 {
            1 => put("etc", Entry::dir(0o750).owned(3, 4)),
            _ => put("etc", Entry::dir(0o755)),
        }
        if number.is_multiple_of(2) {
            put("etc/mtab", Entry::symlink("../proc/mounts"));
        }
        put("etc/hostname", Entry::file(0o644, "builder\n"));
        put("etc/hosts", Entry::file(0o644, "127.0.0.1 builder\n"));
        put("etc/issue", Entry::file(0o644, "hidden by the next layer"));
        put(&format!("etc/{short}.conf"), Entry::file(0o640, text).owned(number, number + 1));
        put("lib", Entry::dir(0o755));
        put("lib/apk/db/installed", Entry::file(0o644, format!("P:{short}\nV:{number}\n\n")));
        put("proc", Entry::dir(0o555));
        put("srv", Entry::dir(0o711).owned(70_000, 3_000_000));
        put("srv/data", Entry::dir(0o755));
        put("srv/data/old", Entry::file(0o600, "hidden by an opaque whiteout"));
        put("tmp", Entry::dir(0o1777));
        put("usr/bin", Entry::dir(0o751));
        put(&format!("usr/bin/{short}"), Entry::file(0o4755, text));
        put(&format!("usr/bin/{short}-2"), Entry::link(&format!("usr/bin/{short}")));
        put(&format!("usr/lib/{}/x", "long-".repeat(25)), Entry::file(0o644, "x"));
        put("usr/lib/gone", Entry::dir(0o755));
        put("usr/lib/gone/a", Entry::file(0o644, "a"));
        put(&format!("var/lib/{short}"), Entry::dir(0o700).owned(42, 0));
        let mut put = |name: &str, entry: Entry| second.push((name.to_owned(), entry));
        put("etc/issue", Entry::file(0o600, text).owned(1, 2));
        put("usr/lib/.wh.gone", Entry::file(0o644, ""));
        if number.is_multiple_of(3) {
            put("srv/data/.wh..wh..opq", Entry::file(0o644, ""));
        }
        put("srv/data/new", Entry::file(0o644, "new"));
        put(&format!("usr/lib/{short}"), Entry::link(&format!("usr/bin/{short}")));
    }

    /// Returns its files as LinuxKit takes them out of its layers: it knows no opaque whiteouts.
    pub(super) fn files(&self) -> BTreeMap<String, Entry> {
        let mut files: BTreeMap<String, Entry> = BTreeMap::new();
        for (path, entry) in self.layers.iter().flatten() {
            if path.ends_with(".wh..wh..opq") {
                continue;
            }
            match path.split_once(".wh.") {
                Some((dir, name)) => {
                    let gone = format!("{dir}{name}");
                    let below = format!("{gone}/");
                    files.retain(|path, _| *path != gone && !path.starts_with(&below));
                }
                None => {
                    files.insert(path.clone(), entry.clone());
                }
            }
        }
        files
    }
}

/// Writes a layout in which these references have stand-ins for both architectures.
pub(super) fn write_layout(folder: &Path, references: &[String]) -> anyhow::Result<()> {
    fs::create_dir_all(folder.join("blobs/sha256"))?;
    let blob = |bytes: &[u8], kind: &str| -> anyhow::Result<Value> {
        let digest = sha256(bytes);
        fs::write(folder.join("blobs/sha256").join(digest.hex()), bytes)?;
        let media_type = format!("application/vnd.oci.image.{kind}");
        Ok(json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()}))
    };
    let mut entries = Vec::new();
    for reference in references {
        let mut manifests = Vec::new();
        for (arch, name) in [(Arch::X86_64, "amd64"), (Arch::Arm64, "arm64")] {
            let image = StandIn::new(reference, arch);
            let tars = image.layers.each_ref().map(|layer| archive(layer));
            let ids: Vec<_> = tars.iter().map(|tar| sha256(tar).to_string()).collect();
            let layers = tars.iter().map(|tar| blob(tar, "layer.v1.tar"));
            let config = json!({
                "architecture": name, "os": "linux", "config": image.config,
                "rootfs": {"type": "layers", "diff_ids": ids},
            });
            let manifest = json!({
                "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": blob(config.to_string().as_bytes(), "config.v1+json")?,
                "layers": layers.collect::<Result<Vec<_>, _>>()?,
            });
            let mut entry = blob(manifest.to_string().as_bytes(), "manifest.v1+json")?;
            entry["platform"] = json!({"architecture": name, "os": "linux"});
            manifests.push(entry);
        }
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": manifests,
        });
        let mut entry = blob(index.to_string().as_bytes(), "index.v1+json")?;
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": reference});
        entries.push(entry);
    }
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let index = json!({"schemaVersion": 2, "manifests": entries});
    Ok(fs::write(folder.join("index.json"), index.to_string())?)
}

fn archive(entries: &[(String, Entry)]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (path, entry) in entries {
        let mut header = Header::new_gnu();
        header.set_mode(entry.mode);
        header.set_uid(entry.uid.into());
        header.set_gid(entry.gid.into());
        header.set_mtime(1_000_000);
        header.set_size(entry.content.len() as u64);
        header.set_entry_type(match &entry.kind {
            Kind::Dir => EntryType::Directory,
            Kind::File => EntryType::Regular,
            Kind::Symlink => EntryType::Symlink,
            Kind::Link => EntryType::Link,
            Kind::Device => EntryType::Char,
        });
        if entry.kind == Kind::Device {
            let (major, minor) = entry.target.split_once(':').unwrap_or_default();
            header.set_device_major(major.parse().unwrap_or(0)).expect("a number");
            header.set_device_minor(minor.parse().unwrap_or(0)).expect("a number");
        }
        match entry.kind {
            Kind::Symlink | Kind::Link => out.append_link(&mut header, path, &entry.target),
            _ => out.append_data(&mut header, path, entry.content.as_slice()),
        }
        .expect("memory takes it");
    }
    out.into_inner().expect("memory takes it")
}
