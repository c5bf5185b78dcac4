//! Layers, laid over each other by the builder and by umoci, give the same files.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use kiln_builder::hash::sha256;
use kiln_builder::layer::{Limits, flatten};
use kiln_builder::oci::{Compression, LayerFile, LayerRef};
use kiln_builder::tree::{Kind, Tree};
use serde_json::{Value, json};

use crate::rig::{Case, Need, work_folder};

const MAKE: &str = include_str!("../../fixtures/layers/make.py");
const LIST: &str = include_str!("../../fixtures/layers/list.py");

pub(super) fn cases() -> Vec<Case> {
    let needs = [Need::Root, Need::Tool("umoci", "umoci"), Need::Tool("python3", "python3")];
    vec![Case::new("layers::the_tree_is_what_umoci_unpacks", &needs, same_as_umoci)]
}

fn same_as_umoci() -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("layers-").tempdir_in(work_folder())?;
    let at = |name: &str| folder.path().join(name);
    let text = |name: &str| at(name).display().to_string();
    run(Command::new("python3").args(["-c", MAKE, &text("")]))?;
    let (layout, image) = (text("image"), format!("{}:all", text("image")));
    run(Command::new("umoci").args(["init", "--layout", &layout]))?;
    run(Command::new("umoci").args(["new", "--image", &image]))?;
    for number in 1..=3 {
        let tar = text(&format!("{number}.tar"));
        run(Command::new("umoci").args(["raw", "add-layer", "--image", &image, &tar]))?;
    }
    run(Command::new("umoci").args(["raw", "unpack", "--image", &image, &text("rootfs")]))?;
    let listed = run(Command::new("python3").args(["-c", LIST, &text("rootfs")]))?;
    let want: Vec<Value> =
        listed.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("the list")?;
    let got = list(&flatten(&layers(&at("image"))?, &Limits::default(), folder.path())?)?;
    ensure!(want.len() == 38, "umoci has unpacked {} files, not 38", want.len());
    let missing: Vec<_> = want.iter().filter(|line| !got.contains(line)).collect();
    let extra: Vec<_> = got.iter().filter(|line| !want.contains(line)).collect();
    ensure!(
        missing.is_empty() && extra.is_empty(),
        "only umoci has {missing:#?}, only the builder has {extra:#?}"
    );
    Ok(())
}

/// Reads the layers of the only image of a layout.
fn layers(layout: &Path) -> anyhow::Result<Vec<LayerFile>> {
    let read = |digest: &Value| -> anyhow::Result<Value> {
        let hex = digest.as_str().and_then(|it| it.strip_prefix("sha256:")).context("a digest")?;
        Ok(serde_json::from_slice(&fs::read(layout.join("blobs/sha256").join(hex))?)?)
    };
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
    let manifest = read(&index["manifests"][0]["digest"])?;
    let config = read(&manifest["config"]["digest"])?;
    let entries = manifest["layers"].as_array().context("layers")?;
    let diff_ids = config["rootfs"]["diff_ids"].as_array().context("diff_ids")?;
    ensure!(entries.len() == diff_ids.len(), "{} layers, {} ids", entries.len(), diff_ids.len());
    let file = |(entry, diff_id): (&Value, &Value)| {
        let digest: kiln_types::Digest = entry["digest"].as_str().context("a digest")?.parse()?;
        let diff_id = diff_id.as_str().context("a diff_id")?.parse()?;
        let size = entry["size"].as_u64().context("a size")?;
        let layer = LayerRef { digest, diff_id, size, compression: Compression::Gzip };
        let path = layout.join("blobs/sha256").join(digest.hex());
        Ok(LayerFile { layer, path, offset: 0, len: size })
    };
    entries.iter().zip(diff_ids).map(file).collect()
}

/// Lists a tree as `list.py` lists a folder.
fn list(tree: &Tree) -> anyhow::Result<Vec<Value>> {
    let mut lines = Vec::new();
    for (path, node) in tree {
        let xattrs: serde_json::Map<_, _> = node
            .xattrs
            .iter()
            .map(|(name, value)| {
                let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
                (name.to_owned(), hex.into())
            })
            .collect();
        let mut line = json!({"path": path.as_str(), "mode": node.mode, "uid": node.uid, "gid": node.gid, "xattrs": xattrs});
        let kind = match &node.kind {
            Kind::Dir => "d",
            Kind::Fifo => "p",
            Kind::Symlink(target) => {
                line["target"] = target.as_str().into();
                "l"
            }
            Kind::CharDevice(major, minor) => {
                line["device"] = json!([major, minor]);
                "c"
            }
            Kind::BlockDevice(major, minor) => {
                line["device"] = json!([major, minor]);
                "b"
            }
            Kind::File(_) | Kind::Hardlink(_) => {
                let content =
                    tree.content(path).context("a broken hard link")?.read_all(1 << 20)?;
                let first = match &node.kind {
                    Kind::Hardlink(target) => target,
                    _ => path,
                };
                line["size"] = content.len().into();
                line["sha256"] = sha256(&content).hex().into();
                line["first"] = first.as_str().into();
                "-"
            }
        };
        line["kind"] = kind.into();
        lines.push(line);
    }
    Ok(lines)
}

/// Runs a program that must end well, and returns what it printed.
fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {errors}");
    Ok(String::from_utf8(output.stdout)?)
}
