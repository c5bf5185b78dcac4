//! Whole builds with images from a registry and from a folder.

use std::fs;
use std::path::Path;
use std::thread;

use anyhow::{Context as _, ensure};
use kiln_types::Arch;
use serde_json::Value;

use super::super::build::link;
use super::{Bench, LARGE, blobs_asked};
use crate::rig::layout::{self, Sample};
use crate::rig::{Proxy, image, kiln, store};

/// Two programs build an image with a container from a registry that kiln.toml names, and a third one builds it from a
/// folder, as recorded and with no registry.
pub(super) fn builds() -> anyhow::Result<()> {
    let bench = Bench::new(&Sample::new("web").with_large_layer(LARGE))?;
    // Fetches the kernel into the shared store.
    image(Arch::X86_64)?;
    for stored in ["store", "other", "fetched"] {
        link(&store().join("cache/deb"), &bench.at(stored).join("cache/deb"))?;
    }
    let registry = bench.open("registry")?;
    let wire = Proxy::start(registry.address())?;
    let name = format!("{}/team/web:1", wire.address());
    let spec = format!(
        "kernel:\n  deb: linux-image-cloud-amd64\ninit: [kiln]\nservices:\n- {{name: web, image: '{name}'}}\n"
    );
    fs::write(bench.at("web.yml"), spec)?;
    let config = format!("[[registry]]\nhost = \"{}\"\nplain-http = true\n", wire.address());
    fs::write(bench.at("kiln.toml"), config)?;
    let build = |out: &str, stored: &str, more: &[&str]| -> anyhow::Result<Vec<u8>> {
        let [spec, lock, out, store] =
            [bench.at("web.yml"), bench.at("web.lock"), bench.at(out), bench.at(stored)]
                .map(|path| path.display().to_string());
        let fixed = ["build", &spec, "--lock", &lock, "--out", &out, "--store", &store];
        let finished = kiln(&[&fixed[..], &["--arch", "x86_64", "--no-sign"], more].concat())?;
        ensure!(finished.code == Some(0), "the build failed: {}", finished.stderr);
        Ok(fs::read(Path::new(&out).join("initrd.img"))?)
    };
    let config = bench.at("kiln.toml").display().to_string();
    let (one, two) = thread::scope(|scope| {
        let one = scope.spawn(|| build("one", "store", &["--config", &config]));
        let two = build("two", "store", &["--config", &config]);
        (one.join(), two)
    });
    let one = one.map_err(|_| anyhow::anyhow!("a build panicked"))??;
    ensure!(one == two?, "the two initrds differ");
    let mut blobs = blobs_asked(&wire);
    let all = blobs.len();
    blobs.sort();
    blobs.dedup();
    ensure!(all == 4 && blobs.len() == 4, "{all} downloads of {blobs:?}");

    let before = bench.at("fetched").display().to_string();
    let spec = bench.at("web.yml").display().to_string();
    let fetch = ["image", "fetch", &spec, "--arch", "x86_64", "--store", &before];
    let fetched = kiln(&[&fetch[..], &["--locked", "--config", &config]].concat())?;
    ensure!(fetched.code == Some(0) && fetched.stdout.contains("web "), "{fetched:?}");

    // The same in a folder, under the name that the specification has.
    let mut sample = Sample::new(&name).with_large_layer(LARGE);
    sample.name = name;
    layout::write(&bench.at("images"), &[sample])?;
    drop(registry);
    let images = bench.at("images").display().to_string();
    let third = build("three", "other", &["--locked", "--offline", "--images", &images])?;
    ensure!(one == third, "the initrd from the folder differs");

    // All that was fetched beforehand is packed as well.
    let again = ["build", &spec, "--arch", "x86_64", "--store", &before, "--locked", "--offline"];
    let built = kiln(&[&again[..], &["--no-sign", "--report", "json"]].concat())?;
    ensure!(built.code == Some(0), "what was fetched cannot be built: {}", built.stderr);
    let report: Value = serde_json::from_str(&built.stdout)?;
    let parts = report["components"].as_array().context("the report has no components")?;
    let new: Vec<_> = parts.iter().filter(|part| part["reused"] != true).collect();
    ensure!(parts.len() > 3 && new.is_empty(), "these were packed anew: {new:?}");
    Ok(())
}
