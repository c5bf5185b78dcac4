use std::os::unix::fs::MetadataExt as _;

use kiln_types::Arch;

use super::*;
use crate::manifest::{KernelEntry, SCHEMA, SegmentCompression, SegmentEntry};
use crate::output::pe::tests::program;

struct Fixture {
    dir: tempfile::TempDir,
    store: Store,
    manifest: Manifest,
    stub: Stub,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    let kernel = program(0x8664, 0);
    let segment = |component: &str, bytes: &[u8]| SegmentEntry {
        component: component.to_owned(),
        digest: store.put(bytes).unwrap(),
        size: bytes.len() as u64,
        unpacked: 0,
        compression: SegmentCompression::None,
    };
    let manifest = Manifest {
        schema: SCHEMA,
        image: "web".to_owned(),
        arch: Arch::X86_64,
        kernel: KernelEntry {
            digest: store.put(&kernel).unwrap(),
            size: kernel.len() as u64,
            release: "6.12".to_owned(),
            efi_stub: true,
        },
        segments: vec![segment("init", b"12345"), segment("files", b"678")],
        cmdline: "quiet".to_owned(),
        min_ram: 0,
        packages: Vec::new(),
        sources: Vec::new(),
        sbom: None,
    };
    let path = dir.path().join("stub");
    std::fs::write(&path, program(0x8664, 8)).unwrap();
    let stub = Stub::read(&path, Arch::X86_64).unwrap();
    Fixture { dir, store, manifest, stub }
}

impl Fixture {
    fn bootable(&self) -> Bootable<'_> {
        Bootable { manifest: &self.manifest, store: &self.store, cmdline: &self.manifest.cmdline }
    }
}

#[test]
fn segments_follow_each_other_at_multiples_of_four() {
    let fixture = fixture();
    let mut bytes = Vec::new();
    initrd(&fixture.manifest).write(&fixture.store, &mut bytes).unwrap();
    assert_eq!(bytes, b"12345\0\0\x00678\0");
}

#[test]
fn a_file_is_written_whole_with_holes_and_is_the_same_each_time() {
    let fixture = fixture();
    let mut options = Options::new(&fixture.stub);
    options.disk_size = Some(512 << 20);
    let out = fixture.dir.path().join("out/deep");
    for (format, name) in [
        (Format::Uki, "web-x86_64.efi"),
        (Format::IsoEfi, "web-x86_64-efi.iso"),
        (Format::RawEfi, "web-x86_64-efi.img"),
    ] {
        let path = write(format, &fixture.bootable(), &options, &out).unwrap();
        assert_eq!(path, out.join(name));
        let plan = plan(format, &fixture.bootable(), &options).unwrap();
        let meta = std::fs::metadata(&path).unwrap();
        assert_eq!((meta.len(), meta.mode() & 0o777), (plan.len(), 0o644));
        assert!(meta.blocks() * 512 < 8 << 20, "{name} takes {} blocks", meta.blocks());
        let again = plan.sha256(&fixture.store).unwrap();
        assert_eq!(sha256(&std::fs::read(&path).unwrap()), again);
    }
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 3);
}

#[test]
fn what_cannot_be_written_leaves_nothing_behind() {
    let mut fixture = fixture();
    let out = fixture.dir.path().join("out");
    let options = Options::new(&fixture.stub);
    let error = write(Format::Tar, &fixture.bootable(), &options, &out).unwrap_err();
    assert!(matches!(error, OutputError::NotEfi(Format::Tar)));
    fixture.manifest.segments[0].size += 1;
    let options = Options::new(&fixture.stub);
    let error = write(Format::Uki, &fixture.bootable(), &options, &out).unwrap_err();
    assert!(matches!(error, OutputError::Read(_)), "{error}");
    assert!(!out.exists());
}
