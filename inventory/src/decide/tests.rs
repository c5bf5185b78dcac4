use kiln_types::{Digest, Mac};

use super::*;
use crate::{Artifact, MachineId, NewMachine};

pub(super) const MAC: Mac = Mac::new([0x52, 0x54, 0, 0, 0, 1]);
pub(super) const FIRMWARE: [Option<Firmware>; 10] = [
    None,
    Some(Firmware::Bios),
    Some(Firmware::UefiX64),
    Some(Firmware::UefiX64Http),
    Some(Firmware::UefiArm64),
    Some(Firmware::UefiArm64Http),
    Some(Firmware::UbootArm64),
    Some(Firmware::RaspberryPi),
    Some(Firmware::Other(6)),
    Some(Firmware::Other(27)),
];

pub(super) fn version(arch: Arch, efi_stub: bool) -> Arc<ImageVersion> {
    let byte = if arch == Arch::X86_64 { 0xaa } else { 0xbb };
    let artifact = |name: &str| Artifact {
        name: name.to_owned(),
        digest: Digest::from_bytes([byte; 32]),
        size: 7,
    };
    Arc::new(ImageVersion {
        version: Digest::from_bytes([byte; 32]),
        kernel: artifact("kernel"),
        efi_stub,
        segments: vec![artifact("init"), artifact("web")],
        cmdline: "console=ttyS0 ".to_owned(),
    })
}

pub(super) fn machine(arch: Option<Arch>, image: Option<&str>) -> Arc<Machine> {
    Arc::new(Machine {
        id: MachineId(1),
        revision: 1,
        spec: NewMachine {
            arch,
            image: image.map(|image| image.parse().unwrap()),
            cmdline: "quiet".to_owned(),
            ..NewMachine::new("n1", [MAC])
        },
    })
}

pub(super) fn snapshot(
    machine: Option<Arc<Machine>>,
    built: &[(&str, Arch, bool)],
    policy: UnknownMachines,
) -> Snapshot {
    let mut images = BTreeMap::<ImageRef, BTreeMap<_, _>>::new();
    for (image, arch, stub) in built {
        images.entry(image.parse().unwrap()).or_default().insert(*arch, version(*arch, *stub));
    }
    Snapshot::new(machine.into_iter().collect(), images, policy)
}

pub(super) fn sighting(asker: Asker, firmware: Option<Firmware>) -> Sighting {
    Sighting { mac: MAC, asker, firmware, uuid: None }
}

pub(super) fn word(plan: &Plan) -> &'static str {
    match plan {
        Plan::Boot(_) => "boot",
        Plan::Address => "address",
        Plan::LocalDisk => "local-disk",
        Plan::Hold => "hold",
        Plan::Refuse => "refuse",
        Plan::Ignore => "ignore",
    }
}

/// Everything the table below varies.
struct Case {
    machine: Option<Arc<Machine>>,
    built: &'static [(&'static str, Arch, bool)],
    asker: Asker,
    firmware: Option<Firmware>,
    plan: &'static str,
    last: &'static str,
}

#[test]
fn every_branch_has_its_plan_and_its_reason() {
    use Arch::{Arm64, X86_64};
    use Asker::{Firmware as Rom, Ipxe, System};
    use Firmware::{Bios, Other, UefiArm64, UefiX64, UefiX64Http};
    const X64: &[(&str, Arch, bool)] = &[("demo", X86_64, true)];
    const NO_STUB: &[(&str, Arch, bool)] = &[("demo", X86_64, false)];
    const NO_STUB_ARM: &[(&str, Arch, bool)] = &[("demo", Arm64, false)];
    const BOTH: &[(&str, Arch, bool)] = &[("demo", X86_64, true), ("demo", Arm64, true)];
    const EDGE: &[(&str, Arch, bool)] = &[("demo:edge", X86_64, true), ("demo:old", Arm64, true)];
    let demo = || Some(machine(None, Some("demo")));
    let only = |arch| Some(machine(Some(arch), Some("demo")));
    let case = |machine, built, asker, firmware, plan, last| Case {
        machine,
        built,
        asker,
        firmware,
        plan,
        last,
    };
    let selected = "image `demo` for x86_64 is version aaaaaaaaaaaa";
    let selected_arm = "image `demo` for arm64 is version bbbbbbbbbbbb";
    let system = "an operating system asks, not firmware or a loader, so it gets an address only";
    let type_6 = "firmware type 6 (32-bit UEFI) is not supported; Kiln boots BIOS and UEFI of x86_64, \
                  and UEFI, U-Boot and Raspberry Pi of arm64";
    let not_told = "the firmware does not tell what it is (DHCP option 93), so no loader can be chosen; \
                    switch it to PXE or HTTP Boot of UEFI";
    let no_image = "machine `n1` has no image to run; give it one with `kiln machine set n1 --image IMAGE`, \
         or give one to a group of it";
    let no_stub = "the kernel of image `demo` for x86_64 has no EFI stub, so UEFI cannot start it; \
                   use a kernel that is built with CONFIG_EFI_STUB";
    let cases = [
        case(demo(), X64, Rom, Some(Bios), "boot", selected),
        case(demo(), X64, Rom, Some(UefiX64Http), "boot", selected),
        case(demo(), X64, Ipxe, Some(UefiX64), "boot", selected),
        case(demo(), BOTH, Ipxe, Some(UefiArm64), "boot", selected_arm),
        case(only(Arm64), BOTH, Ipxe, None, "boot", selected_arm),
        case(demo(), X64, Ipxe, None, "boot", selected),
        case(demo(), NO_STUB, Rom, Some(Bios), "boot", selected),
        case(demo(), NO_STUB, Ipxe, None, "boot", selected),
        case(demo(), NO_STUB, Rom, Some(UefiX64), "refuse", no_stub),
        case(
            demo(),
            NO_STUB_ARM,
            Ipxe,
            None,
            "refuse",
            "the kernel of image `demo` for arm64 has no EFI stub, so UEFI cannot start it; \
             use a kernel that is built with CONFIG_EFI_STUB",
        ),
        case(
            demo(),
            BOTH,
            Ipxe,
            None,
            "refuse",
            "the loader does not tell its architecture and image `demo` is built for several; \
             set the architecture of machine `n1`",
        ),
        case(
            demo(),
            X64,
            Rom,
            Some(UefiArm64),
            "refuse",
            "image `demo` has no arm64 version; build one with `kiln build demo.yml --arch arm64`",
        ),
        case(
            only(X86_64),
            BOTH,
            Rom,
            Some(UefiArm64),
            "refuse",
            "machine `n1` is set to x86_64, but its firmware is uefi-arm64 and runs arm64; \
             correct the architecture of the machine or its MAC address",
        ),
        case(demo(), X64, Rom, Some(Other(6)), "refuse", type_6),
        case(demo(), X64, Ipxe, Some(Other(6)), "refuse", type_6),
        case(demo(), X64, Rom, None, "refuse", not_told),
        case(Some(machine(None, None)), X64, Rom, Some(Bios), "hold", no_image),
        case(Some(machine(None, None)), X64, Ipxe, None, "hold", no_image),
        case(
            demo(),
            &[],
            Ipxe,
            Some(Bios),
            "hold",
            "image `demo` is not built; build it with `kiln build demo.yml`",
        ),
        case(
            demo(),
            EDGE,
            Rom,
            Some(Bios),
            "hold",
            "image `demo` has no channel `latest`; it has edge, old",
        ),
        case(demo(), X64, System, None, "address", system),
        case(None, X64, System, None, "address", system),
    ];
    for Case { machine, built, asker, firmware, plan, last } in cases {
        let decision =
            decide(&snapshot(machine, built, UnknownMachines::Ignore), &sighting(asker, firmware));
        let context = format!("{built:?} {asker:?} {firmware:?}: {decision:#?}");
        assert_eq!(word(&decision.plan), plan, "{context}");
        assert_eq!(decision.reasons.last().unwrap().to_string(), last, "{context}");
    }
}

#[test]
fn unknown_machines_get_what_the_settings_say() {
    use UnknownMachines::{Hold, Ignore};
    for (policy, asker, firmware, plan) in [
        (Ignore, Asker::Firmware, Some(Firmware::Bios), "ignore"),
        (Ignore, Asker::Ipxe, None, "ignore"),
        (Ignore, Asker::System, None, "address"),
        (Hold, Asker::Firmware, Some(Firmware::Bios), "hold"),
        (Hold, Asker::Ipxe, Some(Firmware::Other(27)), "hold"),
        (Hold, Asker::Firmware, Some(Firmware::Other(27)), "refuse"),
        (Hold, Asker::Firmware, None, "refuse"),
        (Hold, Asker::System, None, "address"),
    ] {
        let decision = decide(&snapshot(None, &[], policy), &sighting(asker, firmware));
        assert_eq!(word(&decision.plan), plan, "{policy:?} {asker:?} {firmware:?}");
        assert_eq!(
            decision.reasons[0].to_string(),
            "no machine has an interface 52:54:00:00:00:01; \
             add it with `kiln machine add NAME --mac 52:54:00:00:00:01 --image IMAGE`"
        );
        assert_eq!(decision.machine, None);
    }
}

#[test]
fn the_arguments_of_the_machine_come_after_those_of_the_image() {
    let snapshot = snapshot(
        Some(machine(None, Some("demo"))),
        &[("demo", Arch::X86_64, true)],
        UnknownMachines::Ignore,
    );
    let decision = decide(&snapshot, &sighting(Asker::Ipxe, Some(Firmware::Bios)));
    let Plan::Boot(plan) = decision.plan else { panic!("{:?}", decision.plan) };
    assert_eq!(plan.cmdline, "console=ttyS0 quiet");
    assert_eq!(plan.segments.len(), 2);
    assert_eq!(decision.machine.unwrap().spec.name, "n1");
}

/// All inputs there are, up to names: what a machine must never get is checked for each of them.
#[test]
fn no_input_at_all_boots_a_wrong_architecture() {
    let maybe_arch = [None, Some(Arch::X86_64), Some(Arch::Arm64)];
    let machines = maybe_arch
        .iter()
        .flat_map(|arch| [None, Some("demo"), Some("gone")].map(|image| Some((*arch, image))))
        .chain([None]);
    let mut boots = 0;
    for who in machines {
        for built in 0..9 {
            let built: Vec<_> = [(Arch::X86_64, built % 3), (Arch::Arm64, built / 3)]
                .into_iter()
                .filter(|(_, state)| *state > 0)
                .map(|(arch, state)| ("demo", arch, state == 2))
                .collect();
            for policy in [UnknownMachines::Ignore, UnknownMachines::Hold] {
                let who_machine = who.map(|(arch, image)| machine(arch, image));
                let snapshot = snapshot(who_machine, &built, policy);
                for asker in [Asker::Firmware, Asker::Ipxe, Asker::System] {
                    for firmware in FIRMWARE {
                        let sighting = sighting(asker, firmware);
                        let decision = decide(&snapshot, &sighting);
                        let context = format!("{who:?} {built:?} {sighting:?} {decision:#?}");
                        assert!(!decision.reasons.is_empty(), "{context}");
                        let Plan::Boot(plan) = &decision.plan else { continue };
                        boots += 1;
                        let (wanted, image) = who.expect("only known machines boot");
                        assert_eq!(image, Some("demo"), "{context}");
                        assert!(wanted.is_none_or(|arch| arch == plan.arch), "{context}");
                        assert!(sighting.arch().is_none_or(|arch| arch == plan.arch), "{context}");
                        assert!(!matches!(firmware, Some(Firmware::Other(_))), "{context}");
                        assert_ne!(asker, Asker::System, "{context}");
                        assert_eq!(plan.version, version(plan.arch, true).version, "{context}");
                        let stub = built.iter().any(|b| b.1 == plan.arch && b.2);
                        assert!(stub || !firmware.is_some_and(Firmware::is_uefi), "{context}");
                    }
                }
            }
        }
    }
    assert!(boots > 100, "the walk reaches real boots: {boots}");
}

#[test]
fn a_machine_waits_for_an_image_that_the_server_builds_and_is_told_why_it_failed() {
    let mut snapshot = snapshot(Some(machine(None, Some("web"))), &[], UnknownMachines::Ignore);
    let error = || "web.yml:3:5: unknown key".to_owned();
    for (bake, text) in [
        (Bake::Waiting, "image `web` for arm64 waits for its turn to be built"),
        (Bake::Building, "image `web` for arm64 is being built"),
        (
            Bake::Failed { error: error() },
            "image `web` for arm64 could not be built: web.yml:3:5: unknown key",
        ),
    ] {
        snapshot.bakes = [("web".to_owned(), [(Arch::Arm64, bake)].into())].into();
        let arm64 = decide(&snapshot, &sighting(Asker::Ipxe, Some(Firmware::UefiArm64)));
        assert_eq!(arm64.plan, Plan::Hold);
        assert_eq!(arm64.reasons.last().unwrap().to_string(), text);
        // Nobody builds it for the other architecture.
        let x86_64 = decide(&snapshot, &sighting(Asker::Ipxe, Some(Firmware::UefiX64)));
        assert!(matches!(x86_64.reasons.last(), Some(Reason::NotBuilt { .. })));
    }
}

#[test]
fn a_build_of_latest_is_no_reason_to_wait_for_another_channel_nor_to_withhold_what_is_there() {
    let bakes = |mut snapshot: Snapshot| {
        let bakes = [(Arch::X86_64, Bake::Building), (Arch::Arm64, Bake::Building)];
        snapshot.bakes = [("web".to_owned(), bakes.into())].into();
        snapshot
    };
    let edge = snapshot(Some(machine(None, Some("web:edge"))), &[], UnknownMachines::Ignore);
    let decision = decide(&bakes(edge), &sighting(Asker::Ipxe, Some(Firmware::UefiX64)));
    assert!(matches!(decision.reasons.last(), Some(Reason::NotBuilt { .. })));
    let built = [("web", Arch::X86_64, true)];
    let half = bakes(snapshot(Some(machine(None, Some("web"))), &built, UnknownMachines::Ignore));
    let there = decide(&half, &sighting(Asker::Ipxe, Some(Firmware::UefiX64)));
    assert_eq!(word(&there.plan), "boot");
    let missing = decide(&half, &sighting(Asker::Ipxe, Some(Firmware::UefiArm64)));
    assert_eq!(word(&missing.plan), "hold");
}

fn wishing(loader: LoaderChoice, boot: BootFrom) -> Arc<Machine> {
    let mut machine = Machine::clone(&machine(None, Some("demo")));
    machine.spec.loader = Some(loader);
    machine.spec.boot = Some(boot);
    Arc::new(machine)
}

#[test]
fn the_loader_follows_the_wish_where_the_firmware_can_and_the_firmware_where_it_is_one() {
    use Firmware::{Bios, RaspberryPi, UbootArm64, UefiArm64, UefiX64, UefiX64Http};
    const BOTH: &[(&str, Arch, bool)] =
        &[("demo", Arch::X86_64, true), ("demo", Arch::Arm64, true)];
    let table = [
        (LoaderChoice::Auto, UefiX64, Loader::Ipxe, "version aaaaaaaaaaaa"),
        (LoaderChoice::Uki, UefiX64, Loader::Uki, "by UKI, as the settings of the machine say"),
        (LoaderChoice::Uki, UefiX64Http, Loader::Uki, "by UKI, as the settings"),
        (LoaderChoice::Uki, UefiArm64, Loader::Uki, "by UKI, as the settings"),
        (LoaderChoice::Grub, UefiX64, Loader::Grub, "by shim and GRUB, as the settings"),
        (LoaderChoice::Uki, Bios, Loader::Ipxe, "needs UEFI, which bios is not"),
        (LoaderChoice::Ipxe, UbootArm64, Loader::UBoot, "by U-Boot, as its firmware wants it"),
        (LoaderChoice::Auto, RaspberryPi, Loader::RaspberryPi, "by Raspberry Pi, as its firmware"),
    ];
    for (choice, firmware, loader, last) in table {
        let snapshot =
            snapshot(Some(wishing(choice, BootFrom::Net)), BOTH, UnknownMachines::Ignore);
        let decision = decide(&snapshot, &sighting(Asker::Firmware, Some(firmware)));
        assert_eq!(decision.loader, loader, "{choice} on {firmware}");
        let said = decision.reasons.last().map(ToString::to_string).unwrap_or_default();
        assert!(said.contains(last), "{choice} on {firmware}: {said}");
        // A loader that runs already stays.
        let running = decide(&snapshot, &sighting(Asker::Ipxe, Some(firmware)));
        assert!(matches!(running.plan, Plan::Boot(_)), "{firmware}");
    }
    let waits =
        snapshot(Some(wishing(LoaderChoice::Uki, BootFrom::Net)), &[], UnknownMachines::Ignore);
    let decision = decide(&waits, &sighting(Asker::Firmware, Some(UefiX64)));
    assert_eq!((word(&decision.plan), decision.loader), ("hold", Loader::Ipxe), "iPXE can wait");
}

#[test]
fn a_machine_that_boots_from_its_disk_is_sent_there_whatever_asks() {
    let machine = wishing(LoaderChoice::Uki, BootFrom::Disk);
    let snapshot =
        snapshot(Some(machine), &[("demo", Arch::X86_64, true)], UnknownMachines::Ignore);
    for asker in [Asker::Firmware, Asker::Ipxe] {
        for firmware in FIRMWARE {
            let decision = decide(&snapshot, &sighting(asker, firmware));
            assert_eq!(decision.plan, Plan::LocalDisk, "{asker:?} {firmware:?}");
            assert_ne!(decision.loader, Loader::Uki);
        }
    }
    let system = decide(&snapshot, &sighting(Asker::System, None));
    assert_eq!(system.plan, Plan::Address);
}

#[test]
fn a_loader_without_files_is_not_named_and_the_reason_says_so() {
    for (choice, loader) in [(LoaderChoice::Uki, Loader::Uki), (LoaderChoice::Grub, Loader::Grub)] {
        let built = [("demo", Arch::X86_64, true), ("demo", Arch::Arm64, true)];
        let mut all =
            snapshot(Some(wishing(choice, BootFrom::Net)), &built, UnknownMachines::Ignore);
        all.absent = vec![(loader, Arch::X86_64)];
        let decided = |firmware| decide(&all, &sighting(Asker::Firmware, Some(firmware)));
        let decision = decided(Firmware::UefiX64);
        assert_eq!(decision.loader, Loader::Ipxe);
        let last = decision.reasons.last().map(ToString::to_string).unwrap_or_default();
        assert!(last.starts_with(&format!("loader `{choice}` of machine `n1` lacks")), "{last}");
        assert_eq!(decided(Firmware::UefiArm64).loader, loader);
    }
}

#[test]
fn a_kernel_is_told_where_to_send_what_it_prints_where_its_machine_or_the_site_asks_for_it() {
    let sighting =
        Sighting { mac: MAC, asker: Asker::Ipxe, firmware: Some(Firmware::UefiX64), uuid: None };
    let decided = |cmdline: &str, netconsole: Option<crate::Netconsole>| {
        let mut one = Machine::clone(&machine(None, Some("web")));
        one.spec.cmdline = cmdline.to_owned();
        let built = [("web", Arch::X86_64, true)];
        let mut snapshot = snapshot(Some(Arc::new(one)), &built, UnknownMachines::Ignore);
        snapshot.netconsole = netconsole;
        let (own, server) = ([10, 0, 0, 9].into(), [10, 0, 0, 1].into());
        let decision = decide(&snapshot, &sighting).between(Some(own), server);
        let Plan::Boot(plan) = decision.plan else { panic!("it boots") };
        (plan.cmdline, decision.reasons.last().map(ToString::to_string).unwrap())
    };
    let heard = |everyone| Some(crate::Netconsole { port: 6666, everyone });
    let told = "its kernel sends what it prints to UDP port 6666 of this server (`netconsole`)";
    let (cmdline, reason) = decided("netconsole quiet", heard(false));
    assert_eq!(cmdline, "console=ttyS0 quiet netconsole=@10.0.0.9/,6666@10.0.0.1/");
    assert_eq!(reason, told);
    let (cmdline, reason) = decided("quiet", heard(true));
    assert_eq!(cmdline, "console=ttyS0 quiet netconsole=@10.0.0.9/,6666@10.0.0.1/");
    assert_eq!(reason, told);
    let (cmdline, reason) = decided("quiet", heard(false));
    assert_eq!(cmdline, "console=ttyS0 quiet");
    assert!(reason.starts_with("image `web`"), "{reason}");
    let (cmdline, _) = decided("netconsole=", heard(true));
    assert_eq!(cmdline, "console=ttyS0 netconsole=");
    let (cmdline, reason) = decided("netconsole", None);
    assert_eq!(cmdline, "console=ttyS0");
    assert!(reason.contains("does not hear it"), "{reason}");
}
