//! The same specification and lock give the same bytes wherever they are built, and what was built can be built again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, ensure};
use kiln_builder::hash::sha256;
use kiln_types::Arch;
use serde_json::json;

use super::build::link;
use crate::rig::{self, Case, Need, image, program, work_folder};

/// Everything that comes from somewhere else: kernel and container of Debian packages, image, files of the host.
const SPEC: &str = "\
kernel:
  deb: linux-image-cloud-amd64
  cmdline: console=ttyS0
init: [kiln]
volumes:
  - name: data
    image: registry.example/kiln/small:1
onboot:
  - name: hello
    image: registry.example/kiln/small:1
    layout: packed
services:
  - name: copy
    image: registry.example/kiln/small:1
    binds: [data:/data]
  - name: web
    deb: [busybox-static]
    command: [/usr/bin/busybox, httpd, -f, -h, /srv]
files:
  - {path: /etc/text, contents: one, mode: 0644}
  - {path: /etc/copied, source: files/copied}
  - {path: /etc/link, symlink: text}
  - {path: /etc/empty, directory: true}
";
const FORMATS: &str = "kernel+initrd,tar,uki,iso-efi,raw-efi,oci";

pub(super) fn cases() -> Vec<Case> {
    let needs = [Need::Root, Need::Program, Need::KilnInit(Arch::X86_64)];
    vec![Case::new("build::every_format_is_the_same_on_another_host", &needs, two_hosts)]
}

/// Folders of a host. Each has names of its own.
struct Host {
    specs: PathBuf,
    images: PathBuf,
    store: PathBuf,
    out: PathBuf,
    /// What the kiln of this host runs in.
    around: &'static [&'static str],
}

impl Host {
    fn new(folder: &Path, name: &str, around: &'static [&'static str]) -> Self {
        let at = |what: &str| folder.join(format!("{name}-{what}"));
        let [specs, images, store, out] = ["specs", "images", "store", "out"].map(at);
        Self { specs, images, store, out, around }
    }

    /// Runs kiln in the folder of the specification.
    fn kiln(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut line = self.around.iter().map(Into::into).collect::<Vec<std::ffi::OsString>>();
        line.push(program().into());
        line.extend(arguments.iter().map(Into::into));
        line.extend(["--store".into(), self.store.clone().into()]);
        let (first, rest) = line.split_first().context("no program")?;
        Command::new(first)
            .args(rest)
            .current_dir(&self.specs)
            .env_remove("SOURCE_DATE_EPOCH")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", first.display()))
    }

    /// Builds and returns every file that comes of it: artifacts by their digests, and what is written in all formats.
    fn build(&self, more: &[&str]) -> anyhow::Result<BTreeMap<String, PathBuf>> {
        let [images, out] = [&self.images, &self.out].map(|path| path.display().to_string());
        let mut arguments = vec!["build", "web.yml", "--arch", "x86_64", "--images", &images];
        arguments.extend(["--format", FORMATS, "--out", &out, "--no-sign", "--progress", "none"]);
        arguments.extend(more);
        succeeds(&self.kiln(&arguments)?)?;
        let mut files = BTreeMap::new();
        for folder in [self.store.join("blobs/sha256"), self.out.clone()] {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                files.insert(entry.file_name().to_string_lossy().into_owned(), entry.path());
            }
        }
        Ok(files)
    }
}

fn two_hosts() -> anyhow::Result<()> {
    const HERE: &[&str] = &["env", "TZ=America/Caracas", "LANG=C"];
    const THERE: &[&str] = &[
        "sh",
        "-c",
        "umask 077; mkdir -p ../there-tmp ../there-home; exec \"$@\"",
        "sh",
        "unshare",
        "-n",
        "taskset",
        "-c",
        "0",
        "env",
        "TZ=Asia/Tokyo",
        "LANG=C.UTF-8",
        "HOME=../there-home",
        "TMPDIR=../there-tmp",
    ];
    // Fetches packages into the shared store.
    image(Arch::X86_64)?;
    let folder = tempfile::Builder::new().prefix("hosts-").tempdir_in(work_folder())?;
    let here = Host::new(folder.path(), "here", HERE);
    fs::create_dir_all(here.specs.join("files"))?;
    fs::write(here.specs.join("web.yml"), SPEC)?;
    fs::write(here.specs.join("files/copied"), "copied")?;
    layout(&here.images)?;
    link(&rig::store().join("cache/deb"), &here.store.join("cache/deb"))?;
    let built = here.build(&[])?;

    let there = Host::new(folder.path(), "there", THERE);
    for (from, to) in [(&here.specs, &there.specs), (&here.images, &there.images)] {
        copy(from, to)?;
    }
    // Downloads alone: no index, nothing that was made of them.
    link(&here.store.join("cache/deb/pool"), &there.store.join("cache/deb/pool"))?;
    let again = there.build(&["--locked", "--offline"])?;
    let names = |files: &BTreeMap<String, PathBuf>| files.keys().cloned().collect::<Vec<_>>();
    ensure!(names(&built) == names(&again), "{:?} and {:?}", names(&built), names(&again));
    for name in [
        "web-x86_64.oci.tar",
        "web-x86_64.tar",
        "web-x86_64.efi",
        "web-x86_64-efi.iso",
        "web-x86_64-efi.img",
        "initrd.img",
    ] {
        ensure!(built.contains_key(name), "there is no {name} in {:?}", names(&built));
    }
    for (name, path) in &built {
        ensure!(same(path, &again[name])?, "{name} differs");
    }
    collected(&here)?;
    rebuilt(&here)
}

/// Publishes a second version, and asks what would be freed.
fn collected(host: &Host) -> anyhow::Result<()> {
    let version = |output: &Output| -> anyhow::Result<String> {
        let report: serde_json::Value = serde_json::from_str(&succeeds(output)?)?;
        Ok(report["version"].as_str().context("the report names no version")?.to_owned())
    };
    let images = host.images.display().to_string();
    let build = ["build", "web.yml", "--arch", "x86_64", "--images", &images, "--offline"];
    let build = [&build[..], &["--no-sign", "--report", "json", "--progress", "none"]].concat();
    let old = version(&host.kiln(&build)?)?;
    fs::write(host.specs.join("files/copied"), "another")?;
    let new = version(&host.kiln(&build)?)?;
    ensure!(old != new, "another file gave the same version");
    let before = fs::read(host.store.join("index.json"))?;
    let collect = ["image", "gc", "--dry-run", "--no-server", "--keep", "1", "-o", "json"];
    let said = succeeds(&host.kiln(&collect)?)?;
    let report: serde_json::Value = serde_json::from_str(&said)?;
    ensure!(
        report["versions"] == json!([{"image": "web", "arch": "x86_64", "version": old}]),
        "it said {said}"
    );
    let said = succeeds(&host.kiln(&[&collect[..], &["--pin", &old]].concat())?)?;
    let report: serde_json::Value = serde_json::from_str(&said)?;
    ensure!(report["versions"] == json!([]), "it said {said}");
    ensure!(fs::read(host.store.join("index.json"))? == before, "the index has changed");
    Ok(())
}

/// Builds what is in the store once more, and damages it.
fn rebuilt(host: &Host) -> anyhow::Result<()> {
    succeeds(&host.kiln(&["image", "sign", "web"])?)?;
    let images = host.images.display().to_string();
    let verify = ["image", "verify", "web", "--rebuild", "--offline", "--images", &images];
    let said = succeeds(&host.kiln(&verify)?)?;
    ensure!(said.contains("built again, the same"), "it said {said}");

    let artifacts =
        fs::read_dir(host.store.join("blobs/sha256"))?.collect::<Result<Vec<_>, _>>()?;
    let artifact =
        artifacts.iter().max_by_key(|entry| entry.metadata().map_or(0, |meta| meta.len()));
    let artifact = artifact.context("the store is empty")?.path();
    fs::set_permissions(&artifact, fs::Permissions::from_mode(0o644))?;
    let mut file = fs::File::options().read(true).write(true).open(&artifact)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(1000))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(1000))?;
    file.write_all(&[byte[0] ^ 1])?;
    let output = host.kiln(&["image", "verify", "web"])?;
    let said = String::from_utf8_lossy(&output.stdout);
    let name = artifact.file_name().unwrap_or_default().to_string_lossy().into_owned();
    ensure!(output.status.code() == Some(1), "it ended with {}: {said}", output.status);
    ensure!(said.contains(&name), "`{name}` is not in {said}");
    Ok(())
}

fn succeeds(output: &Output) -> anyhow::Result<String> {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    ensure!(output.status.success(), "{}: {out}{err}", output.status);
    Ok(out.into_owned())
}

fn same(one: &Path, other: &Path) -> anyhow::Result<bool> {
    let [one, other] = [one, other].map(fs::File::open);
    let (one, other) = (one?, other?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let [mut one, mut other] =
        [one, other].map(|file| std::io::BufReader::with_capacity(1 << 20, file));
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let n = one.read(&mut a)?;
        let (a, b) = (&a[..n], &mut b[..n]);
        other.read_exact(b)?;
        if a != b {
            return Ok(false);
        }
        if n == 0 {
            return Ok(true);
        }
    }
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Makes an OCI layout with one image of one layer.
fn layout(dir: &Path) -> anyhow::Result<()> {
    let (root, blobs) = (dir.join("root"), dir.join("blobs/sha256"));
    fs::create_dir_all(&blobs)?;
    for (name, mode) in [("bin/hello", 0o755), ("etc/settings", 0o640), ("srv/page", 0o644)] {
        let path = root.join(name);
        fs::create_dir_all(path.parent().context("no folder")?)?;
        fs::write(&path, format!("this is {name}\n").repeat(1000))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    std::os::unix::fs::symlink("hello", root.join("bin/again"))?;
    let tar = Command::new("tar")
        .args(["--numeric-owner", "-C"])
        .arg(&root)
        .args(["-c", "."])
        .output()?;
    succeeds(&Output { stdout: Vec::new(), ..tar.clone() })?;
    fs::remove_dir_all(&root)?;
    let put = |kind: &str, bytes: &[u8]| -> anyhow::Result<serde_json::Value> {
        let digest = sha256(bytes);
        fs::write(blobs.join(digest.hex()), bytes)?;
        Ok(json!({"mediaType": kind, "digest": digest, "size": bytes.len()}))
    };
    let layer = put("application/vnd.oci.image.layer.v1.tar", &tar.stdout)?;
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": ["/bin/hello"], "Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
    let mut entry = put(kind, manifest.to_string().as_bytes())?;
    entry["annotations"] =
        json!({"org.opencontainers.image.ref.name": "registry.example/kiln/small:1"});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(dir.join("index.json"), index.to_string())?;
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(())
}
