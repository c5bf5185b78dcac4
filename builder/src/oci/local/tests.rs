use std::fs;
use std::io::Write as _;

use super::*;

fn layout(dir: &Path, name: &str) -> Digest {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let digest = sha256(b"{\"layers\":[]}");
    fs::write(blobs.join(digest.hex()), b"{\"layers\":[]}").unwrap();
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"digest":"{digest}","size":13,
        "annotations":{{"org.opencontainers.image.ref.name":"{name}"}}}}]}}"#
    );
    fs::write(dir.join("index.json"), index).unwrap();
    digest
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

#[test]
fn an_image_is_found_by_its_whole_name_its_short_name_and_its_digest() {
    let dir = tempfile::tempdir().unwrap();
    let digest = layout(dir.path(), "registry.example/a/web:1");
    let local = Local::open(dir.path()).unwrap();
    assert_eq!(local.find(&reference("registry.example/a/web:1")), Some(digest));
    assert_eq!(local.find(&reference("registry.example/a/web:2")), None);
    assert_eq!(local.find(&reference("registry.example/a/web")), None);
    assert_eq!(local.find(&reference(&format!("x/y@{digest}"))), Some(digest));
    assert_eq!(local.read(&digest).unwrap(), b"{\"layers\":[]}");

    layout(dir.path(), "linuxkit/init");
    let local = Local::open(dir.path()).unwrap();
    assert_eq!(local.find(&reference("linuxkit/init:latest")), Some(digest));
}

#[test]
fn a_part_that_was_changed_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let digest = layout(dir.path(), "a");
    fs::write(dir.path().join("blobs/sha256").join(digest.hex()), b"{\"layers\":()}").unwrap();
    assert_eq!(Local::open(dir.path()).unwrap().read(&digest), None);
}

#[test]
fn an_archive_of_a_layout_is_read_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let digest = layout(dir.path(), "web:1");
    let tar = dir.path().join("web.tar");
    let mut builder = tar::Builder::new(File::create(&tar).unwrap());
    builder.append_path_with_name(dir.path().join("index.json"), "./index.json").unwrap();
    let blob = format!("blobs/sha256/{}", digest.hex());
    builder.append_path_with_name(dir.path().join(&blob), &blob).unwrap();
    builder.into_inner().unwrap().flush().unwrap();
    let local = Local::open(&tar).unwrap();
    assert_eq!(local.find(&reference("web:1")), Some(digest));
    assert_eq!(local.read(&digest).unwrap(), b"{\"layers\":[]}");
    let (path, offset, len) = local.file(&digest).unwrap();
    assert_eq!(archive::read_part(&path, offset, len, 100).unwrap(), b"{\"layers\":[]}");
}

#[test]
fn what_docker_saves_becomes_an_image_whose_layers_are_known_by_their_contents() {
    let dir = tempfile::tempdir().unwrap();
    let tar = dir.path().join("saved.tar");
    let mut builder = tar::Builder::new(File::create(&tar).unwrap());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    let diff_id = sha256(b"layer");
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"diff_ids":["{diff_id}","{diff_id}"]}}}}"#
    );
    add("aa/layer.tar", b"layer");
    add("c.json", config.as_bytes());
    add(
        "manifest.json",
        br#"[{"Config":"c.json","RepoTags":["web:1"],"Layers":["aa/layer.tar","bb/layer.tar"]}]"#,
    );
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "bb/layer.tar", "../aa/layer.tar").unwrap();
    builder.into_inner().unwrap().flush().unwrap();

    let local = Local::open(&tar).unwrap();
    let manifest = local.find(&reference("web:1")).unwrap();
    let text = String::from_utf8(local.read(&manifest).unwrap()).unwrap();
    assert!(text.contains(&diff_id.to_string()), "{text}");
    let (path, offset, len) = local.file(&diff_id).unwrap();
    assert_eq!(archive::read_part(&path, offset, len, 100).unwrap(), b"layer");
    assert_eq!(Local::open(&tar).unwrap().find(&reference("web:1")), Some(manifest));
}

#[test]
fn what_is_no_source_of_images_is_told_why() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("empty")).unwrap();
    fs::write(path("text"), "x".repeat(2000)).unwrap();
    fs::write(path("gz"), [0x1f, 0x8b, 8, 0, 0]).unwrap();
    fs::create_dir(path("broken")).unwrap();
    fs::write(path("broken/index.json"), "{\"manifests\":[{}]}").unwrap();
    for (name, problem) in [
        ("gone", "No such file or directory"),
        ("empty", "its index.json cannot be read"),
        ("text", "it is no tar archive"),
        ("gz", "it is compressed; decompress it first"),
        ("broken", "its index.json is wrong: missing field"),
    ] {
        let error = Local::open(&path(name)).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn headers_that_fill_the_memory_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.tar");
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_size(1 << 40);
    header.set_cksum();
    let file = File::create(&path).unwrap();
    (&file).write_all(header.as_bytes()).unwrap();
    // Nothing but holes, which take no room on the disk.
    file.set_len(1 << 40).unwrap();
    let error = Local::open(&path).unwrap_err().to_string();
    assert!(error.contains("it is no tar archive (its headers have more than"), "{error}");
}

#[test]
fn fuzzed_archives_of_images_are_read_or_refused() {
    let mut tar = tar::Builder::new(Vec::new());
    let config = format!(r#"{{"rootfs":{{"diff_ids":["sha256:{}"]}}}}"#, "a".repeat(64));
    let saved = r#"[{"Config":"c.json","RepoTags":["web:1"],"Layers":["l/layer.tar"]}]"#;
    for (name, text) in [("manifest.json", saved), ("c.json", &config), ("l/layer.tar", "x")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_cksum();
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    let whole = tar.into_inner().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("saved.tar");
    kiln_fuzz::check("oci-archive", &[&whole], |bytes| {
        fs::write(&path, bytes).unwrap();
        if let Ok(local) = Local::open(&path) {
            let _ = local.read(&Digest::from_bytes([0xaa; 32]));
        }
    });
}
