//! What machines get over HTTP, and by what is made for loaders and sent by TFTP, that are none of ours: retired ones,
//! those that nobody has added, and those that someone ignores.

use std::net::{IpAddr, Ipv4Addr};

use kiln_inventory::{
    Asker, Discovered, DiscoveryState, Firmware, Flag, Glimpse, Group, LoaderChoice, Place,
    Sighting,
};

use super::metadata_tests::told;
use super::tests::Rig;

const MAC: &str = "52-54-00-00-00-01";
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const FIRMWARE: [Firmware; 7] = [
    Firmware::Bios,
    Firmware::UefiX64,
    Firmware::UefiX64Http,
    Firmware::UefiArm64,
    Firmware::UbootArm64,
    Firmware::UbootArm64Http,
    Firmware::RaspberryPi,
];

/// What keeps a machine out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outsider {
    Retired,
    Unknown,
    Ignored,
}

fn seen(firmware: Firmware) -> Sighting {
    let (mac, asker) = (MAC.parse().unwrap(), Asker::Firmware);
    Sighting { mac, asker, firmware: Some(firmware), uuid: None }
}

impl Rig {
    async fn wishes(&self, loader: LoaderChoice) {
        let mut machine = self.inventory.machines().await.unwrap().remove(0);
        machine.spec.loader = Some(loader);
        self.inventory.change_machine(machine.id, &machine.spec, None).await.unwrap();
    }

    async fn keeps_out(&self, outsider: Outsider) {
        let mut machine = self.inventory.machines().await.unwrap().remove(0);
        if outsider == Outsider::Retired {
            machine.spec.flags.insert(Flag::Retired);
            self.inventory.change_machine(machine.id, &machine.spec, None).await.unwrap();
        } else {
            self.inventory.remove_machine(machine.id, None).await.unwrap();
        }
        if outsider == Outsider::Ignored {
            let place = Place::default();
            let sighting = seen(Firmware::UefiX64);
            let glimpse = Glimpse { at: 1, times: 1, sighting, place };
            self.inventory.take_glimpses(&[glimpse], 10).await.unwrap();
            let mut edit = self.inventory.edit().await.unwrap();
            let now = self.inventory.discovered().await.unwrap().remove(0);
            let state = DiscoveryState::Ignored;
            let ignored = Discovered { state, ..now.document.clone() };
            edit.change_discovered(&now, &ignored).await.unwrap();
            edit.commit().await.unwrap();
        }
        self.plane.view.refresh().await.unwrap();
    }
}

#[tokio::test]
async fn nothing_of_a_boot_goes_to_who_is_none_of_ours_by_any_path() {
    for outsider in [Outsider::Retired, Outsider::Unknown, Outsider::Ignored] {
        for loader in [LoaderChoice::Auto, LoaderChoice::Uki, LoaderChoice::Grub] {
            let rig = Rig::start().await;
            rig.wishes(loader).await;
            rig.keeps_out(outsider).await;
            for firmware in FIRMWARE {
                rig.plane.boots.seen(&seen(firmware), None, true, Some(PEER));
                for path in [
                    format!("/script/{MAC}.ipxe?firmware={firmware}"),
                    "/autoexec.ipxe".to_owned(),
                    format!("/uki/{MAC}/{firmware}.efi"),
                    "/boot.scr.uimg".to_owned(),
                    format!("/pxelinux.cfg/01-{MAC}"),
                    "/pxelinux.cfg/default".to_owned(),
                    "/extlinux/extlinux.conf".to_owned(),
                    "/grub/grub.cfg".to_owned(),
                    format!("/grub/grub.cfg-01-{MAC}"),
                    "/config.txt".to_owned(),
                    "/cmdline.txt".to_owned(),
                    "/9ffefdef/start4.elf".to_owned(),
                    "/boot.img".to_owned(),
                    "/boot.sig".to_owned(),
                    "/boot/1/k/kernel".to_owned(),
                    "/boot/1/k/initrd".to_owned(),
                    "/machine/1/k.cpio".to_owned(),
                    format!("/metadata/{MAC}/hostname"),
                    format!("/nocloud/{MAC}/meta-data"),
                    format!("/ignition/{MAC}"),
                ] {
                    let answer = rig.get(&path).await;
                    let text = String::from_utf8_lossy(answer.body());
                    let case = format!("{outsider:?}, {loader:?}, {firmware}, {path}: {text}");
                    assert!(!text.contains(&rig.kernel.hex()), "{case}");
                    assert!(!text.contains("/blob/") && !text.contains("/machine/"), "{case}");
                    assert!(!text.contains("MZ") && !text.contains("quiet"), "{case}");
                    let may_say = path.starts_with("/script/")
                        || ["/autoexec.ipxe", "/boot.scr.uimg"].contains(&path.as_str())
                        || path.starts_with("/grub/");
                    assert!(may_say || !answer.status().is_success(), "{case}");
                }
            }
            rig.stop().await;
        }
    }
}

#[tokio::test]
async fn a_machine_that_is_retired_while_it_boots_gets_no_more() {
    let rig = Rig::start().await;
    let script = rig.get(&format!("/script/{MAC}.ipxe?firmware=uefi-x64")).await;
    let script = String::from_utf8(script.body().to_vec()).unwrap();
    let word = script.split_whitespace().find(|word| word.contains("/machine/")).unwrap();
    let segment = word[word.find("/machine/").unwrap()..].to_owned();
    let folder = segment.strip_suffix(".cpio").unwrap().replace("/machine/", "/boot/");
    let paths = [segment, format!("{folder}/kernel"), format!("{folder}/initrd")];
    for path in &paths {
        assert!(rig.get(path).await.status().is_success(), "{path}");
    }
    rig.keeps_out(Outsider::Retired).await;
    for path in &paths {
        assert!(rig.get(path).await.status().is_client_error(), "{path}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn nothing_writes_to_a_disk_of_a_machine_that_nobody_has_approved() {
    let rig = Rig::start().await;
    let every: Group = serde_json::from_str(
        r#"{"name":"all","selector":"*","settings":{"state-disk":"serial:A","cmdline":"mine"}}"#,
    )
    .unwrap();
    rig.inventory.add(&every).await.unwrap();
    rig.plane.view.refresh().await.unwrap();
    assert_eq!(told(&rig).await["state-disk"], "serial:A", "a machine of ours may");
    rig.keeps_out(Outsider::Unknown).await;
    rig.plane.view.boots_strangers("web".parse().unwrap()).await.unwrap();
    let segment = told(&rig).await;
    assert_eq!(segment["hostname"], "unknown-525400000001", "{segment}");
    assert_eq!(segment.get("state-disk"), None, "{segment}");
    let script = rig.get(&format!("/script/{MAC}.ipxe?firmware=uefi-x64")).await;
    assert!(!String::from_utf8_lossy(script.body()).contains("mine"), "no group is about it");
    // What it says of itself goes to its entry.
    let glimpse =
        Glimpse { at: 1, times: 1, sighting: seen(Firmware::UefiX64), place: Place::default() };
    rig.inventory.take_glimpses(&[glimpse], 10).await.unwrap();
    let path = format!("/agent/{}/facts", segment["boot"]);
    let token = format!("Bearer {}", segment["token"].as_str().unwrap());
    let facts = r#"{"system":{"serial":"S-1"}}"#;
    let answer = rig.send("POST", &path, &[("authorization", &token)], facts).await;
    assert_eq!(answer.status(), 204);
    let entry = rig.inventory.discovered().await.unwrap().remove(0).document;
    assert_eq!(entry.serial.as_deref(), Some("S-1"));
    rig.stop().await;
}
