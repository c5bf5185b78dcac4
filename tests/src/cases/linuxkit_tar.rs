//! What `kiln build --format tar` makes of specifications of LinuxKit is what LinuxKit would make of them, apart from
//! what docs/linuxkit.md lists: for every path its type, mode, owner, size and link target, and the whole of
//! `config.json` and `runtime.json`.

mod bundle;
mod expect;
mod stand_in;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use kiln_builder::spec;
use kiln_types::Arch;
use serde_json::Value;
use tar::EntryType;

use self::expect::{Entry, Kind, Machine, list, machine, name_by_first};
use crate::rig::{Case, Need, kiln_in, work_folder};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/corpus/linuxkit-yaml");
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/linuxkit");
const DOCUMENT: &str = include_str!("../../../docs/linuxkit.md");

/// A difference from LinuxKit that the document lists.
struct Difference {
    /// Its row: how LinuxKit does it.
    row: &'static str,
    /// Whether it is this one, for a path that LinuxKit has, or Kiln, or both.
    is: fn(&Machine, &str, Option<&Entry>, Option<&Entry>) -> bool,
}

const DIFFERENCES: [Difference; 5] = [
    Difference {
        row: "opaque whiteouts are ignored: deleted files come back",
        is: |_, path, linuxkit, kiln| {
            path.ends_with("srv/data/old") && linuxkit.is_some() && kiln.is_none()
        },
    },
    Difference {
        row: "`dev`, `etc`, `proc`, `sys` of an image are written again with a mode of LinuxKit's",
        is: |machine, path, _, kiln| {
            let name = path.rsplit('/').next().unwrap_or(path);
            let own = machine.before.get(path);
            ["dev", "etc", "proc", "sys"].contains(&name) && same_dir(own, kiln)
        },
    },
    Difference {
        row: "directories above a `files` item are written again, `etc` with mode 0700",
        is: |machine, path, linuxkit, kiln| {
            linuxkit.is_some_and(|entry| entry.section == "files")
                && same_dir(machine.before.get(path), kiln)
        },
    },
    Difference {
        row: "a read-only container whose image lacks a directory to mount on cannot start",
        is: |_, path, linuxkit, kiln| {
            let made = kiln.is_some_and(|it| {
                *it == Entry { section: it.section.clone(), ..Entry::dir(0o755) }
            });
            let mounted = ["/sys/fs", "/sys/fs/cgroup", "/etc/sysctl.d"];
            path.contains("/rootfs/")
                && linuxkit.is_none()
                && made
                && mounted.iter().any(|point| path.ends_with(point))
        },
    },
    Difference {
        row: "a volume with `readonly: true` can be written to",
        is: |_, path, linuxkit, kiln| {
            path == "containers/volumes/fixed/tmp" && linuxkit.is_some() && kiln.is_none()
        },
    },
];

/// Says the same of two directories, whichever part of the specification they come from.
fn same_dir(one: Option<&Entry>, other: Option<&Entry>) -> bool {
    let what = |entry: &Entry| (entry.kind, entry.mode, entry.uid, entry.gid);
    one.is_some_and(|one| one.kind == Kind::Dir) && one.map(what) == other.map(what)
}

pub(super) fn cases() -> Vec<Case> {
    let needs = [Need::Program, Need::KilnInit(Arch::X86_64), Need::KilnInit(Arch::Arm64)];
    let case = |name: &str, run: fn() -> anyhow::Result<()>| {
        Case::new(format!("linuxkit_tar::{name}"), &needs, run)
    };
    vec![
        case("every_file_of_linuxkit_gives_what_linuxkit_gives", corpus),
        case("a_file_with_every_section_gives_what_linuxkit_gives", fixture),
        case("every_difference_that_is_listed_has_a_test", listed),
    ]
}

fn corpus() -> anyhow::Result<()> {
    if !Path::new(CORPUS).exists() {
        eprintln!("there is no {CORPUS}: only our own file is built");
        return Ok(());
    }
    let bench = Bench::new(Path::new(CORPUS))?;
    let mut differences = BTreeSet::new();
    let mut built = 0;
    for file in &bench.files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        // One is no YAML, and one only adds to another.
        let (files, arch) = match &*name {
            "static-ip.yml" => continue,
            "platform-equinixmetal.arm64.yml" => {
                (vec![bench.folder().join("platform-equinixmetal.yml"), file.clone()], Arch::Arm64)
            }
            _ => (vec![file.clone()], Arch::X86_64),
        };
        differences.extend(bench.compare(&files, arch).with_context(|| name.into_owned())?);
        built += 1;
    }
    ensure!(built == 33, "{built} files have been built, not 33");
    // A read-only volume is only in our own file.
    ensure!(differences.len() == DIFFERENCES.len() - 1, "only these were seen: {differences:#?}");
    Ok(())
}

fn fixture() -> anyhow::Result<()> {
    let bench = Bench::new(Path::new(FIXTURES))?;
    let mut differences = BTreeSet::new();
    for arch in [Arch::X86_64, Arch::Arm64] {
        differences.extend(bench.compare(&bench.files, arch)?);
    }
    ensure!(differences.len() == DIFFERENCES.len(), "only these were seen: {differences:#?}");
    Ok(())
}

/// A folder with specifications, all that they name, and images that stand in for theirs.
struct Bench {
    folder: tempfile::TempDir,
    files: Vec<PathBuf>,
}

impl Bench {
    fn new(from: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("linuxkit-").tempdir_in(work_folder())?;
        let mut files = Vec::new();
        let mut references = BTreeSet::new();
        for entry in fs::read_dir(from)? {
            let path = entry?.path();
            let to = folder.path().join(path.file_name().context("a name")?);
            fs::copy(&path, &to)?;
            if let Ok(spec) = spec::load(std::slice::from_ref(&to)) {
                references.extend(spec.image_refs().iter().map(|(it, _)| it.to_string()));
            }
            files.push(to);
        }
        files.sort();
        fs::write(folder.path().join("containerd-debug-runtime-config.toml"), "debug = true\n")?;
        fs::create_dir(folder.path().join(".ssh"))?;
        fs::write(folder.path().join(".ssh/id_rsa.pub"), "ssh-ed25519 AAAA somebody\n")?;
        let references: Vec<_> = references.into_iter().collect();
        stand_in::write_layout(&folder.path().join("images"), &references)?;
        Ok(Self { folder, files })
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Builds files as one image, compares it, and returns the differences that the document lists.
    fn compare(&self, files: &[PathBuf], arch: Arch) -> anyhow::Result<BTreeSet<&'static str>> {
        let spec = spec::load(files)?;
        let json = serde_json::to_value(&spec)?;
        // Where `~` and relative paths lead.
        let linuxkit = machine(&json, arch, self.folder())?;
        let mut kiln = self.build(files, arch)?;
        for (path, entry) in kiln.iter().filter(|(_, entry)| entry.section == "files") {
            let of = list(&json["files"]).iter().find(|file| {
                file["path"].as_str().is_some_and(|it| it.trim_start_matches('/') == path)
            });
            if of.is_some_and(|file| file["metadata"].is_string()) {
                let text = String::from_utf8(entry.content.clone())?;
                let again = spec::parse("metadata", &text)?;
                ensure!(again.to_yaml()? == spec.to_yaml()?, "{path} is another image: {text}");
            }
        }
        name_by_first(&mut kiln)?;
        let mut listed = BTreeSet::new();
        let mut wrong = Vec::new();
        let paths: BTreeSet<_> = linuxkit.entries.keys().chain(kiln.keys()).collect();
        for path in paths {
            let (theirs, ours) = (linuxkit.entries.get(path), kiln.get(path));
            if is_same(&json, path, theirs, ours) {
                continue;
            }
            match DIFFERENCES.iter().find(|it| (it.is)(&linuxkit, path, theirs, ours)) {
                Some(difference) => _ = listed.insert(difference.row),
                None => wrong.push(format!(
                    "{path}\n  LinuxKit {}\n  Kiln     {}",
                    show(theirs),
                    show(ours)
                )),
            }
        }
        ensure!(
            wrong.is_empty(),
            "{} paths differ:\n{}",
            wrong.len(),
            wrong[..wrong.len().min(20)].join("\n")
        );
        ensure!(kiln.len() > 50, "only {} paths", kiln.len());
        Ok(listed)
    }

    /// Builds files as one image and reads the tar.
    fn build(&self, files: &[PathBuf], arch: Arch) -> anyhow::Result<BTreeMap<String, Entry>> {
        let at = |name: &str| self.folder().join(name).display().to_string();
        let out = at("out");
        let mut arguments = vec!["build".to_owned()];
        arguments.extend(files.iter().map(|file| file.display().to_string()));
        arguments.extend(
            ["--name", "show", "--format", "tar", "--offline", "--no-sign"].map(str::to_owned),
        );
        arguments.extend(["--arch".to_owned(), arch.to_string(), "--out".to_owned(), out.clone()]);
        for (option, name) in [("--images", "images"), ("--store", "store"), ("--lock", "lock")] {
            arguments.extend([option.to_owned(), at(name)]);
        }
        let finished = kiln_in(self.folder(), &arguments)?;
        ensure!(finished.code == Some(0), "the build failed: {}", finished.stderr);
        read(&Path::new(&out).join(format!("show-{arch}.tar")))
    }
}

fn is_same(spec: &Value, path: &str, linuxkit: Option<&Entry>, kiln: Option<&Entry>) -> bool {
    let (Some(linuxkit), Some(kiln)) = (linuxkit, kiln) else { return false };
    let about = |entry: &Entry| {
        // Linux has no modes of symbolic links.
        let mode = if entry.kind == Kind::Symlink { 0 } else { entry.mode };
        (entry.kind, mode, entry.uid, entry.gid, entry.target.clone())
    };
    let json = |entry: &Entry| serde_json::from_slice::<Value>(&entry.content).ok();
    let written = ["config.json", "runtime.json"];
    let same_content = match path.rsplit('/').next() {
        // They are indented in another way, which changes their size.
        Some(name) if path.starts_with("containers/") && written.contains(&name) => {
            json(linuxkit).is_some() && json(linuxkit) == json(kiln)
        }
        _ if is_metadata(spec, path) => true,
        _ => linuxkit.content == kiln.content,
    };
    let same_section = linuxkit.kind == Kind::Dir || linuxkit.section == kiln.section;
    about(linuxkit) == about(kiln) && same_content && same_section
}

/// Whether it is the specification, which both programs write in their own words.
fn is_metadata(spec: &Value, path: &str) -> bool {
    list(&spec["files"]).iter().any(|file| {
        file["metadata"].is_string()
            && file["path"].as_str().is_some_and(|it| it.trim_start_matches('/') == path)
    })
}

fn show(entry: Option<&Entry>) -> String {
    let Some(Entry { kind, mode, uid, gid, target, content, section }) = entry else {
        return "has nothing".to_owned();
    };
    let text = String::from_utf8_lossy(content);
    format!(
        "{kind:?} {mode:o} {uid}:{gid} {target} {} bytes, {section}: {text:.400}",
        content.len()
    )
}

/// Reads an archive, in which a path must not come twice.
fn read(path: &Path) -> anyhow::Result<BTreeMap<String, Entry>> {
    let mut entries = BTreeMap::new();
    let mut archive =
        tar::Archive::new(File::open(path).with_context(|| path.display().to_string())?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = String::from_utf8(entry.path_bytes().into_owned())?;
        let target = entry.link_name_bytes().map(|it| it.into_owned()).unwrap_or_default();
        let mut found =
            Entry::new(Kind::File, entry.header().mode()?, &String::from_utf8(target)?, []);
        found = found.owned(entry.header().uid()?.try_into()?, entry.header().gid()?.try_into()?);
        let mut about = BTreeMap::new();
        for record in entry.pax_extensions()?.context("PAX records")? {
            let record = record?;
            let (key, value) = (record.key()?.to_owned(), record.value()?.to_owned());
            match key.as_str() {
                "uid" => found.uid = value.parse()?,
                "gid" => found.gid = value.parse()?,
                _ => _ = about.insert(key, value),
            }
        }
        let location = about.get("LINUXKIT.location").context("a location")?;
        ensure!(about.contains_key("LINUXKIT.source"), "{name} has no source");
        found.section = location.split('[').next().unwrap_or_default().to_owned();
        found.kind = match entry.header().entry_type() {
            EntryType::Directory => Kind::Dir,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::Link,
            EntryType::Char => {
                let (major, minor) =
                    (entry.header().device_major()?, entry.header().device_minor()?);
                found.target = format!("{}:{}", major.unwrap_or(0), minor.unwrap_or(0));
                Kind::Device
            }
            _ => Kind::File,
        };
        entry.read_to_end(&mut found.content)?;
        ensure!(entries.insert(name.clone(), found).is_none(), "{name} comes twice");
    }
    Ok(entries)
}

/// Each row of the document has tests, and they exist; the differences that are allowed here are rows.
fn listed() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut source = String::new();
    for folder in ["builder", "netboot/src", "tests/src"] {
        read_sources(&root.join(folder), &mut source)?;
    }
    let mut rows = Vec::new();
    for line in DOCUMENT.lines().filter(|line| line.starts_with("| ") && line.ends_with(" |")) {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [linuxkit, _, tests] = cells.as_slice() else { continue };
        if tests.starts_with("and get") || *tests == "test" || !tests.starts_with('`') {
            continue;
        }
        rows.push(*linuxkit);
        for test in tests.split(", ").map(|test| test.trim_matches('`')) {
            let there = match test.split_once("::") {
                Some((file, "…")) => root.join(format!("tests/src/cases/{file}.rs")).exists(),
                Some((_, name)) => {
                    source.contains(&format!("\"{name}\""))
                        || source.contains(&format!("::{name}\""))
                }
                None => source.contains(&format!("fn {test}(")),
            };
            ensure!(there, "docs/linuxkit.md names a test that does not exist: {test}");
        }
    }
    ensure!(rows.len() > 20, "only {} rows have been found", rows.len());
    for Difference { row, .. } in &DIFFERENCES {
        ensure!(rows.contains(row), "docs/linuxkit.md does not list: {row}");
    }
    Ok(())
}

fn read_sources(folder: &Path, source: &mut String) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_sources(&path, source)?;
        } else if path.extension().is_some_and(|it| it == "rs") {
            source.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(())
}
