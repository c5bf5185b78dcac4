use std::fmt::Write as _;
use std::fs;

use super::*;

/// Writes one tar entry (POSIX ustar).
fn entry(name: &str, kind: u8, link: &str, data: &[u8]) -> Vec<u8> {
    let mut header = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000007\0");
    put(116, b"0000010\0");
    put(124, format!("{:011o}\0", data.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    put(329, b"0000001\0");
    put(337, b"0000003\0");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut out = header.to_vec();
    out.extend(data);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

fn file(name: &str, data: &[u8]) -> Vec<u8> {
    entry(name, b'0', "", data)
}

fn member(name: &str, data: &[u8]) -> Vec<u8> {
    let mut out = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, data.len())
        .into_bytes();
    out.extend(data);
    out.resize(out.len().next_multiple_of(2), b'\n');
    out
}

fn deb(suffix: &str, data: &[u8]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    out.extend(member("debian-binary", b"2.0\n"));
    out.extend(member("control.tar.xz", b"odd"));
    out.extend(member(&format!("data.tar{suffix}"), data));
    out
}

fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut out = entries.concat();
    out.resize(out.len() + 1024, 0);
    out
}

fn unpack_bytes(bytes: &[u8]) -> Result<Tree, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.deb");
    fs::write(&path, bytes).unwrap();
    let result = unpack(&path)
        .map_err(|error| error.to_string().replace(&path.display().to_string(), "a.deb"));
    // Nothing is ever written beside the package, whatever its entries are called.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    result
}

fn unpack_entries(entries: &[Vec<u8>]) -> Result<Tree, String> {
    unpack_bytes(&deb("", &tar(entries)))
}

fn show_tree(tree: &Tree) -> String {
    tree.iter().fold(String::new(), |mut out, (path, node)| {
        let kind = match &node.kind {
            Kind::Dir => "dir".to_owned(),
            Kind::File(content) => String::from_utf8(content.read_all(1 << 20).unwrap()).unwrap(),
            Kind::Symlink(target) => format!("-> {target}"),
            Kind::Hardlink(target) => format!("= {target}"),
            Kind::CharDevice(major, minor) => format!("char {major}:{minor}"),
            Kind::BlockDevice(major, minor) => format!("block {major}:{minor}"),
            Kind::Fifo => "fifo".to_owned(),
        };
        let _ = writeln!(out, "{path} {:o} {}:{} {kind}", node.mode, node.uid, node.gid);
        out
    })
}

#[test]
fn every_compression_gives_the_same_tree() {
    let tar = tar(&[
        entry("./", b'5', "", b""),
        entry("./usr/", b'5', "", b""),
        file("./bin/a", b"one"),
        entry("./usr/bin/b", b'1', "./bin/a", b""),
        entry("./usr/bin/c", b'2', "../x", b""),
        entry("./dev/n", b'3', "", b""),
        entry("./dev/p", b'6', "", b""),
        file("./usr/share/man/man1/a.1", b"left out"),
        file("./usr/share/doc/a/copyright", b"kept"),
    ]);
    let want = "dev 755 0:0 dir\n\
                dev/n 644 7:8 char 1:3\n\
                dev/p 644 7:8 fifo\n\
                usr 644 7:8 dir\n\
                usr/bin 755 0:0 dir\n\
                usr/bin/a 644 7:8 one\n\
                usr/bin/b 644 7:8 = usr/bin/a\n\
                usr/bin/c 644 7:8 -> ../x\n\
                usr/share 755 0:0 dir\n\
                usr/share/doc 755 0:0 dir\n\
                usr/share/doc/a 755 0:0 dir\n\
                usr/share/doc/a/copyright 644 7:8 kept\n";
    let mut xz = Vec::new();
    liblzma::read::XzEncoder::new(&tar[..], 1).read_to_end(&mut xz).unwrap();
    let mut gz = Vec::new();
    flate2::read::GzEncoder::new(&tar[..], flate2::Compression::fast())
        .read_to_end(&mut gz)
        .unwrap();
    let zst = zstd::encode_all(&tar[..], 1).unwrap();
    for (suffix, data) in [("", &tar), (".xz", &xz), (".gz", &gz), (".zst", &zst)] {
        assert_eq!(show_tree(&unpack_bytes(&deb(suffix, data)).unwrap()), want, "{suffix}");
        if !suffix.is_empty() {
            let half = &data[..data.len() / 2];
            let error = unpack_bytes(&deb(suffix, half)).unwrap_err();
            assert!(error.contains("truncated") || error.contains("broken"), "{error}");
        }
    }
    assert_eq!(
        unpack_bytes(&deb(".bz2", &tar)).unwrap_err(),
        "the package a.deb is refused: the compression `.bz2` is not supported"
    );
}

#[test]
fn long_names_of_both_kinds_arrive_whole() {
    let long = format!("usr/{}", "directory/".repeat(20));
    let (gnu, pax) = (format!("./{long}gnu\0"), format!("./{long}pax"));
    let record = |key: &str, value: &str| {
        let body = format!(" {key}={value}\n");
        let len = (1..).find(|len| format!("{len}{body}").len() == *len).unwrap();
        format!("{len}{body}")
    };
    let capability = record("SCHILY.xattr.security.capability", "\x01\n\x02");
    let headers =
        record("path", &pax) + &record("uid", "70000") + &record("mtime", "1.5") + &capability;
    let tree = unpack_entries(&[
        entry("././@LongLink", b'L', "", gnu.as_bytes()),
        file("./usr/cut", b"g"),
        entry("PaxHeaders/x", b'x', "", headers.as_bytes()),
        file("./usr/cut", b"p"),
        entry("././@LongLink", b'K', "", b"/far/away\0"),
        entry("./usr/link", b'2', "cut", b""),
        file("./usr/plain", b"-"),
    ])
    .unwrap();
    let text = show_tree(&tree);
    assert!(text.contains(&format!("{long}gnu 644 7:8 g\n")), "{text}");
    assert!(text.contains(&format!("{long}pax 644 70000:8 p\n")), "{text}");
    let with_pax = tree.get(&TreePath::new(&pax).unwrap()).unwrap();
    assert_eq!(with_pax.xattrs.get("security.capability"), Some(&b"\x01\n\x02"[..]));
    assert!(text.contains("usr/link 644 7:8 -> /far/away\n"), "{text}");
    assert!(text.contains("usr/plain 644 7:8 -\n") && !text.contains("cut"), "{text}");
}

#[test]
fn hostile_entries_are_refused_by_name() {
    let sparse = entry("PaxHeaders/x", b'x', "", b"22 GNU.sparse.major=1\n");
    let huge = entry("PaxHeaders/x", b'x', "", b"20 size=99999999999\n");
    let deep = format!("./{}", "d/".repeat(45));
    for (entries, text) in [
        (vec![file("../evil", b"x")], "`../evil`"),
        (vec![file("./a/../../evil", b"x")], "`..` could lead out"),
        (
            vec![entry("./a", b'2', "/etc", b""), file("./a/passwd", b"x")],
            "below `a`, which is not",
        ),
        (vec![file("./a", b""), file("./a/b", b"x")], "below `a`, which is not"),
        (vec![file("./a", b""), file("./a", b"x")], "is in it twice"),
        (vec![file("./a/b", b""), file("./a", b"x")], "is in it twice"),
        (vec![entry("./a", b'1', "/etc/passwd", b"")], "which is no file before it"),
        (vec![entry("./a", b'1', "../../etc/passwd", b"")], "which is no file before it"),
        (vec![entry("./a", b'2', "", b"")], "links to nothing"),
        (vec![entry("./a", b'S', "", b"")], "of a kind that packages do not have"),
        (vec![sparse, file("./a", b"x")], "sparse"),
        (vec![huge, file("./a", b"x")], "too large"),
        (vec![entry("PaxHeaders/x", b'x', "", b"9999 path=x\n"), file("./a", b"")], "PAX header"),
        (vec![entry("L", b'L', "", &vec![b'a'; 70_000]), file("./a", b"")], "too long"),
        (
            vec![entry("L", b'L', "", deep.repeat(2).as_bytes()), file("./a", b"")],
            "directories deep",
        ),
        (vec![entry("L", b'L', "", b"a\xff\0"), file("./a", b"")], "is not UTF-8"),
    ] {
        let error = unpack_entries(&entries).unwrap_err();
        assert!(
            error.starts_with("the package a.deb is refused:") && error.contains(text),
            "{error}"
        );
    }
}

#[test]
fn packages_that_end_early_say_so() {
    let good = deb("", &tar(&[file("./a", &[b'x'; 2000])]));
    for len in [0, 7, 8, 40, 70, 200, good.len() - 1] {
        assert_eq!(
            unpack_bytes(&good[..len]).unwrap_err(),
            "the package a.deb is truncated; delete it and try again",
            "{len}"
        );
    }
    // The outer container is whole, the tar in it is not.
    let tar = file("./a", &[b'x'; 2000]);
    assert!(unpack_bytes(&deb("", &tar[..1000])).unwrap_err().contains("truncated"));
    let not = [&b"GIF89a"[..], &good].concat();
    assert!(unpack_bytes(&not).unwrap_err().contains("it is not a Debian package"));
}

#[test]
fn what_unpacks_to_too_much_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.deb");
    let zst = zstd::encode_all(&vec![0; 1 << 20][..], 1).unwrap();
    fs::write(&path, deb(".zst", &zst)).unwrap();
    let package = File::open(&path).unwrap();
    let data = ar::find(&package, ar::DATA).unwrap();
    let error = spool(package, &data, &Fail { path: &path }, 1000).unwrap_err().to_string();
    assert!(error.contains("unpacks to more than 1000 bytes"), "{error}");
}

#[test]
fn no_damage_to_a_package_makes_it_panic() {
    let good = deb(
        "",
        &tar(&[
            entry("L", b'L', "", b"./usr/long\0"),
            file("./a", b"x"),
            entry("PaxHeaders/x", b'x', "", b"14 path=./abc\n"),
            file("./b", b"y"),
            entry("./c", b'1', "./a", b""),
        ]),
    );
    let mut random: u32 = 1;
    // `./dev fuzz` asks for more.
    let rounds = std::env::var("KILN_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    for _ in 0..rounds.unwrap_or(400) {
        let mut bytes = good.clone();
        for _ in 0..3 {
            // A linear congruential generator: the same damage in every run.
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = usize::try_from(random >> 8).unwrap() % bytes.len();
            bytes[at] = random.to_le_bytes()[3];
        }
        let _ = unpack_bytes(&bytes);
    }
}

#[test]
fn what_a_package_says_of_itself_is_read_without_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.deb");
    let write = |control: &[u8]| {
        let mut out = b"!<arch>\n".to_vec();
        out.extend(member("debian-binary", b"2.0\n"));
        out.extend(member("control.tar", control));
        fs::write(&path, out).unwrap();
        control_of(&path)
    };
    fn control_of(path: &Path) -> Result<String, String> {
        control(path).map_err(|error| error.to_string())
    }
    let stanza = "Package: a\nDepends: b\n";
    let good = tar(&[file("./postinst", b"#!/bin/sh"), file("./control", stanza.as_bytes())]);
    assert_eq!(write(&good).unwrap(), stanza);
    assert!(write(&tar(&[file("./x", b"")])).unwrap_err().contains("it has no control file"));
    assert!(write(&good[..600]).is_err());
}

#[test]
fn fuzzed_packages_are_unpacked_or_refused() {
    let data = tar(&[
        entry("L", b'L', "", b"./usr/long\0"),
        file("./a", b"x"),
        entry("PaxHeaders/x", b'x', "", b"14 path=./abc\n"),
        file("./b", b"y"),
        entry("./c", b'1', "./a", b""),
    ]);
    let (plain, packed) = (deb("", &data), deb(".zst", &zstd::encode_all(&data[..], 1).unwrap()));
    kiln_fuzz::check("deb", &[&plain, &packed], |bytes| drop(unpack_bytes(bytes)));
}
