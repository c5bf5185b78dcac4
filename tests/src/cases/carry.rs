//! A built image goes to a registry, and from there into the store of another computer.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use kiln_builder::Store;
use kiln_types::Arch;

use crate::rig::{Case, Need, Registry, image, kiln, store, work_folder};

const ARCH: Arch = Arch::X86_64;

pub(super) fn cases() -> Vec<Case> {
    let needs = [&Registry::needs()[..1], &[Need::Program, Need::KilnInit(ARCH)]].concat();
    let name = "carry::a_version_comes_through_a_registry_as_it_was_and_damage_is_refused";
    vec![Case::new(name, &needs, through_a_registry)]
}

fn through_a_registry() -> anyhow::Result<()> {
    let name = image(ARCH)?;
    let ours = Store::open(store())?;
    let version = ours.find(name.name(), ARCH)?;
    let manifest = ours.manifest(&version.digest)?;
    let folder = tempfile::Builder::new().prefix("carry-").tempdir_in(work_folder())?;
    let at = |name: &str| folder.path().join(name);
    let registry = Registry::open(&at("registry"))?;
    let config = format!("[[registry]]\nhost = \"{}\"\nplain-http = true\n", registry.address());
    fs::write(at("kiln.toml"), config)?;
    let config = at("kiln.toml").display().to_string();
    let target = format!("{}/team/demo:1", registry.address());

    let from = store().display().to_string();
    let wanted = format!("{}@{}", name.name(), version.digest);
    let pushed = kiln(&["image", "push", &wanted, &target, "--store", &from, "--config", &config])?;
    ensure!(pushed.code == Some(0), "the push failed: {}", pushed.stderr);
    ensure!(pushed.stdout.contains(&version.digest.to_string()), "{pushed:?}");
    let pull = |into: &Path| {
        let into = into.display().to_string();
        let arch = ARCH.as_str();
        kiln(&["image", "pull", &target, "--arch", arch, "--store", &into, "--config", &config])
    };

    // The other computer does not know our key at first.
    let theirs = at("theirs/store");
    let pulled = pull(&theirs)?;
    ensure!(pulled.code == Some(0), "the pull failed: {}", pulled.stderr);
    ensure!(pulled.stdout.contains(&version.digest.to_string()), "{pulled:?}");
    ensure!(pulled.stderr.contains("it will not be served"), "{pulled:?}");
    let key = kiln(&["key", "export", "--store", &from])?;
    ensure!(key.code == Some(0), "there is no key: {}", key.stderr);
    fs::write(at("site.pub"), &key.stdout)?;
    let (their_store, site) = (theirs.display().to_string(), at("site.pub").display().to_string());
    let trusted = kiln(&["key", "trust", &site, "--store", &their_store])?;
    ensure!(trusted.code == Some(0), "the key is not taken: {}", trusted.stderr);
    let again = pull(&theirs)?;
    ensure!(again.code == Some(0) && !again.stderr.contains("not be served"), "{again:?}");
    let verified = kiln(&["image", "verify", name.name(), "--store", &their_store])?;
    ensure!(verified.code == Some(0), "it is not whole: {verified:?}");
    let found = Store::open(&theirs)?.find(name.name(), ARCH)?;
    ensure!(found.digest == version.digest, "it is {} there", found.digest);
    for digest in manifest.segments.iter().map(|it| &it.digest).chain([&manifest.kernel.digest]) {
        let (here, there) = (ours.artifact(digest), Store::open(&theirs)?.artifact(digest));
        ensure!(fs::read(here)? == fs::read(there)?, "{digest} differs");
    }

    // One bit of one segment at the registry.
    let victim = manifest.segments.first().context("there is no segment")?.digest;
    let blob = registry.blob(&victim);
    let mut bytes = fs::read(&blob)?;
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    fs::write(&blob, bytes)?;
    let damaged = pull(&at("third/store"))?;
    let told = damaged.stderr.contains(&victim.to_string());
    ensure!(damaged.code == Some(1) && told, "it was not refused: {damaged:?}");
    let third = Store::open(at("third/store"))?;
    ensure!(third.index()?.images.is_empty(), "a damaged version is in the index");
    ensure!(!third.artifact(&victim).exists(), "damaged bytes are in the store");
    Ok(())
}
