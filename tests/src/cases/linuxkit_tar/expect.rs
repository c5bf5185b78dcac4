//! What LinuxKit writes for a specification, as its documentation and its sources have it: which files, from where.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use kiln_types::Arch;
use serde_json::Value;

use super::bundle;
use super::stand_in::StandIn;

/// What an entry of an archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Dir,
    File,
    Symlink,
    Link,
    Device,
}

/// An entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Of a link, or the numbers of a device.
    pub(super) target: String,
    pub(super) content: Vec<u8>,
    /// What part of the specification it comes from: `init`, `services`.
    pub(super) section: String,
}

impl Entry {
    pub(super) fn new(kind: Kind, mode: u32, target: &str, content: impl Into<Vec<u8>>) -> Self {
        let (target, content) = (target.to_owned(), content.into());
        Self { kind, mode, uid: 0, gid: 0, target, content, section: String::new() }
    }

    pub(super) fn dir(mode: u32) -> Self {
        Self::new(Kind::Dir, mode, "", [])
    }

    pub(super) fn file(mode: u32, text: impl Into<String>) -> Self {
        Self::bytes(mode, text.into())
    }

    pub(super) fn bytes(mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(Kind::File, mode, "", bytes)
    }

    pub(super) fn symlink(target: &str) -> Self {
        Self::new(Kind::Symlink, 0o777, target, [])
    }

    pub(super) fn link(target: &str) -> Self {
        Self::new(Kind::Link, 0o644, target, [])
    }

    pub(super) fn device(major: u32, minor: u32) -> Self {
        Self::new(Kind::Device, 0o600, &format!("{major}:{minor}"), [])
    }

    pub(super) fn owned(self, uid: u32, gid: u32) -> Self {
        Self { uid, gid, ..self }
    }
}

/// The archive of a machine: of several entries for a path, the last counts.
#[derive(Default)]
pub(super) struct Machine {
    pub(super) entries: BTreeMap<String, Entry>,
    /// How directories were before `files` wrote them again.
    pub(super) before: BTreeMap<String, Entry>,
    section: String,
    /// Where the files of an image are already, by its reference.
    unpacked: HashMap<String, String>,
    arch: Option<Arch>,
}

/// What no image gives to a container.
const EXCLUDED: [&str; 6] =
    [".dockerenv", "Dockerfile", "dev/console", "dev/pts", "dev/shm", "etc/hostname"];
const HOSTS: &str = "127.0.0.1       localhost\n::1     localhost ip6-localhost ip6-loopback\n\
    fe00::0 ip6-localnet\nff00::0 ip6-mcastprefix\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n";

/// Returns what LinuxKit writes for a specification. `folder` is its working directory and home.
pub(super) fn machine(spec: &Value, arch: Arch, folder: &Path) -> anyhow::Result<Machine> {
    let mut machine = Machine { arch: Some(arch), ..Machine::default() };
    machine.kernel(&spec["kernel"])?;
    let mut packages = String::new();
    for reference in list(&spec["init"]) {
        machine.section = "init".to_owned();
        let image = StandIn::new(text(reference), arch);
        let files = image.files();
        if let Some(known) = files.get("lib/apk/db/installed") {
            packages += &String::from_utf8_lossy(&known.content);
        }
        machine.image(&files, "", true);
    }
    if !packages.is_empty() {
        machine.put("lib/apk/db/installed", Entry::file(0o644, packages));
    }
    for volume in list(&spec["volumes"]) {
        machine.section = "volume".to_owned();
        let dir = format!("containers/volumes/{}", text(&volume["name"]));
        for name in ["", "/lower", "/tmp", "/merged"] {
            machine.put(&format!("{dir}{name}"), Entry::dir(0o755));
        }
        if let Some(reference) = volume["image"].as_str() {
            let files = StandIn::new(reference, arch).files();
            machine.image(&files, &format!("{dir}/lower/"), true);
        }
    }
    let ids = bundle::ids(spec);
    for section in ["onboot", "onshutdown", "services"] {
        for (number, container) in list(&spec[section]).iter().enumerate() {
            section.clone_into(&mut machine.section);
            let name = text(&container["name"]);
            let dir = match section {
                "services" => format!("containers/services/{name}"),
                _ => format!("containers/{section}/{number:03}-{name}"),
            };
            machine.bundle(container, &dir, &ids)?;
        }
    }
    machine.files(spec, folder, &ids)?;
    machine.finish()?;
    Ok(machine)
}

impl Machine {
    fn put(&mut self, path: &str, entry: Entry) {
        let section = self.section.clone();
        self.entries.insert(path.to_owned(), Entry { section, ..entry });
    }

    fn kernel(&mut self, kernel: &Value) -> anyhow::Result<()> {
        let Some(reference) = kernel["image"].as_str() else { return Ok(()) };
        self.section = "kernel".to_owned();
        let image = StandIn::new(reference, self.arch.context("an architecture")?);
        let files = image.files();
        self.put("boot", Entry::dir(0o755));
        self.put("boot/cmdline", Entry::file(0o644, text(&kernel["cmdline"])));
        self.put("boot/kernel", files["kernel"].clone());
        if let Some(name) = kernel["ucode"].as_str().filter(|name| !name.is_empty()) {
            self.put("boot/ucode.cpio", files.get(name).context("microcode")?.clone());
        }
        for (path, entry) in image.modules {
            self.put(&path, entry);
        }
        Ok(())
    }

    /// Writes the files of an image below a directory.
    fn image(&mut self, files: &BTreeMap<String, Entry>, prefix: &str, link_resolver: bool) {
        for (path, entry) in files {
            if EXCLUDED.contains(&path.as_str()) {
                continue;
            }
            let mut entry = entry.clone();
            if entry.kind == Kind::Link {
                entry.target = format!("{prefix}{}", entry.target);
            }
            self.put(&format!("{prefix}{path}"), entry);
        }
        for dir in ["dev", "dev/pts", "dev/shm", "etc", "proc", "sys"] {
            let dir = format!("{prefix}{dir}");
            if let Some(own) = self.entries.get(&dir) {
                self.before.insert(dir.clone(), own.clone());
            }
            self.put(&dir, Entry::dir(0o755));
        }
        if !files.contains_key("etc/mtab") {
            self.put(&format!("{prefix}etc/mtab"), Entry::symlink("/proc/mounts"));
        }
        self.put(&format!("{prefix}etc/hosts"), Entry::file(0o644, HOSTS));
        let resolver = match link_resolver {
            true => Entry::symlink("/run/resolvconf/resolv.conf"),
            false => Entry::file(0o644, "\n# no resolv.conf configured\n"),
        };
        self.put(&format!("{prefix}etc/resolv.conf"), resolver);
    }

    fn bundle(
        &mut self,
        container: &Value,
        dir: &str,
        ids: &HashMap<String, u32>,
    ) -> anyhow::Result<()> {
        let reference = text(&container["image"]);
        let image = StandIn::new(reference, self.arch.context("an architecture")?);
        let settled = bundle::settle(container, &image);
        let readonly = settled["readonly"].as_bool().unwrap_or(false);
        for (end, _) in format!("{dir}/").match_indices('/') {
            self.put(&dir[..end], Entry::dir(0o755));
        }
        let own = format!("{dir}/{}", if readonly { "rootfs" } else { "lower" });
        let root = match self.unpacked.get(reference) {
            Some(root) => root.clone(),
            None => {
                self.unpacked.insert(reference.to_owned(), own.clone());
                self.put(&own, Entry::dir(0o755));
                self.image(&image.files(), &format!("{own}/"), false);
                own
            }
        };
        let config = bundle::config(&settled, ids)?;
        let runtime = bundle::runtime(&settled, dir, &root);
        self.put(&format!("{dir}/config.json"), Entry::file(0o644, config.to_string()));
        self.put(&format!("{dir}/runtime.json"), Entry::file(0o644, runtime.to_string()));
        self.put(&format!("{dir}/rootfs"), Entry::dir(0o755));
        if !readonly {
            self.put(&format!("{dir}/tmp"), Entry::dir(0o755));
        }
        Ok(())
    }

    fn files(
        &mut self,
        spec: &Value,
        folder: &Path,
        ids: &HashMap<String, u32>,
    ) -> anyhow::Result<()> {
        self.section = "files".to_owned();
        let mut added: Vec<String> = Vec::new();
        for file in list(&spec["files"]) {
            let path = text(&file["path"]).trim_start_matches('/').to_owned();
            let usual = if file["directory"] == true { 0o700 } else { 0o600 };
            let mode = match file["mode"].as_str() {
                Some(octal) => u32::from_str_radix(octal, 8)?,
                None => usual,
            };
            let id = |key: &str| bundle::id(&file[key], ids);
            let (uid, gid) = (id("uid")?, id("gid")?);
            let entry = if let Some(contents) = file["contents"].as_str() {
                Entry::file(mode, contents)
            } else if let Some(target) = file["symlink"].as_str() {
                Entry::symlink(target)
            } else if file["directory"] == true {
                Entry::dir(mode)
            } else if file["metadata"].is_string() {
                Entry::file(mode, serde_json::to_string(spec)?)
            } else {
                let source = text(&file["source"]);
                match fs::read(folder.join(source.trim_start_matches("~/"))) {
                    Ok(bytes) => Entry::bytes(mode, bytes),
                    Err(_) if file["optional"] == true => continue,
                    Err(error) => bail!("{source}: {error}"),
                }
            };
            let search = (mode & 0o700 != 0, mode & 0o070 != 0, mode & 0o007 != 0);
            let (u, g, o) = (u32::from(search.0), u32::from(search.1), u32::from(search.2));
            let above = Entry::dir(mode | (u << 6) | (g << 3) | o).owned(uid, gid);
            for (end, _) in path.match_indices('/') {
                let dir = path[..end].to_owned();
                if !added.contains(&dir) {
                    let below = format!("{dir}/");
                    let implied = || {
                        let there = self.entries.keys().any(|path| path.starts_with(&below));
                        there.then(|| Entry::dir(0o755))
                    };
                    if let Some(own) = self.entries.get(&dir).cloned().or_else(implied) {
                        self.before.insert(dir.clone(), own);
                    }
                    self.put(&dir, above.clone());
                    added.push(dir);
                }
            }
            added.push(path.clone());
            self.put(&path, entry.owned(uid, gid));
        }
        Ok(())
    }

    /// Adds what everything that unpacks an archive adds, and names files with several names by their first.
    fn finish(&mut self) -> anyhow::Result<()> {
        for path in self.entries.keys().cloned().collect::<Vec<_>>() {
            for (end, _) in path.match_indices('/') {
                self.entries.entry(path[..end].to_owned()).or_insert_with(|| Entry::dir(0o755));
            }
        }
        name_by_first(&mut self.entries)
    }
}

/// Gives all names of a file its owner, mode and content, and the first name as target: archives differ in which name
/// has the bytes, and what they are unpacked to does not.
pub(super) fn name_by_first(entries: &mut BTreeMap<String, Entry>) -> anyhow::Result<()> {
    let links = entries.iter().filter(|(_, entry)| entry.kind == Kind::Link);
    let links: Vec<_> = links.map(|(path, entry)| (path.clone(), entry.target.clone())).collect();
    let mut firsts: HashMap<String, String> = HashMap::new();
    for (path, target) in &links {
        let first = firsts.entry(target.clone()).or_insert_with(|| target.clone());
        *first = first.clone().min(path.clone());
    }
    for (path, target) in links {
        let of = entries.get(&target).with_context(|| format!("{path} links to nothing"))?.clone();
        if let Some(entry) = entries.get_mut(&path) {
            *entry = Entry { target: firsts[&target].clone(), ..of };
        }
    }
    for (target, first) in firsts {
        if let Some(entry) = entries.get_mut(&target) {
            entry.target = first;
        }
    }
    Ok(())
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
