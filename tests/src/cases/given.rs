//! Specifications that name folders and files with images.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use kiln_types::Arch;

use super::build::link;
use crate::rig::layout::{self, Sample};
use crate::rig::{self, Case, Finished, Need, image, work_folder};

const SPEC: &str = "
kernel: {deb: linux-image-cloud-amd64, modules: none}
init: [kiln]
volumes:
  - {name: kept, image: 'oci:images:a', format: oci, platforms: [linux/arm64]}
onboot:
  - {name: layout, image: 'oci:./images:a'}
  - {name: archive, image: 'oci-archive:b.tar'}
  - {name: saved, image: 'docker-archive:c.tar:team/web:1'}
services:
  - {name: folder, image: 'dir:root', command: [/bin/tool]}
";

pub(super) fn cases() -> Vec<Case> {
    let needs = [Need::Program, Need::KilnInit(Arch::X86_64), Need::Tool("skopeo", "skopeo")];
    let name = "given::images_of_folders_and_files_are_built_pinned_and_moved_by_an_update";
    vec![Case::new(name, &needs, from_folders_and_files)]
}

fn from_folders_and_files() -> anyhow::Result<()> {
    // Fetches the kernel into the shared store.
    image(Arch::X86_64)?;
    let folder = tempfile::Builder::new().prefix("given-").tempdir_in(work_folder())?;
    let at = |name: &str| folder.path().join(name);
    link(&rig::store().join("cache/deb"), &at("store/cache/deb"))?;
    // Images with the same files would share them.
    let other = Sample { cmd: vec!["/bin/server"], ..Sample::new("b") };
    layout::write(&at("images"), &[Sample::new("a"), other])?;
    let from = format!("oci:{}", at("images").display());
    for (tag, to) in [("b", "oci-archive:b.tar"), ("a", "docker-archive:c.tar:team/web:1")] {
        copy(folder.path(), &format!("{from}:{tag}"), to)?;
    }
    fs::create_dir_all(at("root/bin"))?;
    fs::write(at("root/bin/tool"), "first")?;
    symlink("/etc/passwd", at("root/link"))?;
    fs::write(at("web.yml"), SPEC)?;

    let built = build(folder.path(), "x86_64", &["--format", "tar"])?;
    ensure!(built.code == Some(0), "the build failed: {}", built.stderr);
    let tar = fs::File::open(at("out/web-x86_64.tar"))?;
    let mut files = Vec::new();
    for entry in tar::Archive::new(tar).entries()? {
        files.push(entry?.path()?.display().to_string());
    }
    for path in [
        "containers/volumes/kept/lower/index.json",
        "containers/onboot/000-layout/lower/bin/tool",
        "containers/onboot/001-archive/lower/gone/above",
        "containers/onboot/002-saved/lower/bin/same",
        "containers/services/folder/lower/link",
    ] {
        ensure!(files.iter().any(|file| file == path), "{path} is missing in {files:?}");
    }
    let lock = fs::read_to_string(at("web.lock"))?;
    for name in
        ["oci:./images:a", "oci-archive:b.tar", "docker-archive:c.tar:team/web:1", "dir:root"]
    {
        ensure!(lock.contains(&format!("name = \"{name}\"")), "{name} is not in {lock}");
    }

    let again = build(folder.path(), "x86_64", &["--locked", "--offline"])?;
    ensure!(again.code == Some(0), "it cannot be built again: {}", again.stderr);
    fs::write(at("root/bin/tool"), "second")?;
    let moved = build(folder.path(), "x86_64", &[])?;
    ensure!(
        moved.code == Some(1) && moved.stderr.contains("`kiln image update` takes what is there"),
        "{moved:?}"
    );
    let updated = run(folder.path(), &["image", "update", "web.yml", "--store", "store"])?;
    ensure!(updated.stdout.contains("image  dir:root  x86_64  sha256:"), "{updated:?}");
    let built = build(folder.path(), "x86_64", &["--locked", "--offline"])?;
    ensure!(built.code == Some(0), "after the update: {}", built.stderr);

    // `docker save` has one architecture, and it is not this one.
    let text = SPEC.replace("linux-image-cloud-amd64", "linux-image-cloud-arm64");
    fs::write(at("web.yml"), text)?;
    let other = build(folder.path(), "arm64", &[])?;
    let told = other.stderr.contains("web.yml:9:26: ")
        && other.stderr.contains("has nothing for arm64; it is for linux/amd64");
    ensure!(other.code != Some(0) && told, "{other:?}");
    Ok(())
}

fn build(folder: &Path, arch: &str, more: &[&str]) -> anyhow::Result<Finished> {
    let fixed =
        ["build", "web.yml", "--arch", arch, "--store", "store", "--out", "out", "--no-sign"];
    run(folder, &[&fixed[..], more].concat())
}

fn run(folder: &Path, arguments: &[&str]) -> anyhow::Result<Finished> {
    rig::kiln_in(folder, arguments)
}

fn copy(folder: &Path, from: &str, to: &str) -> anyhow::Result<()> {
    let arguments = ["--override-arch", "amd64", "--insecure-policy", "copy", from, to];
    let done = Command::new("skopeo").args(arguments).current_dir(folder).output();
    let done = done.context("cannot run skopeo")?;
    ensure!(done.status.success(), "skopeo: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
