use std::io::Write as _;

use super::*;
use crate::tree::Node;

fn needs(names: &[&'static str]) -> Needs {
    Needs { names: names.to_vec(), ..Needs::default() }
}

/// Builds the smallest ELF file that has a `.modinfo` section: header, three sections, no code.
pub(crate) fn module(modinfo: &[&str]) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let info: Vec<u8> = modinfo.iter().flat_map(|s| s.bytes().chain([0])).collect();
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let (names_at, info_at) = (64_u64, 64 + names.len() as u64);
    let headers_at = (info_at + info.len() as u64).next_multiple_of(8);
    elf.extend(1_u16.to_le_bytes()); // relocatable
    elf.extend(62_u16.to_le_bytes()); // x86_64
    elf.extend(1_u32.to_le_bytes());
    elf.extend([0; 16]);
    elf.extend(headers_at.to_le_bytes());
    elf.extend([0; 4]);
    for n in [64_u16, 0, 0, 64, 3, 2] {
        elf.extend(n.to_le_bytes());
    }
    elf.extend(names);
    elf.extend(&info);
    elf.resize(usize::try_from(headers_at).unwrap(), 0);
    for (name, kind, at, len) in [
        (0_u32, 0_u32, 0, 0),
        (1, 1, info_at, info.len() as u64),
        (10, 3, names_at, names.len() as u64),
    ] {
        elf.extend(name.to_le_bytes());
        elf.extend(kind.to_le_bytes());
        for n in [0, 0, at, len, 0, 1, 0] {
            elf.extend(u64::to_le_bytes(n));
        }
    }
    elf
}

fn package() -> Tree {
    let mut tree = Tree::new();
    let mut add = |file: &str, bytes: Vec<u8>| {
        let path = TreePath::new(&format!("usr/lib/modules/6/{file}")).unwrap();
        tree.insert(path, Node::file(0o644, bytes));
    };
    add("kernel/drivers/net/virtio_net.ko", module(&["alias=virtio:d1v*", "depends=net-failover"]));
    add("kernel/drivers/net/net_failover.ko", module(&["depends=failover"]));
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&module(&["depends="])).unwrap();
    add("kernel/net/core/failover.ko.xz", xz.finish().unwrap());
    add("kernel/fs/overlayfs/overlay.ko", module(&["depends=", "softdep=pre: crc99 sound-core"]));
    add("kernel/sound/sound-core.ko", module(&["depends="]));
    add("kernel/sound/other.ko", module(&["depends="]));
    add("modules.builtin", b"kernel/drivers/virtio/virtio_pci.ko\n".to_vec());
    tree
}

fn gather(package: &Tree, selection: &ModuleSelection) -> Result<Modules, ModulesError> {
    collect(package, "6", selection, &Needs::default(), &std::env::temp_dir())
}

fn text(modules: &Modules, file: &str) -> String {
    let path = TreePath::new(&format!("lib/modules/6/{file}")).unwrap();
    let bytes = modules.tree.content(&path).unwrap().read_all(1 << 20).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn auto_takes_what_is_needed_and_all_below_it() {
    let modules = gather(&package(), &ModuleSelection::Auto).unwrap();
    assert_eq!(
        text(&modules, "modules.dep"),
        "kernel/net/core/failover.ko:\n\
         kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko\n\
         kernel/fs/overlayfs/overlay.ko:\n\
         kernel/sound/sound-core.ko:\n\
         kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko\n"
    );
    assert_eq!(text(&modules, "modules.alias"), "alias virtio:d1v* virtio_net\n");
    assert_eq!(text(&modules, "modules.softdep"), "softdep overlay pre: crc99 sound-core\n");
    assert_eq!(modules.at_start, ["overlay"]);
    let xz = TreePath::new("lib/modules/6/kernel/net/core/failover.ko").unwrap();
    assert!(modules.tree.content(&xz).unwrap().read_all(1 << 20).unwrap().starts_with(b"\x7fELF"));
}

#[test]
fn network_takes_no_disks_and_what_is_left_out_takes_along_what_needs_it() {
    let mut package = package();
    let disk = TreePath::new("usr/lib/modules/6/kernel/drivers/ata/ahci.ko").unwrap();
    package.insert(disk, Node::file(0o644, module(&["depends="])));
    let named = |names: &[&str]| {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        gather(&package, &ModuleSelection::Named(names))
    };
    let all = text(&named(&["auto"]).unwrap(), "modules.dep");
    assert_eq!(all, text(&gather(&package, &ModuleSelection::Auto).unwrap(), "modules.dep"));
    let network = named(&["network"]).unwrap();
    assert_eq!(network.at_start, ["overlay"]);
    let network = text(&network, "modules.dep");
    assert!(all.contains("ahci.ko") && !network.contains("ahci.ko"), "{network}");
    assert!(network.contains("virtio_net.ko") && network.contains("overlay.ko"), "{network}");
    let without = text(&named(&["network", "-failover"]).unwrap(), "modules.dep");
    assert!(without.contains("overlay.ko") && !without.contains("net"), "{without}");
    let error = named(&["network", "-nothing"]).unwrap_err().to_string();
    assert_eq!(error, "kernel 6 has no module `nothing`");
}

#[test]
fn what_the_image_needs_cannot_be_left_out() {
    let names = ["auto", "-failover"].map(str::to_owned).to_vec();
    let selection = ModuleSelection::Named(names);
    let dir = std::env::temp_dir();
    let error = collect(&package(), "6", &selection, &needs(&["virtio-net"]), &dir).unwrap_err();
    assert!(error.to_string().contains("leaves out `virtio-net`, or what that needs"), "{error}");
}

#[test]
fn a_soft_dependency_may_name_what_modules_serve() {
    let mut package = package();
    let mut add = |file: &str, modinfo: &[&str]| {
        let path = TreePath::new(&format!("usr/lib/modules/6/kernel/{file}")).unwrap();
        package.insert(path, Node::file(0o644, module(modinfo)));
    };
    add("fs/ext4/ext4.ko", &["softdep=pre: crypto-crc32c virtio_pci post: crypto-none"]);
    add("lib/crc32c-generic.ko", &["alias=crypto-crc32c"]);
    add("lib/crc32c-fast.ko", &["alias=crypto-crc32c", "depends=failover"]);
    let modules = gather(&package, &ModuleSelection::Named(vec!["ext4".to_owned()])).unwrap();
    assert_eq!(
        text(&modules, "modules.softdep"),
        "softdep ext4 pre: crc32c_fast crc32c_generic virtio_pci post: crypto-none\n"
    );
    let files = text(&modules, "modules.dep");
    for file in ["crc32c-fast.ko: kernel/net/core/failover.ko\n", "crc32c-generic.ko:\n"] {
        assert!(files.contains(file), "{files}");
    }
}

#[test]
fn a_named_module_may_be_built_in_but_must_exist() {
    let named = |names: &[&str]| {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        gather(&package(), &ModuleSelection::Named(names))
    };
    let modules = named(&["net-failover", "virtio_pci"]).unwrap();
    assert_eq!(modules.at_start, ["net_failover"]);
    assert_eq!(named(&["nothing"]).unwrap_err().to_string(), "kernel 6 has no module `nothing`");
    assert!(gather(&package(), &ModuleSelection::None).unwrap().tree.is_empty());
}

#[test]
fn what_the_image_needs_comes_along_whatever_is_selected() {
    let needed = |selection| {
        let needs = needs(&["overlay", "virtio_pci", "not-there"]);
        let dir = std::env::temp_dir();
        let modules = collect(&package(), "6", &selection, &needs, &dir).unwrap();
        assert!(text(&modules, "modules.dep").contains("overlay.ko:"), "{selection:?}");
        modules.at_start
    };
    assert_eq!(needed(ModuleSelection::None), ["overlay"]);
    let named = ModuleSelection::Named(vec!["net_failover".to_owned()]);
    assert_eq!(needed(named), ["net_failover", "overlay"]);
}

#[test]
fn an_image_with_state_has_ext4_at_start_and_with_auto_more_drivers_of_disks() {
    let mut tree = package();
    for file in ["fs/ext4/ext4.ko", "drivers/mmc/core/mmc_block.ko"] {
        let path = TreePath::new(&format!("usr/lib/modules/6/kernel/{file}")).unwrap();
        tree.insert(path, Node::file(0o644, module(&["depends="])));
    }
    let (with, without, dir) = (Needs::new(false, true), Needs::default(), std::env::temp_dir());
    for (selection, needs, card, at_start) in [
        (ModuleSelection::Auto, &with, true, vec!["overlay", "ext4"]),
        (ModuleSelection::Auto, &without, false, vec!["overlay"]),
        (ModuleSelection::None, &with, false, vec!["ext4"]),
    ] {
        let modules = collect(&tree, "6", &selection, needs, &dir).unwrap();
        assert_eq!(modules.at_start, at_start, "{selection:?}");
        let files = text(&modules, "modules.dep");
        assert_eq!(files.contains("mmc_block.ko:"), card, "{selection:?}");
    }
}

#[test]
fn names_may_stand_beside_auto() {
    let names = ["other", "auto"].map(str::to_owned).to_vec();
    let modules = gather(&package(), &ModuleSelection::Named(names)).unwrap();
    assert_eq!(modules.at_start, ["other", "overlay"]);
    let files = text(&modules, "modules.dep");
    for file in ["sound/other.ko:", "net/virtio_net.ko:", "overlayfs/overlay.ko:"] {
        assert!(files.contains(file), "{files}");
    }
}

/// What a kernel image brings: the modules of the package and a file beside them, at this place.
fn image(base: &str, plain: bool) -> Tree {
    let mut tree = Tree::new();
    for (path, node) in package() {
        let file = path.as_str().strip_prefix("usr/lib/modules/").map(str::to_owned);
        let packed = path.as_str().ends_with(".xz");
        if let Some(file) = file.filter(|_| !(plain && packed)) {
            tree.insert(TreePath::new(&format!("{base}{file}")).unwrap(), node);
        }
    }
    tree.insert(TreePath::new("lib/firmware/blob").unwrap(), Node::file(0o644, *b"blob"));
    tree
}

#[test]
fn all_that_a_kernel_image_brings_is_kept_with_its_own_lists() {
    let mut tree = image("lib/modules/", true);
    for list in ["modules.dep", "modules.alias"] {
        let path = TreePath::new(&format!("lib/modules/6/{list}")).unwrap();
        tree.insert(path, Node::file(0o644, *b"its own\n"));
    }
    let before = tree.len();
    let modules =
        complete(tree, "6", None, &needs(&["loop", "sound-core"]), &std::env::temp_dir()).unwrap();
    assert_eq!(modules.tree.len(), before);
    assert_eq!(text(&modules, "modules.dep"), "its own\n");
    assert_eq!(modules.at_start, ["overlay", "sound_core"]);
}

#[test]
fn lists_are_written_where_a_kernel_image_has_none_or_packs_its_modules() {
    for (base, plain) in
        [("lib/modules/", true), ("lib/modules/", false), ("usr/lib/modules/", true)]
    {
        let tree = image(base, plain);
        let modules = complete(tree, "6", None, &Needs::default(), &std::env::temp_dir()).unwrap();
        assert!(text(&modules, "modules.dep").contains("kernel/sound/other.ko:\n"));
        let names: Vec<_> = modules.tree.iter().map(|(path, _)| path.as_str()).collect();
        assert!(names.contains(&"lib/firmware/blob"), "{names:?}");
        assert!(!names.iter().any(|name| name.ends_with(".xz")), "{names:?}");
        assert!(!names.contains(&"usr/lib/modules/6"), "{names:?}");
    }
}

#[test]
fn modules_of_a_kernel_image_can_be_selected() {
    let dir = std::env::temp_dir();
    let named = ModuleSelection::Named(vec!["other".to_owned()]);
    let modules =
        complete(image("lib/modules/", false), "6", Some(&named), &Needs::default(), &dir).unwrap();
    assert_eq!(text(&modules, "modules.dep"), "kernel/sound/other.ko:\n");
    assert_eq!(modules.at_start, ["other"]);
    let none = ModuleSelection::None;
    let modules =
        complete(image("lib/modules/", false), "6", Some(&none), &Needs::default(), &dir).unwrap();
    assert!(!modules.tree.iter().any(|(path, _)| path.as_str().ends_with(".ko")));
    assert!(modules.tree.contains(&TreePath::new("lib/firmware/blob").unwrap()));
}

#[test]
fn a_kernel_image_without_modules_stays_without() {
    let modules =
        complete(Tree::new(), "6", None, &Needs::new(true, false), &std::env::temp_dir()).unwrap();
    assert!(modules.tree.is_empty());
    assert!(modules.at_start.is_empty());
}

#[test]
fn modules_are_unpacked_whatever_they_are_packed_with() {
    let mut package = package();
    let elf = module(&["depends="]);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&elf).unwrap();
    let zst = zstd::encode_all(&elf[..], 1).unwrap();
    for (file, bytes) in [("a.ko.gz", gz.finish().unwrap()), ("b.ko.zst", zst)] {
        let path = TreePath::new(&format!("usr/lib/modules/6/kernel/fs/{file}")).unwrap();
        package.insert(path, Node::file(0o644, bytes));
    }
    let names = ["a", "b"].map(str::to_owned).to_vec();
    let modules = gather(&package, &ModuleSelection::Named(names)).unwrap();
    for file in ["a.ko", "b.ko"] {
        let path = TreePath::new(&format!("lib/modules/6/kernel/fs/{file}")).unwrap();
        assert_eq!(modules.tree.content(&path).unwrap().read_all(1 << 20).unwrap(), elf);
    }
}

#[test]
fn a_full_disk_is_told_in_one_sentence() {
    let mut package = package();
    let mut large = module(&["depends="]);
    large.resize(2 << 20, 0);
    let path = TreePath::new("usr/lib/modules/6/kernel/fs/overlayfs/overlay.ko").unwrap();
    package.insert(path, Node::file(0o644, large));
    crate::disk::with_small_disk(1 << 20, |dir| {
        let text = collect(&package, "6", &ModuleSelection::Auto, &Needs::default(), dir)
            .unwrap_err()
            .to_string();
        assert!(
            text.starts_with("no space is left on the disk to unpack kernel modules in "),
            "{text}"
        );
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);
    });
}

#[test]
fn a_file_that_is_no_module_is_named() {
    let mut package = package();
    let path = TreePath::new("usr/lib/modules/6/kernel/fs/overlayfs/overlay.ko").unwrap();
    package.insert(path, Node::file(0o644, *b"junk"));
    let error = gather(&package, &ModuleSelection::Auto).unwrap_err();
    assert!(error.to_string().ends_with("overlay.ko` is not a kernel module"), "{error}");
}

#[test]
fn the_firmware_that_chosen_modules_declare_is_known() {
    let mut package = package();
    let mut add = |file: &str, modinfo: &[&str]| {
        let path = TreePath::new(&format!("usr/lib/modules/6/kernel/{file}")).unwrap();
        package.insert(path, Node::file(0o644, module(modinfo)));
    };
    add("drivers/net/card.ko", &["firmware=card/a.bin", "depends=bus", "firmware=card/b.bin"]);
    add("drivers/bus.ko", &["firmware=bus.fw"]);
    add("drivers/unused.ko", &["firmware=unused.fw"]);
    let modules = gather(&package, &ModuleSelection::Named(vec!["card".to_owned()])).unwrap();
    let of = |declared: &Declared, module: &str| declared.modules.get(module).cloned();
    assert_eq!(of(&modules.declared, "card").unwrap(), ["card/a.bin", "card/b.bin"]);
    assert_eq!(of(&modules.declared, "bus").unwrap(), ["bus.fw"]);
    assert_eq!(of(&modules.declared, "unused"), None);
    assert_eq!(of(&declared(&package, "6").unwrap(), "unused").unwrap(), ["unused.fw"]);
}

#[test]
fn fuzzed_modules_are_read_or_refused() {
    let whole = module(&["depends=a,b", "alias=pci:v*", "softdep=pre: c", "firmware=x.bin"]);
    kiln_fuzz::check("module", &[&whole], |bytes| {
        if let Ok(info) = ModuleInfo::parse(bytes) {
            assert!(info.soft_names().count() <= bytes.len());
        }
    });
}
