//! Builds that are killed, and builds that run at the same time.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kiln_types::Arch;
use tokio::time::Instant;

use super::build::link;
use crate::rig::{self, Case, IMAGE, Need, image, kiln, program, work_folder};

const KILLS: u32 = 50;

pub(super) fn cases() -> Vec<Case> {
    let needs = [Need::KilnInit(Arch::X86_64), Need::Program];
    vec![
        Case::new("build::killed_builds_leave_nothing_wrong_behind", &needs, kill),
        Case::new("build::builds_at_the_same_time_agree", &needs, together),
    ]
}

/// Kills builds in one store at moments all over their length; a build after them must give what an undisturbed one
/// gives, and everything in the store must be what its name says.
fn kill() -> anyhow::Result<()> {
    image(Arch::X86_64)?;
    let folder = tempfile::Builder::new().prefix("kills-").tempdir_in(work_folder())?;
    let [quiet, killed] = ["quiet", "killed"].map(|name| folder.path().join(name));
    for store in [&quiet, &killed] {
        link(&rig::store().join("cache/deb"), &store.join("cache/deb"))?;
    }
    let started = Instant::now();
    let expected = version(&quiet, folder.path())?;
    let length = started.elapsed();
    for n in 0..KILLS {
        // What was finished is forgotten, so that every build has all of the work before it.
        let _ = fs::remove_dir_all(killed.join("cache/built"));
        let _ = fs::remove_dir_all(killed.join("blobs"));
        let mut build = command(&killed, folder.path()).spawn()?;
        // No two at the same moment, and not in the order of time either.
        std::thread::sleep(length * ((n * 37) % KILLS) / KILLS + Duration::from_millis(5));
        build.kill()?;
        build.wait()?;
    }
    let version = version(&killed, folder.path())?;
    ensure!(version == expected, "it gave {version} instead of {expected}");
    let store = killed.display().to_string();
    let verified = kiln(&["image", "verify", "demo", "--arch", "x86_64", "--store", &store])?;
    ensure!(verified.code == Some(0), "{} {}", verified.stdout, verified.stderr);
    Ok(())
}

/// Starts builds of one image in one empty store at once.
fn together() -> anyhow::Result<()> {
    image(Arch::X86_64)?;
    let folder = tempfile::Builder::new().prefix("together-").tempdir_in(work_folder())?;
    let store = folder.path().join("store");
    link(&rig::store().join("cache/deb"), &store.join("cache/deb"))?;
    let start = |_| command(&store, folder.path()).stdout(Stdio::piped()).spawn();
    let builds = (0..4).map(start).collect::<Result<Vec<_>, _>>()?;
    let mut versions = BTreeSet::new();
    for build in builds {
        let output = build.wait_with_output()?;
        ensure!(output.status.success(), "a build ended with {}", output.status);
        versions.insert(report(&output.stdout)?);
    }
    ensure!(versions.len() == 1, "they gave {versions:?}");
    Ok(())
}

fn version(store: &Path, folder: &Path) -> anyhow::Result<String> {
    let output = command(store, folder).stdout(Stdio::piped()).stderr(Stdio::piped()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the build failed: {said}");
    report(&output.stdout)
}

fn report(stdout: &[u8]) -> anyhow::Result<String> {
    let report: serde_json::Value = serde_json::from_slice(stdout)?;
    report["version"].as_str().map(str::to_owned).context("the report names no version")
}

fn command(store: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program());
    command.args(["build", IMAGE, "--arch", "x86_64", "--report", "json", "--progress", "none"]);
    command.arg("--store").arg(store).arg("--lock").arg(folder.join("demo.lock"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}
