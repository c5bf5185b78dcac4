use super::archive::*;
use super::*;
use crate::tree::{Kind, TreePath};

fn at<'a>(tree: &'a Tree, path: &str) -> &'a crate::tree::Node {
    tree.get(&TreePath::new(path).unwrap()).unwrap()
}

#[test]
fn upper_layers_replace_what_lower_ones_have() {
    let lower = [
        dir("d/", 0o700),
        file("d/kept", "1"),
        file("d/new", "1"),
        dir("was-dir/", 0o755),
        file("was-dir/x", "1"),
        file("was-file", "1"),
        symlink("was-link", "d"),
    ];
    let upper = [
        dir("./d", 0o750),
        file("/d/new", "2"),
        file("was-dir", "2"),
        dir("was-file", 0o755),
        file("was-file/x", "2"),
        dir("was-link", 0o755),
        file("was-link/x", "2"),
    ];
    let want = [
        "d/ 750",
        "d/kept 1",
        "d/new 2",
        "was-dir 2",
        "was-file/ 755",
        "was-file/x 2",
        "was-link/ 755",
        "was-link/x 2",
    ];
    assert_eq!(show(&[&lower, &upper]), want);
    // Of two entries of one layer the last one counts.
    let twice = [file("a", "1"), dir("a", 0o700), file("a/b", "1"), file("a", "2")];
    assert_eq!(show(&[&twice]), ["a 2"]);
}

#[test]
fn a_whiteout_hides_only_what_lower_layers_have_whatever_comes_first() {
    let lower = [
        file("a", "1"),
        dir("d", 0o700),
        file("d/old", "1"),
        file("gone/deep/x", "1"),
        file("kept", "1"),
    ];
    let white = |name: &str| file(name, "");
    let own = [file("a", "2"), dir("d", 0o750), file("d/new", "2")];
    let hide = [white(".wh.a"), white(".wh.d"), white(".wh.gone"), white(".wh.never-there")];
    let want = ["a 2", "d/ 750", "d/new 2", "kept 1"];
    for upper in [[&own[..], &hide].concat(), [&hide[..], &own].concat()] {
        assert_eq!(show(&[&lower, &upper]), want);
    }
    // A directory that is described by no entry has not the mode of the hidden one.
    for upper in [[file("d/new", "2"), white(".wh.d")], [white(".wh.d"), file("d/new", "2")]] {
        assert_eq!(show(&[&lower[1..3], &upper]), ["d/ 755", "d/new 2"]);
    }
    // What was hidden may come back.
    let back = [file("gone/x", "3")];
    let tree = show(&[&lower, &[white(".wh.gone")], &back]);
    assert!(tree.contains(&"gone/x 3".to_owned()) && !tree.join("").contains("deep"));
}

#[test]
fn an_opaque_directory_has_only_what_its_own_layer_and_those_above_bring() {
    let lower = [
        dir("d", 0o700),
        file("d/a", "1"),
        dir("d/sub", 0o700),
        file("d/sub/a", "1"),
        file("d/other/a", "1"),
        file("beside", "1"),
    ];
    let opaque = file("d/.wh..wh..opq", "");
    let own = [file("d/b", "2"), file("d/sub/b", "2"), link("d/l", "beside")];
    let want = ["beside 1", "d/ 700", "d/b 2", "d/l = beside", "d/sub/ 755", "d/sub/b 2"];
    for place in 0..=own.len() {
        let mut upper = own.to_vec();
        upper.insert(place, opaque.clone());
        assert_eq!(show(&[&lower, &upper]), want, "{place}");
    }
    let root = [file(".wh..wh..opq", ""), file("only", "2")];
    assert_eq!(show(&[&lower, &root]), ["only 2"]);
    let notes = [file(".wh..wh.aufs", ""), dir(".wh..wh.plnk", 0o700), file(".wh..wh.plnk/1", "")];
    assert_eq!(show(&[&notes]), [""; 0]);
}

#[test]
fn hard_links_reach_lower_layers_and_keep_content_whose_first_name_is_gone() {
    let lower = [file("a", "one"), link("b", "a"), link("/c/d", "./b"), file("x", "old")];
    assert_eq!(show(&[&lower]), ["a one", "b = a", "c/ 755", "c/d = a", "x old"]);
    let linked = [link("y", "x"), link("z", "x")];
    assert_eq!(
        show(&[&lower, &linked, &[file(".wh.a", ""), file("x", "new")]]),
        ["b one", "c/ 755", "c/d = b", "x new", "y old", "z = y"]
    );
    // The only name that is left is a plain file.
    assert_eq!(show(&[&[file("a", "1"), link("b", "a")], &[file(".wh.a", "")]]), ["b 1"]);
    // A link to a link is one more link.
    assert_eq!(show(&[&[symlink("s", "/x"), link("t", "s")]]), ["s -> /x", "t -> /x"]);
    // A name may be linked to itself.
    assert_eq!(show(&[&lower[..1], &[link("a", "a")]]), ["a one"]);
}

#[test]
fn a_path_through_links_stays_in_the_tree_and_finds_what_a_container_would() {
    let lower = [
        dir("usr/lib", 0o750),
        symlink("lib", "usr/lib"),
        symlink("up", "../../../usr"),
        symlink("abs", "/usr/lib/../lib"),
        symlink("chain", "lib"),
        symlink("dangling", "srv/new"),
    ];
    let upper = [
        file("lib/a", "a"),
        file("up/b", "b"),
        file("abs/c", "c"),
        file("chain/d", "d"),
        file("dangling/e", "e"),
        link("f", "lib/a"),
    ];
    let tree = show(&[&lower, &upper]);
    for want in [
        "f a",
        "usr/lib/a = f",
        "usr/b b",
        "usr/lib/c c",
        "usr/lib/d d",
        "srv/new/e e",
        "usr/lib/ 750",
    ] {
        assert!(tree.contains(&want.to_owned()), "{want}: {tree:?}");
    }
    let gone = show(&[&lower, &upper, &[file("lib/.wh.c", ""), file("chain/.wh.a", "")]]);
    assert!(!gone.join("\n").contains("usr/lib/c") && gone.contains(&"f a".to_owned()));
    let opaque = show(&[&lower, &upper, &[file("lib/.wh..wh..opq", "")]]);
    assert!(!opaque.join("\n").contains("usr/lib/d"), "{opaque:?}");
}

#[test]
fn every_form_of_names_numbers_and_attributes_arrives() {
    let long = format!("{}/{}", "n".repeat(200), "m".repeat(250));
    let gnu = format!("{long}/gnu\0");
    let capability = b"\x01\0\0\x02\n=\n\0";
    let entries = [
        entry("././@LongLink", b'L', "", 0, gnu.as_bytes()),
        entry("././@LongLink", b'K', "", 0, b"/far/away\0"),
        symlink("cut", "cut"),
        pax(&[
            ("path", format!("{long}/pax").as_bytes()),
            ("uid", b"70000"),
            ("gid", b"4294967295"),
            ("mtime", b"1.5"),
            ("size", b"3"),
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ]),
        header(b"cut", b'0', "", 0o4755, 1, b"abc"),
        link("same", &format!("{}/x", "no")),
        entry("null", b'3', "", 0o666, b""),
        entry("disk", b'4', "", 0o660, b""),
        entry("pipe", b'6', "", 0o600, b""),
        entry("PaxHeaders/g", b'g', "", 0, b"19 path=everywhere\n"),
        entry("old/", 0, "", 0o711, b""),
        entry("odd", b'7', "", 0o600, b"7"),
    ];
    let without_link: Vec<_> =
        entries.iter().filter(|entry| !entry.starts_with(b"same")).cloned().collect();
    let tree = flatten_entries(&[&without_link], &Limits::default()).unwrap();
    let lines = show_tree(&tree);
    for want in ["null char 1:3", "disk block 1:3", "pipe fifo", "old/ 711", "odd 7"] {
        assert!(lines.contains(&want.to_owned()), "{want}: {lines:?}");
    }
    assert!(lines.contains(&format!("{long}/gnu -> /far/away")), "{lines:?}");
    let node = at(&tree, &format!("{long}/pax"));
    assert_eq!((node.mode, node.uid, node.gid), (0o4755, 70_000, u32::MAX));
    let xattrs: Vec<_> = node.xattrs.iter().collect();
    assert_eq!(xattrs, [("security.capability", &capability[..])]);
    assert_eq!(at(&tree, "null").uid, 7);
    assert!(!lines.iter().any(|line| line.contains("cut") || line.contains("everywhere")));
}

#[test]
fn sparse_files_of_every_form_have_their_holes() {
    let mut old = header(b"old", b'S', "", 0o644, 4, b"");
    let mut put = |at: usize, text: &str| old[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(257, "ustar  \0");
    put(386, "00000000002\0");
    put(398, "00000000003\0");
    put(410, "00000000010\0");
    put(422, "00000000000\0");
    old[482] = 1;
    put_size(&mut old, 12);
    sign(&mut old);
    let mut more = vec![0; 512];
    more[..12].copy_from_slice(b"00000000011\0");
    more[12..24].copy_from_slice(b"00000000001\0");
    let mut data = b"abcd".to_vec();
    data.resize(512, 0);
    let old = [old, more, data].concat();

    let v0 = [
        pax(&[
            ("GNU.sparse.size", b"12"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.offset", b"2"),
            ("GNU.sparse.numbytes", b"3"),
            ("GNU.sparse.offset", b"9"),
            ("GNU.sparse.numbytes", b"1"),
        ]),
        file("v00", "abcd"),
        pax(&[
            ("GNU.sparse.size", b"12"),
            ("GNU.sparse.map", b"2,3,9,1"),
            ("GNU.sparse.name", b"v01"),
        ]),
        file("GNUSparseFile.1/v01", "abcd"),
    ]
    .concat();
    let mut data = b"2\n2\n3\n9\n1\n".to_vec();
    data.resize(512, 0);
    data.extend(b"abcd");
    let v1 = [
        pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"v10"),
            ("GNU.sparse.realsize", b"12"),
        ]),
        entry("GNUSparseFile.1/v10", b'0', "", 0o644, &data),
        file("z", "after"),
    ]
    .concat();
    let tree = show(&[&[old, v0, v1]]);
    let content = "\0\0abc\0\0\0\0d\0\0";
    let want = ["old", "v00", "v01", "v10"].map(|name| format!("{name} {content}"));
    assert_eq!(tree, [&want[..], &["z after".to_owned()]].concat());
}

fn put_size(header: &mut [u8], size: u64) {
    header[483..495].copy_from_slice(format!("{size:011o}\0").as_bytes());
}

#[test]
fn every_compression_gives_the_same_tree_and_a_cut_or_changed_layer_none() {
    let entries: Vec<_> = (0..200).map(|n| file(&format!("f{n}"), &format!("{n}"))).collect();
    let tar = tar(&entries);
    let (a, b) = tar.split_at(tar.len() / 3);
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let forms = [
        ("plain", tar.clone()),
        ("gzip", gzip(&tar)),
        ("gzip of two members", [gzip(a), gzip(b)].concat()),
        ("zstd", zstd(&tar)),
        ("zstd of two frames", [zstd(a), zstd(b)].concat()),
    ];
    assert_eq!(gunzip(&forms[2].1), tar);
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits::default();
    for (form, bytes) in forms {
        let file = store(dir.path(), 1, &bytes, &tar);
        let tree = flatten(std::slice::from_ref(&file), &limits, dir.path()).unwrap();
        assert_eq!(tree.len(), 200, "{form}");
        let half = store(dir.path(), 1, &bytes[..bytes.len() / 2 - 7], &tar);
        let error = flatten(&[half], &limits, dir.path()).unwrap_err();
        assert!(matches!(error, LayerError::Truncated { .. }), "{form}: {error}");
        let missing = LayerFile { len: file.len + 6, ..file.clone() };
        let error = flatten(&[missing], &limits, dir.path()).unwrap_err();
        assert!(matches!(error, LayerError::Truncated { .. }), "{form}: {error}");
        let other = store(dir.path(), 1, &bytes, b"other");
        let error = flatten(&[other], &limits, dir.path()).unwrap_err().to_string();
        assert!(error.contains("unpacks to sha256:"), "{form}: {error}");
    }
    let gone = LayerFile { path: dir.path().join("gone"), ..store(dir.path(), 1, &tar, &tar) };
    let error = flatten(&[gone], &limits, dir.path()).unwrap_err().to_string();
    assert!(error.starts_with("cannot read layer sha256:0101"), "{error}");
}

#[test]
fn contents_stay_when_the_layers_and_the_folder_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let tar = tar(&[file("a", "x")]);
    let layer = store(dir.path(), 1, &tar, &tar);
    let tree = flatten(&[layer], &Limits::default(), dir.path()).unwrap();
    drop(dir);
    assert_eq!(show_tree(&tree), ["a x"]);
    assert!(matches!(&at(&tree, "a").kind, Kind::File(_)));
}
