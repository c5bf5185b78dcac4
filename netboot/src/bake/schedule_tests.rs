use std::time::Duration;

use super::*;

const HOUR: i64 = 3_600_000;

fn fingerprint(byte: u8) -> Digest {
    Digest::from_bytes([byte; 32])
}

fn folder(images: &[(&str, u8)]) -> BTreeMap<String, Found> {
    let found = |byte| Found { specs: Vec::new(), fingerprint: fingerprint(byte), lock: None };
    images.iter().map(|(name, byte)| ((*name).to_owned(), found(*byte))).collect()
}

fn schedule(build: BuildWhen, update: UpdatePolicy) -> Schedule {
    let policy = Policy {
        build,
        update,
        every: Duration::from_secs(3600),
        arch: vec![Arch::X86_64],
        ..Policy::default()
    };
    let mut schedule =
        Schedule::new(BakeSettings { policy, ..BakeSettings::default() }, BTreeMap::new());
    schedule.found(folder(&[("web", 1)]));
    schedule
}

fn version() -> Result<Digest, String> {
    Ok(fingerprint(0xee))
}

#[test]
fn a_change_is_built_once_and_what_has_not_changed_is_left_alone() {
    let mut schedule = schedule(BuildWhen::OnChange, UpdatePolicy::Never);
    let job = schedule.next(0).unwrap();
    assert_eq!((job.image.as_str(), job.update), ("web", UpdatePolicy::Never));
    assert_eq!(schedule.next(0), None, "one build of an image at a time");
    assert_eq!(schedule.bakes()["web"][&Arch::X86_64], Bake::Building);
    schedule.finished(&job, version(), 5);
    assert_eq!(schedule.next(100 * HOUR), None);
    assert!(schedule.bakes().is_empty());
    assert!(schedule.found(folder(&[("web", 2)])));
    assert!(!schedule.found(folder(&[("web", 2)])));
    assert!(schedule.next(6).is_some());
}

#[test]
fn an_edit_during_a_build_is_built_after_it() {
    let mut schedule = schedule(BuildWhen::OnChange, UpdatePolicy::Never);
    let job = schedule.next(0).unwrap();
    schedule.found(folder(&[("web", 2)]));
    schedule.finished(&job, version(), 1);
    assert_eq!(schedule.next(1).unwrap().fingerprint, fingerprint(2));
}

#[test]
fn a_failed_build_keeps_what_was_built_and_is_tried_again_ever_more_slowly() {
    let mut schedule = schedule(BuildWhen::OnChange, UpdatePolicy::Never);
    let job = schedule.next(0).unwrap();
    schedule.finished(&job, version(), 0);
    schedule.found(folder(&[("web", 2)]));
    let mut now = 0;
    for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
        let job = schedule.next(now).unwrap();
        schedule.finished(&job, Err("web.yml:1:1: no".to_owned()), now);
        assert_eq!(schedule.next(now + minutes * 60_000 - 1), None, "{minutes}");
        now += minutes * 60_000;
    }
    let error = "web.yml:1:1: no".to_owned();
    assert_eq!(schedule.bakes()["web"][&Arch::X86_64], Bake::Failed { error });
    assert_eq!(schedule.history("web", Arch::X86_64).unwrap().built.as_ref().unwrap().at, 0);
    // Mending it does not have to wait.
    schedule.found(folder(&[("web", 3)]));
    let job = schedule.next(now - 1).unwrap();
    schedule.finished(&job, version(), now);
    assert_eq!(schedule.history("web", Arch::X86_64).unwrap().failed, None);
}

#[test]
fn on_boot_builds_when_a_machine_asks_and_only_if_something_changed() {
    let mut schedule = schedule(BuildWhen::OnBoot, UpdatePolicy::Never);
    assert_eq!(schedule.next(0), None);
    assert_eq!(schedule.bakes()["web"][&Arch::X86_64], Bake::Waiting);
    schedule.asked("web", Arch::Arm64);
    schedule.asked("other", Arch::X86_64);
    assert_eq!(schedule.next(0), None);
    schedule.asked("web", Arch::X86_64);
    let job = schedule.next(0).unwrap();
    schedule.finished(&job, version(), 0);
    schedule.asked("web", Arch::X86_64);
    assert_eq!(schedule.next(HOUR), None);
}

#[test]
fn a_schedule_builds_again_after_its_time_and_updates_move_the_lock() {
    let mut by_time = schedule(BuildWhen::Schedule, UpdatePolicy::Never);
    let job = by_time.next(0).unwrap();
    by_time.finished(&job, version(), 0);
    assert_eq!(by_time.next(HOUR - 1), None);
    assert_eq!(by_time.next(HOUR).unwrap().update, UpdatePolicy::Never);

    let mut updated = schedule(BuildWhen::OnChange, UpdatePolicy::Security);
    let job = updated.next(0).unwrap();
    updated.finished(&job, version(), 0);
    assert_eq!(updated.next(HOUR - 1), None);
    let job = updated.next(HOUR).unwrap();
    assert_eq!(job.update, UpdatePolicy::Security);
    updated.finished(&job, version(), HOUR);
    assert_eq!(updated.next(2 * HOUR - 1), None);
}

#[test]
fn manual_builds_only_when_asked_by_a_person() {
    let mut schedule = schedule(BuildWhen::Manual, UpdatePolicy::All);
    schedule.asked("web", Arch::X86_64);
    assert_eq!(schedule.next(100 * HOUR), None);
    assert!(schedule.bakes().is_empty());
    assert_eq!(schedule.request("gone", None), None);
    assert_eq!(schedule.request("web", Some(Arch::Arm64)), Some(vec![Arch::Arm64]));
    assert_eq!(schedule.bakes()["web"][&Arch::Arm64], Bake::Waiting);
    assert_eq!(schedule.next(0).unwrap().arch, Arch::Arm64);
}

#[test]
fn as_many_builds_run_as_are_allowed() {
    let mut schedule = schedule(BuildWhen::OnChange, UpdatePolicy::Never);
    schedule.settings.jobs = 2;
    schedule.found(folder(&[("a", 1), ("b", 1), ("c", 1)]));
    let first = schedule.next(0).unwrap();
    assert_eq!(schedule.next(0).unwrap().image, "b");
    assert_eq!(schedule.next(0), None);
    schedule.finished(&first, version(), 0);
    assert_eq!(schedule.next(0).unwrap().image, "c");
}

#[test]
fn a_version_that_the_store_has_lost_is_built_again() {
    let mut schedule = schedule(BuildWhen::OnChange, UpdatePolicy::Never);
    let job = schedule.next(0).unwrap();
    schedule.finished(&job, version(), 0);
    let memory = schedule.memory().clone();
    let mut restarted = Schedule::new(schedule.settings.clone(), memory);
    restarted.found(folder(&[("web", 1)]));
    assert_eq!(restarted.next(1), None);
    restarted.keep_versions(|_, _, _| false);
    assert!(restarted.next(1).is_some());
}
