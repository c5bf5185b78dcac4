use super::archive::*;
use super::*;

const LAYER: &str = "layer sha256:0101010101010101010101010101010101010101010101010101010101010101";

fn refusal(entries: &[Vec<u8>], limits: &Limits) -> String {
    let error = flatten_entries(&[entries], limits).unwrap_err();
    assert!(error.starts_with(LAYER) || error.starts_with("no space"), "{error}");
    error
}

#[test]
fn hostile_entries_are_refused_by_layer_and_name() {
    let deep = "d/".repeat(130);
    let broken_size = {
        let mut bytes = file("a", "");
        bytes[124..136].fill(b'x');
        sign(&mut bytes);
        bytes
    };
    let device = {
        let mut bytes = entry("a", b'3', "", 0o600, b"");
        bytes[329..337].copy_from_slice(b"7777777\0");
        sign(&mut bytes);
        bytes
    };
    let named = |name: &[u8], what: Vec<u8>| vec![entry("L", b'L', "", 0, name), what];
    let looped = vec![symlink("a", "b"), symlink("b", "a"), file("a/x", "")];
    let sparse = |map: &[u8], size: &[u8]| {
        vec![pax(&[("GNU.sparse.size", size), ("GNU.sparse.map", map)]), file("a", "abcd")]
    };
    for (entries, text) in [
        (vec![file("../evil", "x")], "`../evil` contains `..`"),
        (vec![file("a/../../evil", "x")], "contains `..`"),
        (vec![pax(&[("path", b"a\0b")]), file("x", "")], "`a\\u{0}b` contains a NUL byte"),
        (vec![file("a", ""), file("a/b", "")], "`a/b` lies below `a`, which is no directory"),
        (vec![link("a", "/etc/passwd")], "`a` is a hard link to `/etc/passwd`, which is no file"),
        (vec![link("a", "../../etc/passwd")], "its target contains `..`"),
        (vec![dir("d", 0o755), link("a", "d")], "which is no file before it"),
        (vec![link("a", "")], "links to nothing"),
        (vec![symlink("a", "")], "links to nothing"),
        (looped, "`a/x` leads through too many symbolic links"),
        (vec![file(".wh.", "")], "something without a name"),
        (vec![file("a/.wh...", "")], "something without a name"),
        (vec![file(".wh.a/b", "")], "means that something is deleted"),
        (named(deep.as_bytes(), file("a", "")), "lies in more than 128 directories"),
        (named(&[b'a'; 300], file("a", "")), "a name of more than 255 bytes"),
        (named(&[b'a'; 5000], file("a", "")), "announces a name of more than 4095"),
        (named(b"a\xff\0", file("a", "")), "is not UTF-8"),
        (vec![header(b"x", b'x', "", 0, 2 << 20, b"")], "a header of more than 1 MiB"),
        (vec![entry("x", b'x', "", 0, b"99 path=x\n"), file("a", "")], "a broken header"),
        (vec![pax(&[("uid", b"-1")]), file("a", "")], "a broken header"),
        (vec![pax(&[("uid", b"4294967296")]), file("a", "")], "an owner beyond 32 bits"),
        (vec![pax(&[("SCHILY.xattr.a", &[0; 70_000])]), file("a", "")], "more than 64 KiB"),
        (vec![header(b"a", b'0', "", 0, 1 << 60, b"")], "has 1152921504606846976 bytes"),
        (vec![pax(&[("size", b"99999999999999")]), file("a", "")], "beyond the limit"),
        (sparse(b"0,4", b"99999999999999"), "beyond the limit"),
        (sparse(b"0,4", b"3"), "sparse in a way that makes no sense"),
        (sparse(b"0,3", b"10"), "sparse in a way"),
        (sparse(b"4,2,0,2", b"10"), "sparse in a way"),
        (sparse(b"18446744073709551615,4", b"10"), "sparse in a way"),
        (vec![broken_size], "has a broken size"),
        (vec![device], "a device number that Linux does not have"),
        (vec![entry("a", b'V', "", 0, b"")], "of a kind that layers do not have"),
        (vec![b"GIF89a".repeat(100)], "it is no tar archive"),
        (vec![vec![0; 512], file("a", "")], "ends in the middle"),
    ] {
        let error = refusal(&entries, &Limits::default());
        assert!(error.contains(text), "{text}: {error}");
    }
}

#[test]
fn what_a_link_leads_to_outside_is_inside() {
    let entries = [
        symlink("root", "/"),
        symlink("etc", "../../../../etc"),
        symlink("up", ".."),
        file("root/a", "1"),
        file("up/up/root/b", "2"),
    ];
    let tree = show(&[&entries]);
    assert_eq!(tree, ["a 1", "b 2", "etc -> ../../../../etc", "root -> /", "up -> .."]);
    // A link to itself above the root is a loop.
    let error = refusal(&[&entries[..], &[file("etc/passwd", "")]].concat(), &Limits::default());
    assert!(error.contains("`etc/passwd` leads through too many symbolic links"), "{error}");
}

#[test]
fn each_limit_ends_an_image_that_is_beyond_it() {
    let files: Vec<_> = (0..30).map(|n| file(&format!("f{n}"), "content")).collect();
    let limits = Limits::default();
    let error = refusal(&files, &Limits { files: 29, ..limits.clone() });
    assert!(error.contains("`f29` is entry number 30 of its image: too many"), "{error}");
    let error = refusal(&[file("a/b/c/d/e", "")], &Limits { files: 4, ..limits.clone() });
    assert!(error.contains("is file number 5"), "{error}");
    let error = refusal(&files, &Limits { bytes: 20_000, ..limits.clone() });
    assert!(error.contains("unpacks to more than 0 MiB"), "{error}");
    let error = refusal(&files, &Limits { names: 100, ..limits.clone() });
    assert!(error.contains("names and attributes of its image"), "{error}");
    let error = refusal(&[file("a/b/c", "")], &Limits { path_depth: 1, ..limits.clone() });
    assert!(error.contains("lies in more than 1 directories"), "{error}");
    // The limit is the image's, not the layer's.
    let layers: Vec<&[Vec<u8>]> = vec![&files, &files];
    let error = flatten_entries(&layers, &Limits { bytes: 50_000, ..limits }).unwrap_err();
    assert!(error.starts_with("layer sha256:0202") && error.contains("more than 0 MiB"), "{error}");
}

#[test]
fn bombs_end_early_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { bytes: 1 << 40, ..Limits::default() };
    let zeros = vec![0; 100 << 20];
    // In a file, and behind the end of the archive.
    let announced = [&header(b"zeros", b'0', "", 0o644, 200 << 20, b"")[..], &zeros].concat();
    for (bytes, text) in [
        (&announced, "`zeros` has 209715200 bytes, beyond the limit of 250 times the layer's size"),
        (&zeros, "it unpacks to more than 250 times its size"),
    ] {
        for bomb in [gzip(bytes), zstd::encode_all(&bytes[..], 1).unwrap()] {
            let layer = store(dir.path(), 1, &bomb, b"");
            let error = flatten(&[layer], &limits, dir.path()).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }
}

#[test]
fn many_names_for_one_hidden_directory_cost_no_more_than_one() {
    let mut entries: Vec<_> = (0..20_000).map(|n| file(&format!("d/{n}"), "")).collect();
    entries.extend(vec![file("d/.wh..wh..opq", ""); 20_000]);
    let tree = flatten_entries(&[&entries], &Limits::default()).unwrap();
    assert_eq!(tree.len(), 20_001);
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing_behind() {
    crate::disk::with_small_disk(1 << 20, |dir| {
        let other = tempfile::tempdir().unwrap();
        let tar = tar(&[entry("a", b'0', "", 0o644, &vec![1; 3 << 20])]);
        let layer = store(other.path(), 1, &tar, &tar);
        let error = flatten(&[layer], &Limits::default(), dir).unwrap_err().to_string();
        assert!(error.starts_with("no space is left on the disk for the contents"), "{error}");
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);
    });
}

/// A layer with every kind of entry.
fn sample() -> Vec<u8> {
    tar(&[
        dir("usr/lib", 0o755),
        symlink("lib", "usr/lib"),
        entry("L", b'L', "", 0, b"./usr/long\0"),
        file("cut", "x"),
        pax(&[("path", b"./abc"), ("SCHILY.xattr.user.a", b"v"), ("uid", b"5")]),
        file("b", "y"),
        link("lib/c", "./abc"),
        pax(&[("GNU.sparse.size", b"12"), ("GNU.sparse.map", b"2,3,9,1")]),
        file("sparse", "abcd"),
        file("usr/.wh..wh..opq", ""),
        file(".wh.abc", ""),
    ])
}

#[test]
fn no_damage_to_a_layer_makes_it_panic() {
    let good = sample();
    let limits = Limits { bytes: 1 << 20, ..Limits::default() };
    let dir = tempfile::tempdir().unwrap();
    let packed = gzip(&good);
    let mut random: u32 = 1;
    let mut next = || {
        // A linear congruential generator: the same damage in every run.
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        random
    };
    // `./dev fuzz` asks for more.
    let rounds = std::env::var("KILN_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let (mut refused, mut read) = (0, 0);
    for round in 0..rounds.unwrap_or(600) {
        let mut bytes = if round % 4 == 0 { packed.clone() } else { good.clone() };
        for _ in 0..3 {
            let at = usize::try_from(next() >> 8).unwrap() % bytes.len();
            bytes[at] = next().to_le_bytes()[3];
            // Where the sum is right again, the damage comes further.
            let block = at / 512 * 512;
            if round % 4 != 0 && bytes[block + 257..].starts_with(b"ustar") {
                sign(&mut bytes[block..]);
            }
        }
        let unpacked = if round % 4 == 0 { &good } else { &bytes };
        let layer = store(dir.path(), 1, &bytes, unpacked);
        match flatten(&[layer], &limits, dir.path()) {
            Ok(tree) => {
                crate::cpio::write(&tree, 0, &mut std::io::sink()).unwrap();
                read += 1;
            }
            Err(_) => refused += 1,
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
    // Otherwise the damage is too great, or too small, to test anything.
    assert!(refused > 20 && read > 20, "{refused} {read}");
}

#[test]
fn fuzzed_layers_are_read_or_refused_and_leave_nothing() {
    let good = sample();
    let limits = Limits { bytes: 1 << 20, ..Limits::default() };
    let (packed, zstd) = (gzip(&good), zstd::encode_all(&good[..], 1).unwrap());
    let dir = tempfile::tempdir().unwrap();
    kiln_fuzz::check("layer", &[&good, &packed, &zstd], |bytes| {
        // Where the sums of headers are right again, the damage comes further.
        let mut bytes = bytes.to_vec();
        let (blocks, _) = bytes.as_chunks_mut::<512>();
        for block in blocks.iter_mut().filter(|block| block[257..].starts_with(b"ustar")) {
            sign(block);
        }
        let layer = store(dir.path(), 1, &bytes, &bytes);
        if let Ok(tree) = flatten(&[layer], &limits, dir.path()) {
            crate::cpio::write(&tree, 0, &mut std::io::sink()).unwrap();
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    });
}
