//! Stores that nothing more can be written to: one sentence, and nothing wrong is left.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, ensure};
use kiln_builder::hash::sha256;
use kiln_types::Arch;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::rig::{self, Case, IMAGE, Need, image, program, work_folder};

/// Less than the demonstration's image takes.
const SMALL: &str = "size=12m";
const LARGE: &str = "size=200m";

pub(super) fn cases() -> Vec<Case> {
    let needs = [Need::Root, Need::Program, Need::KilnInit(Arch::X86_64)];
    vec![Case::new("build::a_full_and_a_read_only_store_stay_clean", &needs, full_and_read_only)]
}

fn full_and_read_only() -> anyhow::Result<()> {
    image(Arch::X86_64)?;
    let folder = tempfile::Builder::new().prefix("disk-").tempdir_in(work_folder())?;
    let store = folder.path().join("store");
    fs::create_dir(&store)?;
    // Mounts are those of this thread, and end with it.
    unshare(CloneFlags::CLONE_NEWNS).context("cannot leave the mounts of the host")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let disk = |flags, data| mount(Some("tmpfs"), &store, Some("tmpfs"), flags, Some(data));
    disk(MsFlags::empty(), SMALL)?;
    fs::create_dir(store.join("cache"))?;
    std::os::unix::fs::symlink(rig::store().join("cache/deb"), store.join("cache/deb"))?;

    let lock = folder.path().join("demo.lock");
    let said = fails(&build(&store, &lock)?)?;
    ensure!(said.contains("no space is left on the disk "), "it said {said}");
    ensure!(!store.join("index.json").exists(), "a version was published");
    clean(&store)?;

    disk(MsFlags::MS_REMOUNT, LARGE)?;
    succeeds(&build(&store, &lock)?)?;
    clean(&store)?;
    let mut verify = Command::new(program());
    verify.args(["image", "verify", "demo", "--arch", "x86_64", "--store"]).arg(&store);
    succeeds(&verify.output()?)?;

    disk(MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, LARGE)?;
    let said = fails(&build(&store, &lock)?)?;
    ensure!(said.contains("read-only; choose another store with --store"), "it said {said}");
    // What only reads still works.
    succeeds(&verify.output()?)
}

fn build(store: &Path, lock: &Path) -> anyhow::Result<Output> {
    Command::new(program())
        .args(["build", IMAGE, "--arch", "x86_64", "--progress", "none", "--store"])
        .arg(store)
        .arg("--lock")
        .arg(lock)
        .stdin(Stdio::null())
        .output()
        .context("cannot run kiln")
}

/// Returns the one line that it ends with.
fn fails(output: &Output) -> anyhow::Result<String> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "it ended with {} and said {said}", output.status);
    let mut lines = said.lines().filter(|line| !line.starts_with("kiln: warning: "));
    let line = lines.next().context("it said nothing")?;
    ensure!(lines.next().is_none(), "it said more than one sentence: {said}");
    Ok(line.to_owned())
}

fn succeeds(output: &Output) -> anyhow::Result<()> {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    ensure!(output.status.success(), "{}: {out}{err}", output.status);
    Ok(())
}

/// Every artifact is what its name says, and nothing temporary is left.
fn clean(store: &Path) -> anyhow::Result<()> {
    let left: Vec<_> = fs::read_dir(store.join("tmp"))?.collect::<Result<_, _>>()?;
    ensure!(left.is_empty(), "left in tmp: {left:?}");
    for entry in fs::read_dir(store.join("blobs/sha256"))? {
        let entry = entry?;
        let digest = sha256(&fs::read(entry.path())?).hex();
        ensure!(entry.file_name().to_string_lossy() == digest, "{digest} is {entry:?}");
    }
    Ok(())
}
