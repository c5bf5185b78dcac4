//! Groups and the states of machines, where a decision depends on them.

use std::collections::BTreeSet;

use serde_json::json;

use super::tests::{FIRMWARE, MAC, machine, sighting, version, word};
use super::*;
use crate::{Group, Kept};

const ASKERS: [Asker; 3] = [Asker::Firmware, Asker::Ipxe, Asker::System];

fn with_flags(image: Option<&str>, flags: &[Flag]) -> Arc<Machine> {
    let mut machine = Machine::clone(&machine(None, image));
    machine.spec.flags = flags.iter().copied().collect();
    Arc::new(machine)
}

fn group(name: &str, settings: serde_json::Value) -> Group {
    let settings = serde_json::from_value(settings).unwrap();
    let selector = "*".parse().unwrap();
    Group { name: name.to_owned(), selector, priority: 0, settings }
}

/// A snapshot in which `demo` and `fix` are built for both architectures.
fn snapshot(machine: Arc<Machine>, groups: &[Group]) -> Snapshot {
    let built = |arch| (arch, version(arch, true));
    let both = BTreeMap::from([built(Arch::X86_64), built(Arch::Arm64)]);
    let images = ["demo", "fix"].map(|name| (name.parse().unwrap(), both.clone()));
    Snapshot::with_groups(vec![machine], groups, images.into(), UnknownMachines::Hold)
}

fn reasons(decision: &Decision) -> Vec<String> {
    decision.reasons.iter().map(ToString::to_string).collect()
}

fn booted(decision: &Decision) -> &BootPlan {
    let Plan::Boot(plan) = &decision.plan else { panic!("{decision:#?}") };
    plan
}

#[test]
fn a_group_gives_what_the_machine_does_not_say_and_the_reasons_name_it() {
    let web = group("web", json!({"image": "demo", "cmdline": "a=1", "loader": "uki"}));
    let snapshot = snapshot(machine(None, None), &[web]);
    let seen = sighting(Asker::Firmware, Some(Firmware::UefiX64));
    let decision = decide(&snapshot, &seen);
    assert_eq!(booted(&decision).cmdline, "console=ttyS0 a=1 quiet", "the machine's come last");
    assert_eq!(
        reasons(&decision)[1..],
        [
            "group `web` sets image to `demo`",
            "group `web` sets cmdline to `a=1`",
            "image `demo` for x86_64 is version aaaaaaaaaaaa",
            "it is loaded by UKI, as group `web` says",
        ]
    );
    let settings = decision.settings.unwrap();
    assert_eq!(settings.image.as_ref().map(|said| said.by.to_string()), Some("group web".into()));
}

#[test]
fn a_group_sends_machines_to_their_disks_and_refuses_wrong_architectures() {
    let disk = snapshot(machine(None, Some("demo")), &[group("old", json!({"boot": "disk"}))]);
    let decision = decide(&disk, &sighting(Asker::Ipxe, Some(Firmware::Bios)));
    assert_eq!(decision.plan, Plan::LocalDisk);
    assert_eq!(reasons(&decision)[1], "group `old` sets boot to `disk`");
    let arm = snapshot(machine(None, Some("demo")), &[group("arm", json!({"arch": "arm64"}))]);
    let decision = decide(&arm, &sighting(Asker::Ipxe, Some(Firmware::Bios)));
    assert_eq!(decision.plan, Plan::Refuse);
    assert_eq!(reasons(&decision)[1], "group `arm` sets arch to `arm64`");
}

/// Whatever else it is, whatever asks and on what firmware.
#[test]
fn a_retired_machine_boots_nothing_at_all() {
    for others in 0..8 {
        let mut flags = BTreeSet::from([Flag::Retired]);
        let more = [Flag::Locked, Flag::Cordoned, Flag::Maintenance];
        flags.extend(
            more.into_iter().enumerate().filter(|(n, _)| others >> n & 1 == 1).map(|f| f.1),
        );
        let flags: Vec<_> = flags.into_iter().collect();
        for boot in [json!({"maintenance-image": "fix"}), json!({"boot": "disk"})] {
            let machine = with_flags(Some("demo"), &flags);
            let mut snapshot = snapshot(machine, &[group("all", boot)]);
            keep(&mut snapshot, Some(Arch::X86_64));
            for asker in ASKERS {
                for firmware in FIRMWARE {
                    let decision = decide(&snapshot, &sighting(asker, firmware));
                    let plan = if asker == Asker::System { Plan::Ignore } else { Plan::Refuse };
                    assert_eq!(decision.plan, plan, "{flags:?} {asker:?} {firmware:?}");
                    assert!(matches!(decision.reasons.last(), Some(Reason::Retired { .. })));
                    assert_eq!(
                        decision.loader,
                        loader_for(LoaderChoice::Ipxe, &sighting(asker, firmware))
                    );
                }
            }
        }
    }
}

fn keep(snapshot: &mut Snapshot, arch: Option<Arch>) {
    let old = Arc::new(ImageVersion {
        version: kiln_types::Digest::from_bytes([0x01; 32]),
        ..ImageVersion::clone(&version(Arch::X86_64, true))
    });
    let kept =
        Kept { image: "demo:old".parse().unwrap(), arch: Arch::X86_64, version: arch.map(|_| old) };
    snapshot.kept = [(crate::MachineId(1), kept)].into();
}

#[test]
fn a_cordoned_machine_boots_what_it_last_ran_well_or_waits() {
    let mut snapshot = snapshot(with_flags(Some("demo"), &[Flag::Cordoned]), &[]);
    let seen = sighting(Asker::Ipxe, Some(Firmware::UefiX64));
    let decision = decide(&snapshot, &seen);
    assert_eq!(decision.plan, Plan::Hold);
    assert!(reasons(&decision)[1].contains("has not run any version well yet"), "{decision:?}");
    keep(&mut snapshot, Some(Arch::X86_64));
    let decision = decide(&snapshot, &seen);
    let plan = booted(&decision);
    assert_eq!(
        (plan.version.short().as_str(), plan.image.to_string()),
        ("010101010101", "demo:old".into())
    );
    assert!(reasons(&decision)[1].contains("is cordoned, so it boots what it last ran well"));
    let other = decide(&snapshot, &sighting(Asker::Ipxe, Some(Firmware::UefiArm64)));
    assert_eq!(other.plan, Plan::Refuse, "another machine than before");
    keep(&mut snapshot, None);
    let decision = decide(&snapshot, &seen);
    assert_eq!(decision.plan, Plan::Hold);
    assert!(reasons(&decision)[1].contains("image `demo:old` that it last ran well is no longer"));
}

#[test]
fn a_machine_in_maintenance_boots_the_image_for_it_and_waits_without_one() {
    let flags = &[Flag::Maintenance, Flag::Cordoned, Flag::Locked];
    let seen = sighting(Asker::Ipxe, Some(Firmware::UefiX64));
    let holds = snapshot(with_flags(Some("demo"), flags), &[group("all", json!({"boot": "disk"}))]);
    let decision = decide(&holds, &seen);
    assert_eq!(word(&decision.plan), "hold", "it does not do its work from its disk either");
    assert!(reasons(&decision)[1].contains("is in maintenance and has no maintenance image"));
    let fix = group("all", json!({"maintenance-image": "fix"}));
    let boots = snapshot(with_flags(Some("demo"), flags), &[fix]);
    let decision = decide(&boots, &seen);
    assert_eq!(booted(&decision).image.name(), "fix");
    assert_eq!(
        reasons(&decision)[1..3],
        [
            "machine `n1` is in maintenance, so it boots its maintenance image `fix`",
            "group `all` sets maintenance-image to `fix`",
        ]
    );
    let out = snapshot(
        with_flags(Some("demo"), &[Flag::Locked]),
        &[group("all", json!({"maintenance-image": "fix"}))],
    );
    assert_eq!(booted(&decide(&out, &seen)).image.name(), "demo", "a lock changes no boot");
    assert_eq!(MAC, seen.mac);
}

#[test]
fn a_hundred_thousand_machines_in_a_hundred_groups_share_what_holds_for_them() {
    let groups: Vec<Group> = (0..100)
        .map(|n| {
            let selector = if n % 10 == 0 { "*".to_owned() } else { format!("rack=r{n}") };
            let mut group =
                group(&format!("g{n}"), json!({"cmdline": format!("g={n}"), "image": "demo"}));
            group.selector = selector.parse().unwrap();
            group.priority = n;
            group
        })
        .collect();
    let machines = (0..100_000_u32)
        .map(|n| {
            let [a, b, c, d] = n.to_be_bytes();
            let mac = kiln_types::Mac::new([2, 0, a, b, c, d]);
            let mut spec = crate::NewMachine::new(format!("n{n}"), [mac]);
            spec.labels = [("rack".to_owned(), format!("r{}", n % 100))].into();
            spec.labels.insert("slot".to_owned(), n.to_string());
            Arc::new(Machine { id: crate::MachineId(i64::from(n) + 1), revision: 1, spec })
        })
        .collect();
    let built = BTreeMap::from([(Arch::X86_64, version(Arch::X86_64, true))]);
    let images = BTreeMap::from([("demo".parse().unwrap(), built)]);
    let snapshot = Snapshot::with_groups(machines, &groups, images, UnknownMachines::Hold);
    let all: std::collections::HashSet<_> = snapshot
        .machines()
        .iter()
        .filter_map(|machine| snapshot.settings_of(machine.id).map(Arc::as_ptr))
        .collect();
    assert_eq!(all.len(), 91, "ninety racks with a group of their own, and the rest");
    let mac = kiln_types::Mac::new([2, 0, 0, 1, 0x11, 0x70]);
    let seen = Sighting { mac, ..sighting(Asker::Ipxe, Some(Firmware::Bios)) };
    let decision = decide(&snapshot, &seen);
    assert_eq!(decision.machine.as_ref().map(|m| m.spec.name.as_str()), Some("n70000"));
    assert!(booted(&decision).cmdline.ends_with("g=80 g=90"), "{decision:?}");
}

#[test]
fn an_unknown_machine_runs_the_discovery_image_only_where_the_site_says_so() {
    let image: ImageRef = "fix".parse().unwrap();
    let said = Said { value: image.clone(), by: Origin::Default };
    let settings = Arc::new(Effective { image: Some(said), ..Effective::default() });
    let mac = kiln_types::Mac::new([2, 0, 0, 0, 0, 99]);
    let ask = |asker| Sighting { mac, asker, firmware: Some(Firmware::UefiX64), uuid: None };
    let mut site = snapshot(machine(None, None), &[]);
    for policy in [UnknownMachines::Ignore, UnknownMachines::Hold, UnknownMachines::Boot] {
        for stranger in [None, Some(settings.clone())] {
            site.unknown = policy;
            site.stranger = stranger.clone();
            let decision = decide(&site, &ask(Asker::Firmware));
            let boots = policy == UnknownMachines::Boot && stranger.is_some();
            assert_eq!(matches!(decision.plan, Plan::Boot(_)), boots, "{policy:?}");
            assert_eq!(decision.machine.is_some(), boots);
            assert!(matches!(decision.reasons[0], Reason::UnknownMachine { .. }));
        }
    }
    let decision = decide(&site, &ask(Asker::Ipxe));
    assert!(decision.reasons.contains(&Reason::BootsDiscovery { image }));
    assert_eq!(decision.settings.and_then(|settings| settings.state_disk.clone()), None);
    assert!(decision.machine.is_some_and(|machine| machine.id.is_unknown()));
    assert_eq!(decide(&site, &ask(Asker::System)).plan, Plan::Address);
    site.ignored.insert(mac);
    assert_eq!(decide(&site, &ask(Asker::Firmware)).plan, Plan::Ignore);
}
