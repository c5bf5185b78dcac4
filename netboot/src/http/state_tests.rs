//! What a machine that is out of service gets by every way over HTTP, and by what is made for loaders.

use std::net::{IpAddr, Ipv4Addr};

use kiln_inventory::{Asker, Firmware, Flag, NewBoot, Outcome, Sighting};
use kiln_types::Arch;

use super::tests::Rig;
use crate::boots::tests::open_boot;

const MAC: &str = "52-54-00-00-00-01";

impl Rig {
    async fn put_in(&self, flags: &[Flag]) {
        let mut machine = self.inventory.machines().await.unwrap().remove(0);
        machine.spec.flags = flags.iter().copied().collect();
        self.inventory.change_machine(machine.id, &machine.spec, None).await.unwrap();
        self.plane.view.refresh().await.unwrap();
    }

    async fn script(&self) -> String {
        let script = self.get(&format!("/script/{MAC}.ipxe?firmware=uefi-x64")).await;
        String::from_utf8_lossy(script.body()).into_owned()
    }
}

#[tokio::test]
async fn a_retired_machine_gets_no_kernel_by_any_path() {
    let rig = Rig::start().await;
    let fetches = |text: &str| {
        text.lines().any(|line| line.contains("/blob/") || line.contains("kernel http"))
    };
    let before = rig.script().await;
    assert!(before.contains(&rig.kernel.hex()), "{before}");
    rig.put_in(&[Flag::Retired]).await;
    let after = rig.script().await;
    assert!(!after.contains(&rig.kernel.hex()) && !fetches(&after), "{after}");
    assert!(after.contains("is retired"), "it is told why: {after}");
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for firmware in [Firmware::UefiX64, Firmware::UbootArm64, Firmware::RaspberryPi, Firmware::Bios]
    {
        let mac = MAC.parse().unwrap();
        let seen = Sighting { mac, asker: Asker::Firmware, firmware: Some(firmware), uuid: None };
        rig.plane.boots.seen(&seen, None, true, Some(peer));
        for path in [
            format!("/script/{MAC}.ipxe?firmware={firmware}"),
            format!("/uki/{MAC}/uefi-x64.efi"),
            "/pxelinux.cfg/default".to_owned(),
            "/extlinux/extlinux.conf".to_owned(),
            "/grub/grub.cfg".to_owned(),
            "/config.txt".to_owned(),
            "/cmdline.txt".to_owned(),
        ] {
            let answer = rig.get(&path).await;
            let text = String::from_utf8_lossy(answer.body());
            assert!(!text.contains(&rig.kernel.hex()), "{firmware} {path}: {text}");
            assert!(!text.contains("MZ"), "{firmware} {path}");
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_cordoned_machine_stays_at_the_version_of_its_last_healthy_boot() {
    let rig = Rig::start().await;
    rig.put_in(&[Flag::Cordoned]).await;
    let waits = rig.script().await;
    assert!(waits.contains("has not run any version well yet"), "{waits}");
    let machine = rig.inventory.machines().await.unwrap().remove(0);
    let new = NewBoot {
        image: "web:old".parse().ok(),
        version: Some(rig.version),
        arch: Some(Arch::X86_64),
        ..NewBoot::new(machine.id, &*machine.spec.name, MAC.parse().unwrap(), 1)
    };
    let mut boot = open_boot(&rig.inventory, new).await;
    boot.outcome = Outcome::Healthy;
    rig.inventory.update_boot(&boot).await.unwrap();
    rig.plane.view.refresh().await.unwrap();
    let script = rig.script().await;
    assert!(script.contains(&rig.kernel.hex()), "{script}");
    rig.stop().await;
}
