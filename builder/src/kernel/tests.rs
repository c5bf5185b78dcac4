use std::io::Write as _;

use super::*;
use crate::manifest::SegmentCompression;
use crate::tree::{Kind, Node};

fn pe() -> Vec<u8> {
    let mut bytes = vec![0; 0x80];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 0x40;
    bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

fn tree<const N: usize>(files: [(&str, Vec<u8>); N]) -> Tree {
    let mut tree = Tree::new();
    for (name, bytes) in files {
        tree.insert(TreePath::new(name).unwrap(), Node::file(0o644, bytes));
    }
    tree
}

/// An uncompressed kernel with a release and a configuration in it.
fn vmlinux() -> Vec<u8> {
    let mut bytes = b"%s Linux version %s (%s)\0Linux version 6.6.71-linuxkit (a@b) #1\0".to_vec();
    bytes.extend(b"IKCFG_ST");
    bytes.extend(gzip(b"CONFIG_RD_ZSTD=y\nCONFIG_BLK_DEV_INITRD=y\n"));
    bytes.extend(b"IKCFG_ED");
    bytes
}

/// A bzImage with this payload.
fn bz_image(payload: &[u8], release: Option<&str>) -> Vec<u8> {
    let mut bytes = vec![0; 5 * 512];
    bytes[0x1f1] = 4;
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
    if let Some(release) = release {
        bytes[0x20e..0x210].copy_from_slice(&0x200_u16.to_le_bytes());
        bytes[0x400..0x400 + release.len()].copy_from_slice(release.as_bytes());
    }
    bytes[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
    bytes[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
    bytes.extend([0; 16]);
    bytes.extend(payload);
    bytes
}

fn zboot(payload: &[u8]) -> Vec<u8> {
    let mut bytes = pe();
    bytes[4..8].copy_from_slice(b"zimg");
    bytes[8..12].copy_from_slice(&0x80_u32.to_le_bytes());
    bytes[12..16].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
    bytes.extend(payload);
    bytes
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(bytes).unwrap();
    xz.finish().unwrap()
}

#[test]
fn the_release_comes_from_the_name_and_the_stub_from_the_headers() {
    let kernel = |bytes| from_packages(&tree([("boot/vmlinuz-6.12-cloud", bytes)]), "x").unwrap();
    let found = kernel(pe());
    assert_eq!((found.release.as_str(), found.efi_stub), ("6.12-cloud", true));
    let mut broken = pe();
    broken[0x3f] = 0xff;
    assert!(!kernel(broken).efi_stub);
    assert!(!kernel(b"MZ".to_vec()).efi_stub);
}

#[test]
fn a_gzipped_kernel_is_unpacked() {
    let tree = tree([("boot/vmlinuz-1", gzip(&pe()))]);
    assert_eq!(from_packages(&tree, "linux").unwrap().bytes, pe());
}

#[test]
fn a_package_without_a_kernel_is_named() {
    let error = from_packages(&tree([("boot/config-1", Vec::new())]), "linux-doc").unwrap_err();
    assert!(error.to_string().contains("`linux-doc` has 0 kernels"), "{error}");
}

#[test]
fn the_configuration_comes_from_the_package_or_from_any_form_of_the_kernel() {
    let beside = tree([("boot/vmlinuz-1", pe()), ("boot/config-1", b"CONFIG_EFI=y\n".to_vec())]);
    assert_eq!(from_packages(&beside, "x").unwrap().config.unwrap().get("EFI"), Some("y"));
    let inside = vmlinux();
    let packed = [gzip(&inside), zstd::encode_all(&inside[..], 1).unwrap(), xz(&inside)];
    let forms = packed.iter().flat_map(|payload| [bz_image(payload, None), zboot(payload)]);
    for kernel in forms.chain([inside.clone(), gzip(&inside)]) {
        let config = config_of(&kernel).unwrap();
        assert_eq!(config.supports(Feature::ZstdInitrd), Setting::BuiltIn);
    }
    // LZ4 is not known, and what is damaged says nothing.
    assert_eq!(config_of(&bz_image(b"\x02\x21\x4c\x18xyz", None)), None);
    assert_eq!(config_of(&bz_image(&packed[0][..40], None)), None);
}

#[test]
fn a_kernel_says_how_much_memory_it_takes() {
    let memory = |bytes: &[u8]| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        memory_of(file.path()).unwrap()
    };
    let mut kernel = bz_image(&[], None);
    kernel[0x260..0x264].copy_from_slice(&10_000_u32.to_le_bytes());
    assert_eq!(memory(&kernel), 10_000);
    kernel[0x260..0x264].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(memory(&kernel), 5 * kernel.len() as u64);
    let mut image = vec![0; 1000];
    image[0x38..0x3c].copy_from_slice(b"ARM\x64");
    image[16..24].copy_from_slice(&1234_u64.to_le_bytes());
    assert_eq!(memory(&image), 1234);
}

/// A tar as a kernel image has it.
fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(text.len() as u64);
        header.set_cksum();
        tar.append(&header, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn an_image_of_linuxkit_gives_its_kernel_modules_and_microcode() {
    let kernel = bz_image(&gzip(&vmlinux()), Some("6.6.71-lk (a@b) #1"));
    let modules = tar(&[
        ("lib/modules/6.6.71-lk/modules.dep", "old"),
        ("./lib/modules/6.6.71-lk/modules.dep", "a.ko:\n"),
        ("boot/dtb/x.dtb", "tree"),
    ]);
    let image = tree([
        ("kernel", kernel.clone()),
        ("kernel.tar", modules),
        ("intel-ucode.cpio", b"070701".to_vec()),
        ("etc/passwd", b"left out".to_vec()),
    ]);
    let spec = KernelSpec { ucode: Some("intel-ucode.cpio".to_owned()), ..KernelSpec::default() };
    let parts = from_image(&image, &spec).unwrap();
    assert_eq!((parts.release.as_str(), parts.form), ("6.6.71-lk", Form::BzImage));
    assert_eq!((parts.bytes, parts.ucode.unwrap().len()), (kernel, 6));
    let files: Vec<_> = parts
        .modules
        .iter()
        .filter(|(_, node)| !matches!(node.kind, Kind::Dir))
        .map(|(path, _)| {
            (path.as_str(), parts.modules.content(path).unwrap().read_all(99).unwrap())
        })
        .collect();
    assert_eq!(
        files,
        [
            ("boot/dtb/x.dtb", b"tree".to_vec()),
            ("lib/modules/6.6.71-lk/modules.dep", b"a.ko:\n".to_vec())
        ]
    );
    assert_eq!(parts.config.unwrap().supports(Feature::ZstdInitrd), Setting::BuiltIn);
}

#[test]
fn without_a_tar_the_release_comes_from_the_kernel_itself() {
    let spec = KernelSpec { tar: Some("none".to_owned()), ..KernelSpec::default() };
    let image = tree([("kernel", zboot(&gzip(&vmlinux())))]);
    let mut parts = from_image(&image, &spec).unwrap();
    assert_eq!(parts.release, "6.6.71-linuxkit");
    assert!(parts.modules.is_empty() && parts.efi_stub);
    parts.decompress().unwrap();
    assert_eq!((parts.bytes, parts.efi_stub), (vmlinux(), false));
    let error = from_image(&tree([("kernel", pe())]), &spec).unwrap_err();
    assert_eq!(error.to_string(), "`kernel` does not say which release of the kernel it is");
}

#[test]
fn what_an_image_lacks_is_named_with_the_key_that_asks_for_it() {
    let error = |spec: KernelSpec| {
        let image = tree([("vmlinuz", bz_image(&[], Some("1 ")))]);
        from_image(&image, &spec).unwrap_err().to_string()
    };
    assert_eq!(
        error(KernelSpec::default()),
        "the kernel's image has no file `kernel`; `kernel.binary` names it"
    );
    let binary = Some("vmlinuz".to_owned());
    assert_eq!(
        error(KernelSpec { binary: binary.clone(), ..KernelSpec::default() }),
        "the kernel's image has no file `kernel.tar`; `kernel.tar` names it"
    );
    let binary = KernelSpec { binary, tar: Some(String::new()), ..KernelSpec::default() };
    assert_eq!(
        error(KernelSpec { ucode: Some("u".to_owned()), ..binary }),
        "the kernel's image has no file `u`; `kernel.ucode` names it"
    );
}

#[test]
fn a_hostile_tar_of_modules_is_refused() {
    for (name, text) in [("../../etc/passwd", "`..`"), ("a/../../b", "`..`")] {
        let image =
            tree([("kernel", bz_image(&[], Some("1 "))), ("kernel.tar", tar(&[(name, "x")]))]);
        let error = from_image(&image, &KernelSpec::default()).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the kernel's modules in `kernel.tar`");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(text), "{source}");
    }
    let mut cut = tar(&[("a", "long enough to be cut")]);
    cut.truncate(520);
    let image = tree([("kernel", bz_image(&[], Some("1 "))), ("kernel.tar", cut)]);
    assert!(from_image(&image, &KernelSpec::default()).is_err());
}

#[test]
fn damage_to_a_kernel_is_an_error_or_another_kernel_but_never_a_panic() {
    let rounds = std::env::var("KILN_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let samples =
        [bz_image(&gzip(&vmlinux()), Some("6 ")), zboot(&gzip(&vmlinux())), gzip(&vmlinux())];
    let mut state = 1_u64;
    let mut next = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    for _ in 0..rounds {
        for sample in &samples {
            let mut bytes = sample.clone();
            for _ in 0..=next(4) {
                let at = next(bytes.len());
                bytes[at] = u8::try_from(next(256)).unwrap();
            }
            bytes.truncate(next(2 * sample.len()));
            drop(from_image(
                &tree([("kernel", bytes.clone()), ("kernel.tar", bytes)]),
                &KernelSpec::default(),
            ));
        }
    }
}

#[test]
fn an_initrd_is_compressed_as_the_kernel_can_unpack_it() {
    let with = |release: &str, config: &str| {
        let config = KernelConfig::read(config.as_bytes()).unwrap();
        let parts = KernelParts { config, ..parts(release.to_owned(), pe(), None) };
        parts.initrd_compression()
    };
    let both = "CONFIG_BLK_DEV_INITRD=y\nCONFIG_RD_GZIP=y\nCONFIG_RD_ZSTD=y\n";
    assert_eq!(with("6.12", both), SegmentCompression::Zstd);
    assert_eq!(
        with("6.12", "CONFIG_BLK_DEV_INITRD=y\nCONFIG_RD_GZIP=y\n"),
        SegmentCompression::Gzip
    );
    assert_eq!(with("6.12", "CONFIG_BLK_DEV_INITRD=y\n"), SegmentCompression::None);
    // Nothing is known but the release.
    assert_eq!(with("5.10.0-28-amd64", ""), SegmentCompression::Zstd);
    assert_eq!(with("6.1", ""), SegmentCompression::Zstd);
    assert_eq!(with("5.4.302-linuxkit", ""), SegmentCompression::Gzip);
    assert_eq!(with("unknown", ""), SegmentCompression::Gzip);
}

#[test]
fn what_an_image_needs_and_a_kernel_lacks_is_said() {
    let config = "CONFIG_BLK_DEV_INITRD=y\nCONFIG_TMPFS=y\nCONFIG_DEVTMPFS=y\nCONFIG_CGROUPS=y\nCONFIG_MEMCG=y\n\
        CONFIG_CGROUP_PIDS=y\nCONFIG_CGROUP_BPF=y\nCONFIG_PID_NS=y\nCONFIG_NET_NS=y\nCONFIG_UTS_NS=y\nCONFIG_IPC_NS=y\n\
        CONFIG_USER_NS=y\nCONFIG_SECCOMP=y\nCONFIG_SECCOMP_FILTER=y\nCONFIG_OVERLAY_FS=m\nCONFIG_SQUASHFS=m\n\
        CONFIG_SQUASHFS_ZSTD=y\n";
    let config = KernelConfig::read(config.as_bytes()).unwrap();
    let mut parts = KernelParts { config, ..parts("6.12".to_owned(), pe(), None) };
    assert_eq!(parts.shortcomings(false), Vec::<String>::new());
    let packed = parts.shortcomings(true);
    assert_eq!(packed.len(), 1, "{packed:?}");
    assert!(packed[0].starts_with("kernel 6.12 has no loop devices"), "{packed:?}");
    parts.config = None;
    assert_eq!(parts.shortcomings(true), Vec::<String>::new());
}

#[test]
fn fuzzed_kernels_and_their_tars_are_read_or_refused() {
    let samples =
        [bz_image(&gzip(&vmlinux()), Some("6 ")), zboot(&gzip(&vmlinux())), gzip(&vmlinux()), pe()];
    let modules = tar(&[("lib/modules/6/modules.dep", "a.ko:\n")]);
    let mut samples: Vec<&[u8]> = samples.iter().map(Vec::as_slice).collect();
    samples.push(&modules);
    let kernel = bz_image(&gzip(&vmlinux()), Some("6 "));
    kiln_fuzz::check("kernel", &samples, |bytes| {
        for files in [
            [("kernel", bytes.to_vec()), ("kernel.tar", modules.clone())],
            [("kernel", kernel.clone()), ("kernel.tar", bytes.to_vec())],
        ] {
            if let Ok(mut parts) = from_image(&tree(files), &KernelSpec::default()) {
                let _ = parts.decompress();
            }
        }
    });
}
