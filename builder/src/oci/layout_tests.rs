use kiln_types::Arch;

use super::super::images::tests::layout as write;
use super::*;
use crate::oci::ImageSettings;
use crate::oci::local::Local;
use crate::progress::Silent;

struct Bench {
    dir: tempfile::TempDir,
    root: Digest,
}

impl Bench {
    fn new(arches: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = write(dir.path(), "web:1", arches);
        Self { dir, root }
    }

    async fn layout(&self, platforms: &[&str]) -> Result<Tree, OciError> {
        let dirs = vec![self.dir.path().to_owned()];
        let settings = ImageSettings { dirs, offline: true, ..ImageSettings::default() };
        let images = Images::open(&settings, &self.dir.path().join("cache"), &Silent).unwrap();
        let platforms: Vec<_> = platforms.iter().map(|&it| it.to_owned()).collect();
        images.layout(&"web:1".parse().unwrap(), &self.root, &platforms).await
    }
}

/// Writes a layout into a folder and opens it as any other.
fn opened(tree: &Tree, dir: &std::path::Path) -> Local {
    for (path, node) in tree {
        let path = dir.join(path.as_str());
        match &node.kind {
            Kind::File(content) => std::fs::write(path, content.read_all(9999).unwrap()).unwrap(),
            _ => std::fs::create_dir_all(path).unwrap(),
        }
    }
    Local::open(dir).unwrap()
}

#[tokio::test]
async fn an_image_is_laid_out_with_all_that_it_is_made_of() {
    let bench = Bench::new(&["amd64", "arm64"]);
    let tree = bench.layout(&[]).await.unwrap();
    // Index, and of each architecture manifest, configuration and layer.
    let blobs = tree.iter().filter(|(path, _)| path.as_str().starts_with("blobs/sha256/"));
    assert_eq!(blobs.count(), 7);
    let dir = tempfile::tempdir().unwrap();
    let local = opened(&tree, dir.path());
    assert_eq!(local.find(&"web:1".parse().unwrap()), Some(bench.root));
    assert_eq!(local.choose(None, Arch::Arm64), Ok(bench.root));
}

#[tokio::test]
async fn of_the_platforms_only_those_that_are_named_are_kept() {
    let bench = Bench::new(&["amd64", "arm64"]);
    let tree = bench.layout(&["linux/arm64"]).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let local = opened(&tree, dir.path());
    let root = local.find(&"web:1".parse().unwrap()).unwrap();
    assert_ne!(root, bench.root);
    let index = String::from_utf8(local.read(&root).unwrap()).unwrap();
    assert!(index.contains("arm64") && !index.contains("amd64"), "{index}");
    let error = bench.layout(&["linux/riscv64"]).await.unwrap_err().to_string();
    let told = "it has nothing for linux/riscv64; it is for linux/amd64, linux/arm64";
    assert!(error.ends_with(told), "{error}");
}

#[tokio::test]
async fn a_part_that_is_not_what_its_digest_says_is_refused() {
    let bench = Bench::new(&["amd64"]);
    let layer = sha256(b"layer for amd64");
    let path = bench.dir.path().join("blobs/sha256").join(layer.hex());
    std::fs::write(path, "layer for amd65").unwrap();
    let error = bench.layout(&[]).await.unwrap_err();
    assert!(matches!(error, OciError::Digest { expected, .. } if expected == layer), "{error}");
}
