use kiln_inventory::{BootId, MachineId};
use kiln_types::Mac;

use super::*;

const START: i64 = 1_000_000;

fn boot(outcome: Outcome, ended: Option<i64>, kernel_start: Option<i64>) -> Boot {
    Boot {
        id: BootId(1),
        machine: MachineId(1),
        machine_name: "n1".to_owned(),
        mac: Mac::new([2; 6]),
        firmware: None,
        image: None,
        version: None,
        arch: None,
        address: None,
        started: START,
        outcome,
        ended: ended.map(|ended| START + ended),
        kernel_start: kernel_start.map(|start| START + start),
    }
}

/// An event that the server saw.
fn seen(at: i64, phase: Phase, detail: &str, transfer: Option<(u64, u64)>) -> BootEvent {
    let (bytes, millis) = transfer.unzip();
    BootEvent { bytes, millis, ..BootEvent::new(START + at, phase, detail) }
}

/// An event that the machine reported, so long after its kernel's start at `kernel`.
fn told(kernel: i64, millis: u64, phase: Phase, detail: &str, took: Option<u64>) -> BootEvent {
    let at = START + kernel + i64::try_from(millis).unwrap();
    BootEvent { millis: Some(millis), took, ..BootEvent::new(at, phase, detail) }
}

fn loading() -> Vec<BootEvent> {
    vec![
        seen(0, Phase::Dhcp, "firmware gets 10.0.0.9", None),
        seen(900, Phase::Loader, "ipxe-amd64.efi", Some((1_000_000, 400))),
        seen(1_300, Phase::Dhcp, "ipxe gets 10.0.0.9", None),
        seen(1_500, Phase::Script, "web", None),
        seen(2_000, Phase::Kernel, "kernel", Some((10_000_000, 490))),
        seen(2_020, Phase::Segment, "init", Some((2_000, 1))),
        seen(3_020, Phase::Segment, "base", Some((20_000_000, 1_000))),
    ]
}

fn named(breakdown: &Breakdown) -> Vec<(&str, u64, u64, u64)> {
    breakdown.steps.iter().map(|s| (s.name.as_str(), s.from, s.to, s.share)).collect()
}

fn adds_up(breakdown: &Breakdown) {
    let sum: u64 = breakdown.steps.iter().map(|step| step.share).sum();
    assert_eq!(sum, breakdown.total, "{breakdown:#?}");
    assert!(breakdown.steps.is_sorted_by_key(|step| step.from));
    assert!(breakdown.steps.iter().all(|step| step.from <= step.to && step.to <= breakdown.total));
}

#[test]
fn a_healthy_boot_is_laid_out_from_its_first_packet_to_its_last_service() {
    let kernel = 3_400;
    let mut events = loading();
    events.extend([
        // The request of the booted system, which is part of its network.
        seen(5_000, Phase::Dhcp, "system gets 10.0.0.9", None),
        told(kernel, 800, Phase::Init, "web", None),
        told(kernel, 1_300, Phase::Modules, "12", Some(480)),
        told(kernel, 1_400, Phase::Link, "eth0", Some(100)),
        told(kernel, 1_900, Phase::Network, "eth0 10.0.0.9", Some(500)),
        told(kernel, 1_905, Phase::Volumes, "", Some(5)),
        told(kernel, 2_105, Phase::Onboot, "hello", Some(200)),
        told(kernel, 2_910, Phase::Service, "db", Some(800)),
        told(kernel, 3_110, Phase::Service, "log", Some(1_000)),
        told(kernel, 4_000, Phase::Network, "eth1 10.0.1.9", Some(2_600)),
        told(kernel, 4_212, Phase::Service, "web", Some(1_300)),
        told(kernel, 4_215, Phase::Healthy, "", None),
        told(kernel, 9_000, Phase::Failed, "web ended", None),
    ]);
    let breakdown = Breakdown::of(&boot(Outcome::Healthy, Some(7_615), Some(kernel)), &events);
    adds_up(&breakdown);
    assert_eq!((breakdown.total, breakdown.later), (7_615, 1));
    let expected = [
        ("firmware", 0, 500, 500),
        ("fetch ipxe-amd64.efi", 500, 900, 400),
        ("loader", 900, 1_500, 600),
        ("script", 1_500, 1_500, 0),
        ("loader", 1_500, 1_510, 10),
        // On its way until the next file is asked for.
        ("fetch kernel", 1_510, 2_019, 509),
        ("fetch init", 2_019, 2_020, 1),
        ("fetch base", 2_020, 3_020, 1_000),
        ("handover", 3_020, 3_400, 380),
        ("kernel", 3_400, 4_200, 800),
        ("init", 4_200, 4_220, 20),
        ("modules", 4_220, 4_700, 480),
        ("link", 4_700, 4_800, 100),
        ("network", 4_800, 5_300, 500),
        // The second card kept nobody waiting.
        ("network", 4_800, 7_400, 0),
        ("volumes", 5_300, 5_305, 5),
        ("onboot hello", 5_305, 5_505, 200),
        ("init", 5_505, 5_510, 5),
        ("service db", 5_510, 6_310, 800),
        ("service log", 5_510, 6_510, 0),
        ("init", 6_310, 6_312, 2),
        ("service web", 6_312, 7_612, 1_300),
        ("init", 7_612, 7_615, 3),
    ];
    assert_eq!(named(&breakdown), expected);
    let base = breakdown.steps.iter().find(|step| step.name == "fetch base").unwrap();
    assert_eq!((base.bytes, base.rate), (Some(20_000_000), Some(20_000_000)));
    let longest: Vec<_> = breakdown.longest(2).iter().map(|step| step.name.as_str()).collect();
    assert_eq!(longest, ["service web", "fetch base"]);
}

#[test]
fn a_boot_of_an_older_kiln_init_still_adds_up() {
    let mut events = loading();
    let at = |at, phase, millis| BootEvent {
        millis: Some(millis),
        ..BootEvent::new(START + at, phase, "x")
    };
    events.extend([
        at(6_000, Phase::Init, 800),
        at(6_000, Phase::Network, 2_000),
        at(6_500, Phase::Onboot, 2_500),
        at(7_500, Phase::Service, 3_500),
        at(7_500, Phase::Healthy, 3_500),
    ]);
    for start in [None, Some(4_000)] {
        let breakdown = Breakdown::of(&boot(Outcome::Healthy, Some(7_500), start), &events);
        adds_up(&breakdown);
        assert_eq!(breakdown.steps.last().unwrap().name, "service x");
    }
}

#[test]
fn silence_is_named_where_a_boot_came_to_nothing() {
    let abandoned = Breakdown::of(&boot(Outcome::Abandoned, Some(60_000), None), &loading());
    adds_up(&abandoned);
    assert_eq!(named(&abandoned).last(), Some(&("silence", 3_020, 60_000, 56_980)));

    let mut events = loading();
    events.push(seen(3_500, Phase::Failed, "the loader cannot fetch segment x", None));
    let failed = Breakdown::of(&boot(Outcome::Failed, Some(3_500), None), &events);
    adds_up(&failed);
    let last = failed.steps.last().unwrap();
    assert_eq!((last.name.as_str(), last.from, last.to), ("failed", 3_500, 3_500));

    let nothing = Breakdown::of(&boot(Outcome::Booting, None, None), &[]);
    assert_eq!(nothing, Breakdown::default());
}

#[test]
fn an_onboot_container_that_failed_has_the_time_it_took() {
    let mut events = loading();
    events.extend([
        told(3_400, 800, Phase::Init, "web", None),
        told(3_400, 2_800, Phase::Failed, "onboot format ended with status 1", Some(1_900)),
    ]);
    let breakdown = Breakdown::of(&boot(Outcome::Failed, Some(6_200), Some(3_400)), &events);
    adds_up(&breakdown);
    assert_eq!(named(&breakdown).last(), Some(&("failed", 4_300, 6_200, 1_900)));
    assert_eq!(breakdown.steps.last().unwrap().detail, "onboot format ended with status 1");
}

#[test]
fn a_service_is_told_apart_from_what_its_container_took_and_what_hangs_is_named() {
    let mut events = loading();
    events.extend([
        told(3_400, 800, Phase::Init, "web", None),
        told(3_400, 805, Phase::Start, "onboot hello", None),
        told(3_400, 1_000, Phase::Onboot, "hello", Some(200)),
        told(3_400, 1_420, Phase::Start, "service web", None),
        told(3_400, 1_430, Phase::Start, "service db", None),
        told(3_400, 1_900, Phase::Restart, "db", None),
        told(3_400, 2_800, Phase::Service, "web", Some(1_800)),
    ]);
    let breakdown = Breakdown::of(&boot(Outcome::Abandoned, Some(9_000), Some(3_400)), &events);
    adds_up(&breakdown);
    let detail = |name: &str| {
        let mut found = breakdown.steps.iter().filter(|step| step.name == name);
        let step = found.next().unwrap();
        assert!(found.next().is_none(), "{name} is there twice");
        step.detail.as_str()
    };
    assert_eq!(detail("service web"), "its program began after 0.420 s");
    assert_eq!(detail("service db"), "has begun and is not over");
    assert_eq!(detail("onboot hello"), "");
    assert_eq!(detail("restart"), "db");
    assert_eq!(detail("silence"), "");
}

#[test]
fn a_warning_takes_no_time_and_explains_the_silence_after_it() {
    let mut events = loading();
    let text = "the machine has 64 MiB of memory";
    events.insert(5, seen(2_010, Phase::Warning, text, None));
    let breakdown = Breakdown::of(&boot(Outcome::Abandoned, Some(60_000), None), &events);
    adds_up(&breakdown);
    let told: Vec<_> = breakdown.steps.iter().filter(|step| step.detail == text).collect();
    assert_eq!(told.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["warning", "silence"]);
    assert_eq!((told[0].took(), told[1].from), (0, 3_020));
}

#[test]
fn times_that_make_no_sense_still_add_up() {
    let mut events = loading();
    events.extend([
        told(3_400, 5, Phase::Init, "", Some(u64::MAX)),
        told(3_400, 4, Phase::Network, "", Some(u64::MAX)),
        told(3_400, 2, Phase::Service, "a", Some(u64::MAX)),
        BootEvent { millis: Some(u64::MAX), ..BootEvent::new(START, Phase::Service, "b") },
        BootEvent { millis: Some(u64::MAX), ..BootEvent::new(START - 9, Phase::Kernel, "") },
        BootEvent {
            bytes: Some(u64::MAX),
            millis: Some(11),
            ..BootEvent::new(0, Phase::Loader, "")
        },
    ]);
    for ended in [None, Some(-5), Some(0), Some(4_000)] {
        for start in [None, Some(i64::MIN / 2), Some(3_400), Some(9_000)] {
            adds_up(&Breakdown::of(&boot(Outcome::Failed, ended, start), &events));
        }
    }
}

#[test]
fn steps_are_compared_with_the_median_of_earlier_boots() {
    let earlier: Vec<Breakdown> = [300, 100, 200]
        .map(|late| {
            let mut events = loading();
            events.push(seen(3_020 + late, Phase::Segment, "more", Some((1, 0))));
            Breakdown::of(&boot(Outcome::Healthy, Some(3_020 + late), None), &events)
        })
        .into();
    let mut breakdown = Breakdown::of(&boot(Outcome::Booting, None, None), &loading());
    breakdown.compare(&earlier);
    assert_eq!(breakdown.usual, Some(3_220));
    let usual = |name: &str| breakdown.steps.iter().find(|s| s.name == name).unwrap().usual;
    assert_eq!(usual("firmware"), Some(500));
    assert_eq!(usual("fetch base"), Some(1_200));
    breakdown.compare(&[]);
    assert_eq!((breakdown.usual, breakdown.steps[0].usual), (None, None));
}

#[test]
fn what_did_not_arrive_is_told_and_still_adds_up() {
    let events = [
        seen(0, Phase::Dhcp, "firmware DISCOVER, OFFER 10.0.0.9", None),
        seen(900, Phase::Broken, "ipxe.efi: broke off after 5 of 9 bytes", Some((5, 400))),
        seen(1_000, Phase::Absent, "ipxe.efi: there is no such file", None),
        seen(2_000, Phase::Loader, "ipxe.efi", Some((9, 100))),
    ];
    let breakdown = Breakdown::of(&boot(Outcome::Abandoned, Some(3_000), None), &events);
    adds_up(&breakdown);
    let expected = [
        ("dhcp", 0, 0, 0),
        ("firmware", 0, 500, 500),
        ("fetch ipxe.efi", 500, 900, 400),
        ("firmware", 900, 1_000, 100),
        ("absent", 1_000, 1_000, 0),
        ("firmware", 1_000, 1_900, 900),
        ("fetch ipxe.efi", 1_900, 2_000, 100),
        ("silence", 2_000, 3_000, 1_000),
    ];
    assert_eq!(named(&breakdown), expected);
    assert_eq!(breakdown.steps[2].detail, "broke off after 5 of 9 bytes");
}

#[test]
fn steps_that_took_much_longer_than_usual_are_named_the_worst_first() {
    let mut breakdown = Breakdown::of(&boot(Outcome::Booting, None, None), &loading());
    for step in &mut breakdown.steps {
        step.usual = Some(step.took());
    }
    assert!(breakdown.slower().is_empty());
    breakdown.steps[0].to += 1_600;
    breakdown.steps[2].to += 9_000;
    // Twice as long, and no second longer.
    breakdown.steps[1].to += 500;
    let slower: Vec<&str> = breakdown.slower().iter().map(|step| step.name.as_str()).collect();
    assert_eq!(slower, ["loader", "firmware"]);
}

#[test]
fn blocks_that_were_sent_again_are_told_beside_what_else_is_told_of_a_transfer() {
    let again = |resent, event| BootEvent { resent: Some(resent), ..event };
    let broken = seen(900, Phase::Broken, "ipxe.efi: broke off", Some((5, 400)));
    let events = [
        seen(0, Phase::Dhcp, "firmware", None),
        again(30, broken),
        again(1, seen(2_000, Phase::Loader, "ipxe.efi", Some((9, 100)))),
        seen(2_500, Phase::Kernel, "kernel", Some((9, 100))),
    ];
    let breakdown = Breakdown::of(&boot(Outcome::Abandoned, Some(3_000), None), &events);
    adds_up(&breakdown);
    let fetched = breakdown.steps.iter().filter(|step| step.name.starts_with("fetch "));
    let told: Vec<_> = fetched.map(|step| (step.name.as_str(), step.detail.as_str())).collect();
    let expected = [
        ("fetch ipxe.efi", "broke off; 30 blocks were sent again"),
        ("fetch ipxe.efi", "1 block was sent again"),
        ("fetch kernel", ""),
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_goes_wrong_after_the_end_has_rows_the_latest_ones_only() {
    let mut events = loading();
    events.extend([
        told(3_400, 600, Phase::Init, "", None),
        told(3_400, 1_000, Phase::Healthy, "", None),
        told(3_400, 5_000, Phase::Failed, "web was not well: 503", None),
        told(3_400, 6_000, Phase::Start, "service web", None),
        told(3_400, 6_000, Phase::Restart, "web", None),
        told(3_400, 7_000, Phase::Service, "web", Some(900)),
        told(3_400, 8_000, Phase::Link, "eth1", None),
    ]);
    let healthy = boot(Outcome::Healthy, Some(4_400), Some(3_400));
    let breakdown = Breakdown::of(&healthy, &events);
    adds_up(&breakdown);
    let rows = |breakdown: &Breakdown| -> Vec<(String, u64, u64, String)> {
        let rows = breakdown.afterwards.iter();
        rows.map(|s| (s.name.clone(), s.from, s.took(), s.detail.clone())).collect()
    };
    let row = |name: &str, at, detail: &str| (name.to_owned(), at, 0, detail.to_owned());
    let expected = [
        row("failed", 8_400, "web was not well: 503"),
        row("restart", 9_400, "web"),
        row("service web", 10_400, ""),
    ];
    assert_eq!((rows(&breakdown).as_slice(), breakdown.later), (&expected[..], 5));
    let restarts = (0..50).map(|n| told(3_400, 20_000 + n, Phase::Restart, "db", None));
    events.extend(restarts);
    let breakdown = Breakdown::of(&healthy, &events);
    adds_up(&breakdown);
    let rows = rows(&breakdown);
    assert_eq!((rows.len(), breakdown.later), (20, 55));
    assert_eq!(rows[19], row("restart", 23_449, "db"));
}
