use std::collections::BTreeMap;
use std::io::{Cursor, Read as _};

use backhand::{FilesystemReader, InnerNode};

use super::*;
use crate::tree::{Kind, Node};

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        })
        .collect()
}

fn packed(tree: &Tree) -> Vec<u8> {
    packed_by(tree, 2)
}

fn packed_by(tree: &Tree, threads: usize) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let options = Options { threads: NonZero::new(threads).unwrap(), ..Options::new(1_000_000) };
    let packed = write_with(tree, &options, &mut out).unwrap();
    let bytes = out.into_inner();
    assert_eq!(bytes.len() as u64, packed.len);
    bytes
}

/// One of everything.
fn sample() -> Tree {
    let mut tree = Tree::new();
    let mut add = |name: &str, node| tree.insert(path(name), node);
    add("bin/tool", Node::new(0o4755, Kind::File(Content::Bytes(noise(300_000).into()))));
    add("bin/other", Node::new(0o755, Kind::Hardlink(path("bin/tool"))));
    add("bin/link", Node::symlink("../lib/x"));
    add("dev/console", Node::new(0o600, Kind::CharDevice(5, 1)));
    add("dev/disk", Node::new(0o660, Kind::BlockDevice(259, 70_000)));
    add("dev/pipe", Node::new(0o644, Kind::Fifo));
    add("etc/empty", Node::file(0o600, Vec::new()));
    add("etc/small", Node { uid: 1000, gid: 100_000, ..Node::file(0o640, *b"small\n") });
    add("etc-old/small", Node::file(0o640, *b"small\n"));
    add("var/zeros", Node::file(0o644, vec![0; 400_000]));
    let mut holes = vec![0; 3 * BLOCK + 5];
    holes[BLOCK + 7] = 1;
    add("var/holes", Node::file(0o644, holes));
    add("var/text", Node::file(0o644, b"all work and no play\n".repeat(20_000)));
    add("var/block", Node::file(0o644, noise(BLOCK)));
    add("empty", Node::new(0o1777, Kind::Dir));
    for n in 0..3000 {
        add(&format!("many/a-rather-long-name-for-a-file-{n}"), Node::file(0o644, *b"x"));
    }
    for n in 0..2000 {
        add(&format!("sizes/{n}"), Node::file(0o644, noise(n)));
    }
    tree
}

/// By path: permissions, owner, group, time, kind and bytes.
type Files = BTreeMap<String, (u16, u32, u32, u32, String, Vec<u8>)>;

/// What a reader of another author finds.
fn read_back(bytes: Vec<u8>) -> Files {
    let reader = FilesystemReader::from_reader(Cursor::new(bytes)).unwrap();
    let mut found = BTreeMap::new();
    for node in reader.files() {
        let header = &node.header;
        let (kind, data) = match &node.inner {
            InnerNode::File(file) => {
                let mut bytes = Vec::new();
                reader.file(file).reader().read_to_end(&mut bytes).unwrap();
                ("file".to_owned(), bytes)
            }
            InnerNode::Symlink(link) => (format!("-> {}", link.link.display()), Vec::new()),
            InnerNode::Dir(_) => ("dir".to_owned(), Vec::new()),
            InnerNode::CharacterDevice(device) => {
                (format!("c {:x}", device.device_number), Vec::new())
            }
            InnerNode::BlockDevice(device) => (format!("b {:x}", device.device_number), Vec::new()),
            InnerNode::NamedPipe => ("fifo".to_owned(), Vec::new()),
            InnerNode::Socket => ("socket".to_owned(), Vec::new()),
        };
        let name = node.fullpath.display().to_string();
        found.insert(name, (header.permissions, header.uid, header.gid, header.mtime, kind, data));
    }
    found
}

fn expected(tree: &Tree) -> Files {
    let mut all: BTreeMap<_, _> = tree
        .iter()
        .map(|(path, node)| {
            let kind = match &node.kind {
                Kind::Dir => "dir".to_owned(),
                Kind::File(_) | Kind::Hardlink(_) => "file".to_owned(),
                Kind::Symlink(target) => format!("-> {target}"),
                Kind::CharDevice(5, 1) => "c 501".to_owned(),
                Kind::BlockDevice(259, 70_000) => "b 11110370".to_owned(),
                Kind::Fifo => "fifo".to_owned(),
                other => panic!("{other:?}"),
            };
            let node = match &node.kind {
                Kind::Hardlink(target) => tree.get(target).unwrap(),
                _ => node,
            };
            let data = tree.content(path).map(|content| content.read_all(1 << 30).unwrap());
            let mode = u16::try_from(node.mode).unwrap();
            let about = (mode, node.uid, node.gid, 1_000_000, kind, data.unwrap_or_default());
            (format!("/{path}"), about)
        })
        .collect();
    all.insert("/".to_owned(), (0o755, 0, 0, 1_000_000, "dir".to_owned(), Vec::new()));
    all
}

#[test]
fn another_reader_finds_every_file_as_it_was() {
    let tree = sample();
    let (found, expected) = (read_back(packed(&tree)), expected(&tree));
    assert!(found.keys().eq(expected.keys()), "other names");
    for (name, about) in &expected {
        assert!(found[name] == *about, "{name} differs: {:?}", found[name].4);
    }
}

#[test]
fn an_empty_tree_is_a_root_without_anything_in_it() {
    assert_eq!(read_back(packed(&Tree::new())), expected(&Tree::new()));
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let tree = sample();
    let one = packed_by(&tree, 1);
    for threads in [2, 3, 16] {
        assert!(packed_by(&tree, threads) == one, "{threads} threads give other bytes");
    }
}

#[test]
fn equal_files_and_zeros_are_stored_once_or_not_at_all() {
    let mut tree = Tree::new();
    for name in ["a", "b", "c"] {
        tree.insert(path(name), Node::file(0o644, noise(1 << 20)));
    }
    tree.insert(path("zeros"), Node::file(0o644, vec![0; 10 << 20]));
    let len = packed(&tree).len();
    assert!((1 << 20..(1 << 20) + 8192).contains(&len), "{len} bytes");
}

#[test]
fn it_can_begin_anywhere_in_a_file_and_ends_at_a_whole_page() {
    let tree = sample();
    let mut out = Cursor::new(b"before".to_vec());
    out.set_position(6);
    let Packed { len, dropped } = write(&tree, 1_000_000, &mut out).unwrap();
    assert_eq!((len % PAGE, dropped, out.position()), (0, None, 6 + len));
    assert_eq!(&out.into_inner()[6..], packed(&tree));
}

#[test]
fn attributes_without_a_place_in_the_format_are_counted() {
    let mut tree = Tree::new();
    for name in ["a", "b"] {
        let mut node = Node::file(0o644, *b"x");
        node.xattrs.insert("security.capability", &[7; 20]);
        node.xattrs.insert("system.posix_acl_access", b"acl");
        tree.insert(path(name), node);
    }
    let mut out = Cursor::new(Vec::new());
    let packed = write(&tree, 0, &mut out).unwrap();
    assert_eq!(packed.dropped, Some((2, path("a"))));
    assert_eq!(read_back(out.into_inner()).len(), 3);
}

#[test]
fn what_does_not_fit_the_format_is_named() {
    let problem = |name: &str, node| {
        let mut tree = Tree::new();
        tree.insert(path(name), node);
        write(&tree, 0, &mut Cursor::new(Vec::new())).unwrap_err().to_string()
    };
    let long = "n".repeat(256);
    for (name, node, text) in [
        (long.as_str(), Node::dir(), "its name is longer than 255 bytes"),
        ("d", Node::new(0, Kind::CharDevice(4096, 0)), "its device number is too large"),
        ("s", Node::symlink("t".repeat(4096)), "its target is longer than 4095 bytes"),
        (
            "h",
            Node::new(0, Kind::Hardlink(path("gone"))),
            "`h` leads to `gone`, which is not a file of the same tree",
        ),
    ] {
        let error = problem(name, node);
        assert!(error.ends_with(text), "{error}");
    }
    let file = Arc::new(tempfile::tempfile().unwrap());
    let short = Content::Span { file, offset: 0, len: 1 << 20 };
    assert_eq!(problem("f", Node::new(0o644, Kind::File(short))), "cannot read `f`");
}
