use std::io::{Cursor, Read as _};

use super::*;
use crate::store::Store;

fn bytes(plan: &Plan) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut bytes = Vec::new();
    plan.write(&store, &mut bytes).unwrap();
    bytes
}

fn file(len: usize, seed: u8) -> Plan {
    let mut plan = Plan::default();
    plan.push_bytes((0..=250).cycle().map(|n: u8| n ^ seed).take(len).collect::<Vec<u8>>());
    plan
}

const fn volume(size: u64) -> Volume<'static> {
    Volume { label: "KILN-ESP", id: 0x1234_5678, size, hidden_sectors: 2048 }
}

#[test]
fn another_reader_finds_every_file_in_file_systems_of_all_kinds() {
    let files = [
        ("EFI/BOOT/BOOTX64.EFI", file(1_000_003, 1)),
        ("EFI/KILN/B.EFI", file(4096, 2)),
        ("EFI/EMPTY", file(0, 3)),
        ("README.TXT", file(511, 4)),
    ];
    for (mib, kind) in [
        (4, fatfs::FatType::Fat16),
        (15, fatfs::FatType::Fat16),
        (32, fatfs::FatType::Fat16),
        (33, fatfs::FatType::Fat32),
        (100, fatfs::FatType::Fat32),
    ] {
        let plan = plan(&volume(mib << 20), &files).unwrap();
        assert_eq!(plan.len(), mib << 20);
        let read = fatfs::FileSystem::new(Cursor::new(bytes(&plan)), fatfs::FsOptions::new());
        let read = read.unwrap();
        assert_eq!(read.fat_type(), kind, "{mib} MiB");
        assert_eq!((read.volume_id(), read.volume_label().as_str()), (0x1234_5678, "KILN-ESP"));
        for (path, content) in &files {
            let mut found = Vec::new();
            read.root_dir().open_file(path).unwrap().read_to_end(&mut found).unwrap();
            assert_eq!(found, bytes(content), "{path} of {mib} MiB");
        }
        let entries: Vec<_> =
            read.root_dir().iter().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(entries, ["EFI", "README.TXT"]);
        // Another program can go on writing to it.
        let before = read.stats().unwrap().free_clusters();
        let dir = read.root_dir().open_dir("EFI/KILN").unwrap();
        std::io::Write::write_all(&mut dir.create_file("C.EFI").unwrap(), &[1; 100_000]).unwrap();
        assert!(read.stats().unwrap().free_clusters() < before);
    }
}

#[test]
fn another_reader_finds_long_names() {
    let exact = format!("{}.dtb", "x".repeat(13 * 3 - 4));
    let files = [
        ("bcm2711-rpi-4-b.dtb", file(5000, 1)),
        ("bcm2711-rpi-400.dtb", file(6000, 2)),
        ("config.txt", file(10, 3)),
        ("overlays/vc4-kms-v3d-pi5.dtbo", file(700, 4)),
        ("a.b.c", file(3, 5)),
        (&exact, file(4, 6)),
    ];
    for mib in [4, 40] {
        let plan = plan(&volume(mib << 20), &files).unwrap();
        let read = fatfs::FileSystem::new(Cursor::new(bytes(&plan)), fatfs::FsOptions::new());
        let read = read.unwrap();
        for (path, content) in &files {
            let mut found = Vec::new();
            read.root_dir().open_file(path).unwrap().read_to_end(&mut found).unwrap();
            assert_eq!(found, bytes(content), "{path}");
        }
        let entries = read.root_dir().iter().map(Result::unwrap);
        let names: Vec<_> = entries.map(|it| (it.short_file_name(), it.file_name())).collect();
        let own = |short: &str, long: &str| (short.to_owned(), long.to_owned());
        assert!(names.contains(&own("BCM271~1.DTB", "bcm2711-rpi-4-b.dtb")), "{names:?}");
        assert!(names.contains(&own("BCM271~2.DTB", "bcm2711-rpi-400.dtb")), "{names:?}");
        assert!(names.contains(&own("AB~1.C", "a.b.c")), "{names:?}");
    }
}

#[test]
fn the_order_of_the_files_does_not_show() {
    let (a, b) = (("A.EFI", file(5, 1)), ("B.EFI", file(5, 2)));
    let one = plan(&volume(4 << 20), &[a.clone(), b.clone()]).unwrap();
    assert_eq!(bytes(&one), bytes(&plan(&volume(4 << 20), &[b, a]).unwrap()));
}

#[test]
fn files_that_cannot_be_there_are_refused() {
    let refused = |size, files: &[(&str, Plan)]| plan(&volume(size), files).unwrap_err();
    assert_eq!(refused(1 << 20, &[]), FatError::Size(1 << 20));
    assert_eq!(refused((4 << 20) + 1, &[]), FatError::Size((4 << 20) + 1));
    assert!(matches!(refused(4 << 20, &[("A", file(5 << 20, 1))]), FatError::NoSpace { .. }));
    let long = "a".repeat(256);
    for name in ["", "A B", "a/.b", "a.", "\u{e9}", "a*", &long] {
        assert!(matches!(refused(4 << 20, &[(name, file(1, 1))]), FatError::Name(_)), "{name}");
    }
    for other in ["A/B", "a"] {
        let twice = [("A", file(1, 1)), (other, file(1, 1))];
        assert!(matches!(refused(4 << 20, &twice), FatError::Duplicate(_)), "{other}");
    }
    let mut huge = Plan::default();
    huge.pad_to(1 << 32);
    assert!(matches!(refused(8 << 30, &[("A", huge)]), FatError::FileTooLarge { .. }));
}

#[test]
fn what_size_for_says_is_enough() {
    for len in [1, 1 << 20, 29_500_000, 31 << 20, 33 << 20, 300 << 20, 3 << 30] {
        let mut content = Plan::default();
        content.pad_to(len);
        let size = size_for(len);
        plan(&volume(size), &[("EFI/BOOT/BOOTX64.EFI", content)]).unwrap();
    }
}
