use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::layer::flatten;
use crate::oci::{Compression, LayerFile, LayerRef};
use crate::tree::{Kind, TreePath};

/// The header of a program.
fn program(machine: u8) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\0\0".to_vec();
    bytes[18] = machine;
    bytes
}

fn executable(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o4755)).unwrap();
}

fn root() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    executable(&root.join("bin/tool"), &program(62));
    fs::hard_link(root.join("bin/tool"), root.join("bin/also")).unwrap();
    symlink("/etc/shadow", root.join("link")).unwrap();
    fs::write(root.join("bin").join("x".repeat(200)), "long").unwrap();
    std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    (dir, root)
}

fn problem(root: &Path, cache: &Path) -> String {
    match keep(root, Arch::X86_64, &Blobs::new(cache)).unwrap_err() {
        Problem::Path(path, error) => format!("{}: {error}", path.display()),
        other => format!("{other:?}"),
    }
}

#[test]
fn the_files_of_a_folder_become_a_layer_that_belongs_to_root_and_nothing_is_followed() {
    let (dir, root) = root();
    let layer = dir.path().join("layer");
    let (digest, size, machines) = write(&root, File::create(&layer).unwrap()).unwrap();
    assert_eq!(machines.into_iter().collect::<Vec<_>>(), ["amd64"]);
    let compression = Compression::None;
    let reference = LayerRef { digest, diff_id: digest, size, compression };
    let file = LayerFile { layer: reference, path: layer, offset: 0, len: size };
    let tree = flatten(&[file], &Limits::default(), dir.path()).unwrap();
    let node = |path: &str| tree.get(&TreePath::new(path).unwrap()).unwrap();
    let tool = node("bin/tool");
    assert_eq!((tool.mode, tool.uid, tool.gid), (0o4755, 0, 0));
    assert!(matches!(&node("link").kind, Kind::Symlink(to) if to == "/etc/shadow"));
    assert_eq!(node(&format!("bin/{}", "x".repeat(200))).mode & 0o400, 0o400);
    assert!(tree.get(&TreePath::new("socket").unwrap()).is_none());
    // One file with two names.
    let kinds = [&node("bin/also").kind, &tool.kind];
    assert_eq!(kinds.iter().filter(|kind| matches!(kind, Kind::File(_))).count(), 1, "{kinds:?}");
}

#[test]
fn the_same_files_are_the_same_image_and_a_change_makes_another() {
    let (dir, root) = root();
    let blobs = Blobs::new(&dir.path().join("cache"));
    let first = keep(&root, Arch::X86_64, &blobs).unwrap();
    assert_eq!(keep(&root, Arch::X86_64, &blobs).unwrap(), first);
    let copy = dir.path().join("copy");
    fs::rename(&root, &copy).unwrap();
    assert_eq!(keep(&copy, Arch::X86_64, &blobs).unwrap(), first);
    fs::write(copy.join("new"), "").unwrap();
    assert_ne!(keep(&copy, Arch::X86_64, &blobs).unwrap(), first);
}

#[test]
fn programs_of_other_machines_only_are_refused() {
    let (dir, root) = root();
    let blobs = Blobs::new(&dir.path().join("cache"));
    let error = keep(&root, Arch::Arm64, &blobs).unwrap_err();
    assert!(matches!(error, Problem::NotForArch(there) if there == ["linux/amd64"]));
    executable(&root.join("bin/other"), &program(183));
    keep(&root, Arch::Arm64, &blobs).unwrap();
}

#[test]
fn what_cannot_be_in_a_layer_is_told_by_its_path() {
    let (dir, root) = root();
    let cache = dir.path().join("cache");
    assert!(problem(&dir.path().join("gone"), &cache).contains("No such file"));
    assert!(problem(&root.join("bin/tool"), &cache).ends_with("it is no folder"));
    fs::write(root.join(".wh.x"), "").unwrap();
    assert!(problem(&root, &cache).contains(".wh.x: in a layer its name would delete"));
    fs::remove_file(root.join(".wh.x")).unwrap();
    let mut deep = root.clone();
    (0..140).for_each(|_| deep.push("d"));
    fs::create_dir_all(&deep).unwrap();
    assert!(problem(&root, &cache).ends_with("there are too many folders above it"));
}
