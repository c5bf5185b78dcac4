use kiln_inventory::{BootId, Command, Firmware, MachineId, OrderId, OrderState, Phase};
use kiln_types::Mac;

use super::*;

const START: i64 = 1_000_000;

fn boot(outcome: Outcome, ended: Option<i64>) -> Boot {
    Boot {
        id: BootId(7),
        machine: MachineId(1),
        machine_name: "n1".to_owned(),
        mac: Mac::new([2; 6]),
        firmware: Some(Firmware::UefiX64),
        image: None,
        version: None,
        arch: None,
        address: None,
        started: START,
        outcome,
        ended: ended.map(|ended| START + ended),
        kernel_start: None,
    }
}

/// Events as words: `PHASE DETAIL`, one a second. Those of the system have the time of its kernel.
fn events(lines: &[&str]) -> Vec<BootEvent> {
    let mut at = START;
    let lines = lines.iter().map(|line| {
        let (phase, detail) = line.split_once(' ').unwrap_or((line, ""));
        let (phase, by_loader) = match phase {
            "loader-failed" => (Phase::Failed, true),
            word => (Phase::from(word.to_owned()), false),
        };
        let event = BootEvent::new(at, phase, detail);
        at += 1_000;
        let system = phase >= Phase::Init && !by_loader;
        BootEvent { millis: system.then_some(1), bytes: Some(1 << 20), ..event }
    });
    lines.collect()
}

fn story<'a>(boot: &'a Boot, events: &'a [BootEvent]) -> Story<'a> {
    let next = None;
    Story { boot, events, next, orders: &[], segments: Some(2), console: "", now: START + 600_000 }
}

/// Judges a boot under way of which nothing was heard for ten minutes.
fn stuck(lines: &[&str]) -> Verdict {
    Verdict::of(&story(&boot(Outcome::Booting, None), &events(lines)))
}

const ADDRESS: [&str; 2] =
    ["dhcp firmware DISCOVER, OFFER 10.0.0.9", "dhcp firmware REQUEST, ACK 10.0.0.9"];
const LOADER: [&str; 4] =
    [ADDRESS[0], ADDRESS[1], "loader ipxe-amd64.efi", "dhcp ipxe REQUEST, ACK 10.0.0.9"];
const ALL: [&str; 5] =
    ["script web", "kernel kernel", "segment machine", "segment init", "segment web"];
const SYSTEM: [&str; 4] = ["init web", "modules 12", "network eth0 10.0.0.9", "volumes"];

fn after<'a>(before: &[&[&'a str]], more: &[&'a str]) -> Vec<&'a str> {
    before.concat().into_iter().chain(more.iter().copied()).collect()
}

#[test]
fn where_loading_stopped_is_named_with_what_to_do() {
    let loader = after(&[&LOADER], &[]);
    let script = after(&[&LOADER], &["script web"]);
    for (lines, cause, reason, advice) in [
        (vec![ADDRESS[0]], Cause::NoAddress, "asked for an address once", "portfast"),
        (vec![ADDRESS[0]; 4], Cause::NoAddress, "4 times", "kiln doctor"),
        (
            vec![ADDRESS[0], "dhcp firmware REQUEST: chose another server"],
            Cause::NoAddress,
            "address of another DHCP server",
            "proxy",
        ),
        (ADDRESS.to_vec(), Cause::NoLoader, "asked for no loader for 9 min", "nf_conntrack_tftp"),
        (vec!["dhcp firmware gets fd00::9"], Cause::NoLoader, "asked for no loader", "firewall"),
        (vec!["dhcp ipxe REQUEST, ACK 10.0.0.9"], Cause::NoLoader, "no script", "firewall"),
        (
            after(&[&ADDRESS], &["absent ipxe-amd64.efi: there is no such file"]),
            Cause::LoaderMissing,
            "not there: ipxe-amd64.efi",
            "[loaders] dir",
        ),
        (
            after(
                &[&ADDRESS],
                &["broken ipxe-amd64.efi: nothing is heard of the machine after 0 of 9 bytes"],
            ),
            Cause::LoaderBroken,
            "did not arrive: ipxe-amd64.efi",
            "nf_conntrack_tftp",
        ),
        (
            after(&[&ADDRESS], &["loader grubx64.efi"]),
            Cause::StuckAfterLoader,
            "is not heard of",
            "Secure Boot",
        ),
        (loader, Cause::StuckAfterLoader, "did not ask for its script", "HTTP port"),
        (script.clone(), Cause::NoKernel, "asked for no kernel", "explain"),
        (
            after(&[&script], &["absent kernel: 404, no version that is served has it"]),
            Cause::FileMissing,
            "kernel: 404",
            "kiln image verify",
        ),
        (
            after(&[&script], &["broken kernel: broke off after 1 of 9 bytes"]),
            Cause::TransferBroken,
            "the kernel did not arrive",
            "packets that are lost",
        ),
        (
            after(&[&script], &["kernel kernel", "segment machine"]),
            Cause::TransferBroken,
            "after machine no further segment",
            "no memory",
        ),
        (
            after(&[&LOADER, &ALL], &[]),
            Cause::SilentKernel,
            "(4 MiB) were fetched",
            "serial console",
        ),
        (
            vec![ADDRESS[1], "loader uki"],
            Cause::SilentKernel,
            "(1 MiB) were fetched",
            "serial console",
        ),
        (
            after(&[&LOADER, &ALL], &["dhcp system REQUEST, ACK 10.0.0.9"]),
            Cause::NoReports,
            "reported nothing",
            "kiln-init",
        ),
    ] {
        let verdict = stuck(&lines);
        assert_eq!(verdict.cause, cause, "{lines:?}: {verdict:?}");
        assert!(verdict.reason.contains(reason), "{verdict:?}");
        assert!(verdict.advice.contains(advice), "{verdict:?}");
        assert!(verdict.is_stuck(Outcome::Booting));
    }
}

#[test]
fn a_boot_that_was_just_heard_of_is_under_way() {
    let boot = boot(Outcome::Booting, None);
    for (lines, silence, is) in [
        (ADDRESS.to_vec(), 59_000, true),
        (ADDRESS.to_vec(), 60_000, false),
        (after(&[&LOADER, &ALL], &[]), 119_000, true),
        (after(&[&LOADER, &ALL], &[]), 120_000, false),
        (after(&[&LOADER, &ALL, &SYSTEM], &[]), 299_000, true),
        (after(&[&LOADER, &ALL, &SYSTEM], &[]), 300_000, false),
    ] {
        let events = events(&lines);
        let last = events.last().unwrap().at;
        let verdict = Verdict::of(&Story { now: last + silence, ..story(&boot, &events) });
        assert_eq!(verdict.cause == Cause::UnderWay, is, "{lines:?} {silence}: {verdict:?}");
    }
}

#[test]
fn what_was_tried_again_with_success_is_no_reason() {
    let lines = after(
        &[&ADDRESS],
        &[
            "broken ipxe-amd64.efi: x",
            "loader ipxe-amd64.efi",
            "script web",
            "absent kernel: 500",
            "kernel kernel",
        ],
    );
    let verdict = stuck(&lines);
    assert!(verdict.reason.contains("no further segment"), "{verdict:?}");
}

#[test]
fn what_a_loader_or_the_server_says_of_a_failure_is_named() {
    for (lines, cause, reason) in [
        (vec!["loader-failed refused: n1 is locked"], Cause::Refused, "n1 is locked"),
        (
            vec!["loader-failed the firmware does not trust the certificate of this server"],
            Cause::Untrusted,
            "does not trust",
        ),
        (
            vec![
                "script web",
                "absent kernel: 404, gone",
                "loader-failed the loader cannot fetch the kernel: error 2d0c618e",
            ],
            Cause::FileMissing,
            "cannot fetch the kernel: error 2d0c618e; kernel: 404",
        ),
        (
            vec![
                "script web",
                "broken web: broke off after 1 of 9 bytes",
                "loader-failed the loader cannot fetch segment web",
            ],
            Cause::TransferBroken,
            "segment web; web: broke off",
        ),
        (
            vec![
                "script web",
                "kernel kernel",
                "loader-failed the loader cannot start the kernel: error 2e008081",
            ],
            Cause::LoaderGaveUp,
            "cannot start the kernel",
        ),
    ] {
        let verdict = Verdict::of(&story(&boot(Outcome::Failed, Some(5_000)), &events(&lines)));
        assert_eq!(verdict.cause, cause, "{lines:?}: {verdict:?}");
        assert!(verdict.reason.contains(reason), "{verdict:?}");
        assert!(!verdict.advice.is_empty(), "{verdict:?}");
    }
}

#[test]
fn what_a_system_says_of_a_failure_is_named() {
    for (more, cause, reason, advice) in [
        (
            &[
                "failed this machine is not whole, of its initrd is missing web; the kernel says: ZSTD-compressed data is corrupt. It was",
            ][..],
            Cause::NotWhole,
            "missing web",
            "kiln image verify",
        ),
        (
            &[
                "failed this machine is not whole, of its initrd is missing web. Memory was too small: 80 MiB",
            ],
            Cause::NotWhole,
            "missing web",
            "more memory",
        ),
        (&["failed no state: no disk"], Cause::NoState, "no disk", "--state-disk"),
        (
            &["failed onboot format ended with code 1; it said last: no disk"],
            Cause::OnbootFailed,
            "ended with code 1; it said last: no disk",
            "kiln machine logs n1 format",
        ),
        (
            &["failed web ended with code 3"],
            Cause::ServiceFailed,
            "service web ended",
            "logs n1 web",
        ),
        (
            &[
                "failed web ended with code 3",
                "failed web ended with code 3; 5 times in a row, so it is started again",
            ],
            Cause::ServiceRestarts,
            "5 times in a row",
            "logs n1 web",
        ),
        (
            &["failed web: connection refused", "failed web was not well: connection refused"],
            Cause::ServiceUnhealthy,
            "was not well",
            "`health`",
        ),
        (
            &["failed cannot read /etc/kiln/image.json"],
            Cause::SystemFailed,
            "cannot read",
            "boot log 7",
        ),
        // What went wrong first and let the boot go on is not what it fails by.
        (
            &["failed onboot a ended with code 1", "failed web was killed: out of memory"],
            Cause::ServiceFailed,
            "out of memory",
            "logs n1 web",
        ),
    ] {
        let lines = after(&[&ALL, &SYSTEM], more);
        let verdict = Verdict::of(&story(&boot(Outcome::Failed, Some(5_000)), &events(&lines)));
        assert_eq!(verdict.cause, cause, "{more:?}: {verdict:?}");
        assert!(verdict.reason.contains(reason), "{verdict:?}");
        assert!(verdict.advice.contains(advice), "{verdict:?}");
    }
}

#[test]
fn a_system_that_does_not_come_up_is_named_by_what_it_waits_for() {
    for (more, cause, reason) in [
        (
            &["waiting web: connection refused"][..],
            Cause::ServiceUnhealthy,
            "waits for web: connection refused",
        ),
        (&["waiting web: refused", "service web"], Cause::Stuck, "the last was: service web"),
        (
            &["network going on without an address on eth0"],
            Cause::NoNetwork,
            "without an address on eth0",
        ),
        (&["network no eth1", "network eth0 10.0.0.9"], Cause::Stuck, "nothing was heard"),
        (&["onboot format"], Cause::Stuck, "the last was: onboot format"),
    ] {
        let verdict = stuck(&after(&[&LOADER, &ALL, &SYSTEM], more));
        assert_eq!(verdict.cause, cause, "{more:?}: {verdict:?}");
        assert!(verdict.reason.contains(reason), "{verdict:?}");
    }
}

fn order(command: Command) -> Order {
    Order {
        id: OrderId(3),
        machine: MachineId(1),
        machine_name: "n1".to_owned(),
        boot: BootId(7),
        command,
        asked: START,
        asked_by: "root".to_owned(),
        expires: START,
        state: OrderState::Done,
        sent: None,
        ended: None,
        answer: String::new(),
    }
}

#[test]
fn how_a_healthy_system_ended_is_told_apart() {
    let lines = after(&[&LOADER, &ALL, &SYSTEM], &["service web", "healthy"]);
    let events = events(&lines);
    let boot = boot(Outcome::Healthy, Some(14_000));
    let next = Boot { id: BootId(8), started: START + 3_600_000, ..boot.clone() };
    let plain = story(&boot, &events);
    assert_eq!(Verdict::of(&plain).cause, Cause::Healthy);
    let off = [order(Command::PowerOff)];
    let verdict = Verdict::of(&Story { orders: &off, ..plain });
    assert_eq!(verdict.reason, "was healthy, and then was switched off by order 3 of root");

    let again = [order(Command::Reboot)];
    for (orders, console, cause, reason) in [
        (&again[..], "", Cause::Ordered, "was started anew by order 3 of root"),
        (
            &[],
            "x\n[ 9.1] Kernel panic - not syncing: Fatal exception\n",
            Cause::Crashed,
            "crashed: Kernel panic - not syncing: Fatal exception",
        ),
        (&[], "all well", Cause::PowerLost, "without an order and without a word"),
    ] {
        let verdict = Verdict::of(&Story { next: Some(&next), orders, console, ..plain });
        assert_eq!(verdict.cause, cause, "{verdict:?}");
        assert!(verdict.reason.contains(reason), "{verdict:?}");
    }
}

#[test]
fn a_service_that_fails_after_the_boot_was_healthy_is_told_until_it_is_well_again() {
    let boot = boot(Outcome::Healthy, Some(2_500));
    let judge = |lines: &[&str]| Verdict::of(&story(&boot, &events(lines)));
    let verdict = judge(&["init web", "service web", "healthy", "failed web ended with code 1"]);
    assert_eq!(verdict.cause, Cause::ServiceFailed);
    assert_eq!(verdict.reason, "came up, but then: service web ended with code 1");
    let verdict = judge(&[
        "init web",
        "service web",
        "healthy",
        "failed web ended with code 1",
        "service web",
    ]);
    assert_eq!(
        (verdict.cause, verdict.reason.as_str()),
        (Cause::Healthy, "everything is up; 1 failure since, made good")
    );
    let verdict = judge(&["init web", "failed onboot a ended with code 1", "healthy"]);
    assert_eq!(verdict.reason, "everything is up, after 1 failure");
}

#[test]
fn a_boot_that_another_one_follows_is_judged_by_how_far_it_was() {
    for (lines, ended, next, cause) in [
        (after(&[&LOADER, &ALL], &[]), 60_000, true, Cause::SilentKernel),
        (after(&[&LOADER, &ALL], &[]), 9_000, true, Cause::SilentKernel),
        (after(&[&LOADER], &["script web"]), 6_000, true, Cause::Replaced),
        (after(&[&LOADER], &["script web"]), 60_000, true, Cause::NoKernel),
        (after(&[&LOADER], &["script web"]), 6_000, false, Cause::ServerRestarted),
        (after(&[&ALL, &SYSTEM], &[]), 90_000, true, Cause::PowerLost),
    ] {
        let boot = boot(Outcome::Abandoned, Some(ended));
        let follows = Boot { id: BootId(8), started: START + ended, ..boot.clone() };
        let events = events(&lines);
        let verdict =
            Verdict::of(&Story { next: next.then_some(&follows), ..story(&boot, &events) });
        assert_eq!(verdict.cause, cause, "{lines:?}: {verdict:?}");
    }
}

#[test]
fn a_cause_is_read_as_it_is_written_and_a_newer_one_as_other() {
    for cause in Cause::ALL {
        let text = serde_json::to_string(&cause).unwrap();
        assert_eq!(text, format!("\"{cause}\""));
        assert_eq!(serde_json::from_str::<Cause>(&text).unwrap(), cause);
    }
    assert_eq!(serde_json::from_str::<Cause>("\"on-fire\"").unwrap(), Cause::Other);
}
