use std::fs;
use std::path::Path;

use super::*;
use crate::hash::sha256;
use crate::oci::{ImagePolicy, ImageRule, ImageSettings, Verdict};
use crate::progress::Silent;

/// Writes an image into a layout and returns its entry for the index.
fn image(dir: &Path, arch: &str, called: &str) -> String {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = sha256(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        format!(r#""digest":"{digest}","size":{}"#, bytes.len())
    };
    let layer = format!("layer of {called}");
    let diff_id = sha256(layer.as_bytes());
    let layer = put(layer.as_bytes());
    let config = put(format!(
        r#"{{"architecture":"{arch}","os":"linux","rootfs":{{"diff_ids":["{diff_id}"]}}}}"#
    )
    .as_bytes());
    let manifest =
        put(format!(r#"{{"config":{{{config}}},"layers":[{{"mediaType":"x.tar",{layer}}}]}}"#)
            .as_bytes());
    format!(r#"{{{manifest},"annotations":{{"org.opencontainers.image.ref.name":"{called}"}}}}"#)
}

fn index(dir: &Path, entries: &[String]) {
    fs::write(dir.join("index.json"), format!(r#"{{"manifests":[{}]}}"#, entries.join(",")))
        .unwrap();
}

async fn resolve(
    text: &str,
    cache: &Path,
    pin: Option<Digest>,
    policy: ImagePolicy,
) -> Result<Digest, OciError> {
    let reference: Reference = text.parse().unwrap();
    let settings = ImageSettings { policy, ..ImageSettings::default() };
    let mut images = Images::open(&settings, cache, &Silent).unwrap();
    images.open_given(&reference, Arch::X86_64).await?;
    let image = images.resolve(&reference, Arch::X86_64, pin).await?;
    let layers = images.fetch(&image).await?;
    assert!(layers.iter().all(|layer| layer.path.is_file()));
    Ok(image.digest)
}

async fn problem(text: &str, cache: &Path, pin: Option<Digest>) -> String {
    resolve(text, cache, pin, ImagePolicy::default()).await.unwrap_err().to_string()
}

#[tokio::test]
async fn an_image_is_taken_out_of_the_layout_that_is_named_and_must_be_the_one_that_is_pinned() {
    let dir = tempfile::tempdir().unwrap();
    let (layout, cache) = (dir.path().join("layout"), dir.path().join("cache"));
    let (one, two) = (image(&layout, "amd64", "1"), image(&layout, "amd64", "2"));
    index(&layout, &[one, two]);
    let text = format!("oci:{}", layout.display());
    let first = resolve(&format!("{text}:1"), &cache, None, ImagePolicy::default()).await.unwrap();
    let pinned = resolve(&format!("{text}:1"), &cache, Some(first), ImagePolicy::default()).await;
    assert_eq!(pinned.unwrap(), first);
    let moved = problem(&format!("{text}:2"), &cache, Some(first)).await;
    assert!(moved.contains(&format!("the lock file says {first}; `kiln image update`")), "{moved}");
    let several = problem(&text, &cache, None).await;
    assert!(several.contains("it has 2 images; add a colon and the name of one"), "{several}");
    let unknown = problem(&format!("{text}:3"), &cache, None).await;
    assert!(unknown.ends_with("it has no image `3`; there are `1`, `2`"), "{unknown}");
}

#[tokio::test]
async fn folders_and_files_of_another_kind_or_machine_or_with_missing_parts_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (layout, cache) = (dir.path().join("layout"), dir.path().join("cache"));
    let arm = image(&layout, "arm64", "1");
    index(&layout, &[arm]);
    let text = layout.display();
    let file = layout.join("index.json");
    let file = file.display();
    for (text, expected) in [
        (format!("oci:{text}"), "has nothing for x86_64; it is for linux/arm64"),
        (format!("oci:{file}"), "it is a file; write `oci-archive:`"),
        (format!("oci-archive:{text}"), "it is a folder; write `oci:` before a layout"),
        (format!("docker-archive:{file}"), "it is no tar archive"),
        (format!("dir:{file}"), "it is no folder"),
        (format!("oci:{text}/gone"), "No such file or directory"),
    ] {
        let error = problem(&text, &cache, None).await;
        assert!(error.contains(expected), "{error}");
    }
    let amd = image(&layout, "amd64", "2");
    index(&layout, &[amd]);
    for layer in fs::read_dir(layout.join("blobs/sha256")).unwrap() {
        let path = layer.unwrap().path();
        if fs::read(&path).unwrap().starts_with(b"layer") {
            fs::remove_file(path).unwrap();
        }
    }
    // No registry is asked for it.
    let error = problem(&format!("oci:{text}"), &cache, None).await;
    assert!(error.contains("lacks a part of image `oci:"), "{error}");
}

#[tokio::test]
async fn a_rule_for_everything_is_about_folders_too() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("dir:{}", dir.path().join("root").display());
    let cache = dir.path().join("cache");
    fs::create_dir(dir.path().join("root")).unwrap();
    let rule = |images: &str| ImageRule { images: images.to_owned(), verdict: Verdict::Reject };
    let host = ImagePolicy { rules: vec![rule("registry.example")] };
    resolve(&text, &cache, None, host).await.unwrap();
    let all = ImagePolicy { rules: vec![rule("*")] };
    let error = resolve(&text, &cache, None, all).await.unwrap_err().to_string();
    assert!(error.contains("the rule for `*` under [[trust.image]] rejects it"), "{error}");
}
