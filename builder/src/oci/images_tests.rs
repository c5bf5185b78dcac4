use std::fs;

use super::*;
use crate::progress::Silent;

/// Writes a layout with one image of one layer for each architecture.
pub(in crate::oci) fn layout(dir: &Path, name: &str, arches: &[&str]) -> Digest {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = sha256(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        (digest, bytes.len())
    };
    let mut entries = Vec::new();
    for arch in arches {
        let (layer, layer_size) = put(format!("layer for {arch}").as_bytes());
        let config = format!(
            r#"{{"architecture":"{arch}","os":"linux","config":{{"Cmd":["/{arch}"]}},"rootfs":{{"diff_ids":["{layer}"]}}}}"#
        );
        let (config, config_size) = put(config.as_bytes());
        let manifest = format!(
            r#"{{"config":{{"digest":"{config}","size":{config_size}}},"layers":[{{"mediaType":
            "application/vnd.oci.image.layer.v1.tar","digest":"{layer}","size":{layer_size}}}]}}"#
        );
        let (manifest, size) = put(manifest.as_bytes());
        entries.push(format!(
            r#"{{"digest":"{manifest}","size":{size},"platform":{{"architecture":"{arch}","os":"linux"}}}}"#
        ));
    }
    let (index, size) = put(format!(r#"{{"manifests":[{}]}}"#, entries.join(",")).as_bytes());
    let top = format!(
        r#"{{"manifests":[{{"digest":"{index}","size":{size},"annotations":{{"org.opencontainers.image.ref.name":"{name}"}}}}]}}"#
    );
    fs::write(dir.join("index.json"), top).unwrap();
    index
}

fn offline(dirs: &[&Path], cache: &Path) -> Images<'static> {
    let dirs = dirs.iter().map(|dir| dir.to_path_buf()).collect();
    let settings = ImageSettings { dirs, offline: true, ..ImageSettings::default() };
    Images::open(&settings, cache, &Silent).unwrap()
}

#[tokio::test]
async fn an_image_of_a_layout_is_resolved_for_each_architecture_and_fetched_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let index = layout(dir.path(), "registry.example/web:1", &["amd64", "arm64"]);
    let images = offline(&[dir.path()], &dir.path().join("cache"));
    let reference: Reference = "registry.example/web:1".parse().unwrap();
    let image = images.resolve(&reference, Arch::Arm64, None).await.unwrap();
    assert_eq!(
        (image.config.cmd.as_slice(), image.index),
        (["/arm64".to_owned()].as_slice(), Some(index))
    );
    let layers = images.fetch(&image).await.unwrap();
    assert_eq!(fs::read(&layers[0].path).unwrap(), b"layer for arm64");
    assert!(layers[0].path.starts_with(dir.path().join("blobs")));
    // By its pin, it is the same.
    let pinned = images.resolve(&reference, Arch::Arm64, Some(image.digest)).await.unwrap();
    assert_eq!((pinned.digest, pinned.layers), (image.digest, image.layers));
}

#[tokio::test]
async fn an_architecture_that_is_not_there_is_told_with_those_that_are() {
    let dir = tempfile::tempdir().unwrap();
    layout(dir.path(), "web:1", &["amd64", "s390x"]);
    let images = offline(&[dir.path()], &dir.path().join("cache"));
    let error = images.resolve(&"web:1".parse().unwrap(), Arch::Arm64, None).await.unwrap_err();
    assert!(
        error.to_string().ends_with("has nothing for arm64; it is for linux/amd64, linux/s390x"),
        "{error}"
    );
}

#[tokio::test]
async fn without_a_registry_an_unknown_image_is_told_with_where_it_was_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    layout(dir.path(), "web:1", &["amd64"]);
    let images = offline(&[dir.path()], &dir.path().join("cache"));
    let error = images.resolve(&"web:2".parse().unwrap(), Arch::X86_64, None).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("/library/web:2` is neither in `") && text.contains("--offline"),
        "{text}"
    );
}

#[tokio::test]
async fn damage_in_a_layout_is_found_before_anything_is_used() {
    let dir = tempfile::tempdir().unwrap();
    layout(dir.path(), "web:1", &["amd64"]);
    let reference: Reference = "web:1".parse().unwrap();
    let cache = dir.path().join("cache");
    let image =
        offline(&[dir.path()], &cache).resolve(&reference, Arch::X86_64, None).await.unwrap();
    let blob = |digest: &Digest| dir.path().join("blobs/sha256").join(digest.hex());
    fs::write(blob(&image.layers[0].digest), "short").unwrap();
    let error = offline(&[dir.path()], &cache).fetch(&image).await.unwrap_err().to_string();
    assert!(error.contains("has 5 bytes in"), "{error}");
    fs::write(blob(&image.digest), "{}").unwrap();
    let error = offline(&[dir.path()], &cache).resolve(&reference, Arch::X86_64, None).await;
    assert!(matches!(error.unwrap_err(), OciError::Missing { .. }));
}
