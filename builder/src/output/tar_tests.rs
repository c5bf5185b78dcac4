use std::io::Read as _;
use std::sync::Arc;

use super::*;

fn path(s: &str) -> TreePath {
    TreePath::new(s).unwrap()
}

fn archive(parts: &[Part<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    let written = write(parts, 7, &mut out).unwrap();
    assert_eq!(written, out.len() as u64);
    out
}

/// Reads an archive by another program's rules than those it was written by: a line per entry.
fn show(archive: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let target = entry.link_name_bytes().map(|it| String::from_utf8(it.into_owned()).unwrap());
        let (mode, uid) = (entry.header().mode().unwrap(), entry.header().uid().unwrap());
        let kind = char::from(entry.header().entry_type().as_byte());
        let mut extra = String::new();
        for record in entry.pax_extensions().unwrap().unwrap() {
            let record = record.unwrap();
            let key = record.key().unwrap();
            if !matches!(key, "path" | "linkpath") {
                let key = key.trim_start_matches("LINUXKIT.");
                extra += &format!(" {key}={}", String::from_utf8_lossy(record.value_bytes()));
            }
        }
        assert_eq!(entry.header().mtime().unwrap(), 7);
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        let target = target.unwrap_or_default();
        lines.push(format!("{kind} {name} {mode:o} {uid} {target}{text}{extra}"));
    }
    lines
}

#[test]
fn every_entry_tells_its_part_and_a_path_comes_once() {
    let mut init = Tree::new();
    init.insert(path("etc"), Node::new(0o750, Kind::Dir));
    init.insert(path("etc/a"), Node::file(0o644, *b"init"));
    init.insert(path("lib"), Node::symlink("usr/lib"));
    init.insert(path("old/x"), Node::file(0o644, *b"hidden"));
    let mut files = Tree::new();
    files.insert(path("etc/a"), Node::file(0o600, *b"files"));
    files.insert(path("old"), Node::file(0o600, *b"new"));
    let mut last = Tree::new();
    last.insert(path("etc"), Node::new(0o711, Kind::Dir));
    let part = |source, location, tree| Part { source, location, tree };
    let two = [part("x/init:1", "init[0]", &init), part("", "files[0]", &files)];
    assert_eq!(
        show(&archive(&two)),
        [
            "5 etc 750 0  location=init[0] source=x/init:1",
            "2 lib 777 0 usr/lib location=init[0] source=x/init:1",
            "0 etc/a 600 0 files location=files[0] source=",
            "0 old 600 0 new location=files[0] source=",
        ]
    );
    // A directory that is described again has the later description, and stays before what is in it.
    let three = show(&archive(&[two[0], two[1], part("", "files[1]", &last)]));
    assert_eq!(three[0], "5 etc 711 0  location=files[1] source=");
    assert_eq!(three.len(), 4);
}

#[test]
fn hard_links_follow_their_bytes_though_the_first_name_belongs_to_another_part() {
    let mut init = Tree::new();
    // `a-b` comes before `a/b` in the archive.
    init.insert(path("a/b"), Node::file(0o755, *b"once"));
    init.insert(path("a-b"), Node::new(0, Kind::Hardlink(path("a/b"))));
    init.insert(path("c"), Node::new(0, Kind::Hardlink(path("a/b"))));
    let mut files = Tree::new();
    files.insert(path("a-b"), Node::file(0o600, *b"new"));
    let one = Part { source: "s", location: "init[0]", tree: &init };
    let names = |lines: Vec<String>| {
        let cut = |line: &String| line.split(" location").next().unwrap_or_default().to_owned();
        lines.iter().map(cut).collect::<Vec<_>>()
    };
    assert_eq!(
        names(show(&archive(&[one]))),
        ["5 a 755 0 ", "0 a-b 755 0 once", "1 a/b 755 0 a-b", "1 c 755 0 a-b"]
    );
    let two = [one, Part { source: "s", location: "files[0]", tree: &files }];
    assert_eq!(
        names(show(&archive(&two))),
        ["5 a 755 0 ", "0 a/b 755 0 once", "1 c 755 0 a/b", "0 a-b 600 0 new"]
    );
    init.insert(path("broken"), Node::new(0, Kind::Hardlink(path("gone"))));
    let error = write(&[Part { source: "", location: "init[0]", tree: &init }], 0, &mut io::sink());
    let text = error.unwrap_err().to_string();
    assert_eq!(
        text,
        "hard link `broken` of init[0] leads to `gone`, which is not a regular file there"
    );
}

#[test]
fn long_names_large_numbers_attributes_and_devices_are_carried() {
    let long = "n".repeat(120);
    let mut tree = Tree::new();
    let mut ping = Node { uid: 70_000_000, gid: 5, ..Node::file(0o4755, *b"x") };
    ping.xattrs.insert("security.capability", b"\x01\n\x02");
    tree.insert(path(&format!("bin/{long}")), ping);
    tree.insert(path("l"), Node::symlink(format!("/{long}")));
    tree.insert(path("null"), Node::new(0o666, Kind::CharDevice(1, 3)));
    tree.insert(path("pipe"), Node::new(0o600, Kind::Fifo));
    let part = Part { source: "s", location: "init[0]", tree: &tree };
    let bytes = archive(&[part]);
    let contains = |text: &[u8]| bytes.windows(text.len()).any(|it| it == text);
    assert!(
        contains(b"34 SCHILY.xattr.security.capability=\x01\n\x02\n") || {
            let mut record = Vec::new();
            pax::push(&mut record, "SCHILY.xattr.security.capability", b"\x01\n\x02");
            contains(&record)
        }
    );
    assert!(contains(b"16 uid=70000000\n"));
    let mut names = Vec::new();
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let entry = entry.unwrap();
        let target = entry.link_name_bytes().map(|it| it.len());
        let device = entry.header().device_minor().unwrap();
        names.push((entry.path_bytes().len(), target, device));
    }
    assert_eq!(names[1], (124, None, Some(0)));
    assert_eq!(names[2], (1, Some(121), Some(0)));
    assert_eq!(names[3].2, Some(3));
    // The same in any case.
    assert_eq!(bytes, archive(&[part]));
}

#[test]
fn the_kernel_lies_below_boot_before_all_else() {
    let kernel = Content::Bytes(Arc::from(*b"kernel"));
    let mut modules = Tree::new();
    modules.insert(path("lib/modules/6.1/a.ko"), Node::file(0o644, *b"m"));
    let tree = kernel_tree(
        Node::new(0o755, Kind::File(kernel.clone())),
        "console=ttyS0",
        Some(kernel),
        modules,
    )
    .unwrap();
    let names: Vec<_> = tree.iter().map(|(path, node)| format!("{path} {:o}", node.mode)).collect();
    assert_eq!(
        names[..4],
        ["boot 755", "boot/cmdline 644", "boot/kernel 755", "boot/ucode.cpio 644"]
    );
    let mut locations = ["files[0]", "services[1]", "sbom", "volume[0]", "kernel", "init[0]"];
    locations.sort_by_key(|it| Part::order(it));
    assert_eq!(locations, ["kernel", "init[0]", "volume[0]", "services[1]", "files[0]", "sbom"]);
}
