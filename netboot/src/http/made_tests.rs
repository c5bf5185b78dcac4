//! Files that are made for the machine that asks, over loopback.

use std::net::{IpAddr, Ipv4Addr};

use kiln_inventory::{Asker, BootId, Firmware, Phase, Sighting, StoredFacts};

use super::tests::{KERNEL, Rig};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Returns the folder of the boot that a script names.
fn folder(script: &str) -> String {
    let own = script.split_once("/machine/").unwrap().1;
    let (own, _) = own.split_once(".cpio").unwrap();
    format!("/boot/{own}")
}

impl Rig {
    /// Lets the server see a machine at our own address.
    fn seen(&self, firmware: Firmware) {
        let mac = "52:54:00:00:00:01".parse().unwrap();
        let asker = Asker::Firmware;
        let sighting = Sighting { mac, asker, firmware: Some(firmware), uuid: None };
        self.plane.boots.seen(&sighting, None, true, Some(PEER));
    }
}

#[tokio::test]
async fn all_segments_in_one_have_an_exact_length_and_any_range_of_them() {
    let rig = Rig::start().await;
    let script = rig.get("/script/52-54-00-00-00-01.ipxe?firmware=bios").await;
    let folder = folder(str::from_utf8(script.body()).unwrap());
    let kernel = rig.get(&format!("{folder}/kernel")).await;
    assert_eq!(kernel.body().as_ref(), KERNEL);
    let path = format!("{folder}/initrd");
    let whole = rig.get(&path).await;
    assert_eq!(&whole.body()[..6], b"070701", "the machine's own, as it is");
    let manifest = rig.plane.view.artifacts().manifest(&rig.version).unwrap();
    let own = usize::try_from(kiln_builder::output::initrd(&manifest).len()).unwrap();
    assert_eq!(whole.body()[whole.body().len() - own..][..4], b"cpio"[..]);
    let head = rig.send("HEAD", &path, &[], "").await;
    for field in ["content-length", "etag", "cache-control"] {
        assert_eq!(head.headers().get(field), whole.headers().get(field), "{field}");
    }
    assert_eq!(whole.headers()["content-length"], whole.body().len().to_string().as_str());
    assert_eq!(whole.headers()["cache-control"], "no-store");
    for (range, part) in [("bytes=2-5", 2..6), ("bytes=6-", 6..whole.body().len())] {
        let answer = rig.send("GET", &path, &[("range", range)], "").await;
        assert_eq!((answer.status().as_u16(), answer.body()), (206, &whole.body().slice(part)));
    }
    // Neither from elsewhere, nor with another key.
    assert_eq!(rig.get_from([127, 0, 0, 2], &path).await, 404);
    let other = path.replace("/initrd", "0/initrd");
    assert_eq!(rig.get(&other).await.status(), 404);
    let (inventory, _dir) = rig.stop().await;
    let boot = inventory.boots(1).await.unwrap().remove(0);
    let (_, events) = inventory.boot(boot.id).await.unwrap().unwrap();
    let sent: Vec<_> = events.iter().map(|event| (event.phase, event.detail.as_str())).collect();
    assert!(sent.contains(&(Phase::Kernel, "kernel")), "{sent:?}");
    assert!(sent.contains(&(Phase::Segment, "initrd")), "{sent:?}");
}

#[tokio::test]
async fn the_script_that_ipxe_looks_for_is_that_of_the_machine_at_the_address_that_asks() {
    let rig = Rig::start().await;
    for path in ["/autoexec.ipxe", "/loader/autoexec.ipxe"] {
        assert_eq!(rig.get(path).await.status(), 404, "nobody has the address");
    }
    rig.seen(Firmware::UefiX64Http);
    for path in ["/autoexec.ipxe", "/loader/autoexec.ipxe"] {
        let answer = rig.get(path).await;
        let text = str::from_utf8(answer.body()).unwrap();
        assert!(text.starts_with("#!ipxe\n"), "{text}");
        assert!(text.contains("/script/52-54-00-00-00-01.ipxe?firmware=uefi-x64 "), "{text}");
    }
    assert_eq!(rig.get_from([127, 0, 0, 2], "/autoexec.ipxe").await, 404);
    rig.stop().await;
}

#[tokio::test]
async fn a_machine_of_another_kind_gets_no_menu_and_no_file_of_a_board() {
    let rig = Rig::start().await;
    rig.seen(Firmware::UefiX64);
    for path in [
        "/pxelinux.cfg/default",
        "/extlinux/extlinux.conf",
        "/boot.scr.uimg",
        "/grub/grub.cfg",
        "/config.txt",
        "/9ffefdef/cmdline.txt",
        "/uki/52-54-00-00-00-01/uefi-x64.efi",
        "/local-disk",
        "/refused",
    ] {
        assert_eq!(rig.get(path).await.status(), 404, "{path}");
        assert_eq!(rig.send("POST", path, &[], "").await.status(), 404, "{path}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn an_ipxe_that_is_too_old_for_uefi_is_sent_to_ours_where_that_is_newer() {
    let rig = Rig::start().await;
    let old = [("user-agent", "iPXE/1.0.0+git-20190125.36a4c85-5.1")];
    let new = [("user-agent", "iPXE/1.21.1+git20250501.dad20602")];
    for (firmware, agent, sent) in [
        ("uefi-arm64", old, true),
        ("uefi-arm64", new, false),
        // Ours is no better here.
        ("uefi-x64", old, false),
        ("bios", old, false),
    ] {
        let path = format!("/script/52-54-00-00-00-01.ipxe?firmware={firmware}");
        let text = rig.send("GET", &path, &agent, "").await;
        let text = str::from_utf8(text.body()).unwrap();
        let chain = "\nchain --autofree http://127.0.0.1:";
        assert_eq!(text.contains(chain), sent, "{firmware} {agent:?}: {text}");
        assert_eq!(text.contains("/loader/ipxe-arm64.efi"), sent, "{text}");
    }
}

#[tokio::test]
async fn a_machine_that_told_of_too_little_memory_is_warned_of_once_a_boot() {
    let rig = Rig::start().await;
    let machine = rig.plane.view.snapshot().machines().first().unwrap().id;
    for (total, warned) in [(31_u64 << 20, true), (32 << 20, false)] {
        let facts = format!("{{\"memory\":{{\"total\":{total}}}}}");
        let facts = StoredFacts { boot: BootId(1), at: 1, facts };
        rig.inventory.set_facts(machine, &facts).await.unwrap();
        let version = rig.version;
        let told = crate::memory::look_up(&rig.plane.view, machine, &version).await.unwrap();
        assert_eq!(told.is_some(), warned, "{told:?}");
    }
    let facts = "{\"memory\":{\"total\":1048576}}".to_owned();
    let facts = StoredFacts { boot: BootId(1), at: 1, facts };
    rig.inventory.set_facts(machine, &facts).await.unwrap();
    let script = rig.get("/script/52-54-00-00-00-01.ipxe?firmware=bios").await;
    let folder = folder(str::from_utf8(script.body()).unwrap());
    for _ in 0..3 {
        assert_eq!(rig.get(&format!("{folder}/initrd")).await.status(), 200);
    }
    let (inventory, _dir) = rig.stop().await;
    let boot = inventory.boots(1).await.unwrap().remove(0);
    let (_, events) = inventory.boot(boot.id).await.unwrap().unwrap();
    let warnings: Vec<_> = events.iter().filter(|e| e.phase == Phase::Warning).collect();
    assert_eq!(warnings.len(), 1, "{events:?}");
    assert!(warnings[0].detail.contains("65 MiB of memory, and this version needs 96 MiB"));
}
