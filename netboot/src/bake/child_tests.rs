use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use kiln_types::Arch;

use super::*;

/// A program that stands for `kiln` and does what the script says.
fn workshop(dir: &Path, script: &str) -> Workshop {
    let program = dir.join("kiln");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let settings = BakeSettings { program: Some(program), ..BakeSettings::default() };
    Workshop { settings, store: dir.join("store"), mirror: None, locks: dir.join("locks") }
}

fn job(lock: Option<&str>, update: UpdatePolicy) -> Job {
    Job {
        image: "web".to_owned(),
        arch: Arch::Arm64,
        specs: vec!["/images/web.yml".into()],
        fingerprint: Digest::from_bytes([1; 32]),
        lock: lock.map(PathBuf::from),
        update,
        release: update == UpdatePolicy::Security,
    }
}

async fn run(workshop: &Workshop, job: &Job) -> (Result<Digest, String>, Vec<String>) {
    let live = Arc::default();
    let result = workshop.run(job, &live, &CancellationToken::new()).await;
    let (lines, _) = live.lock().unwrap().after(0);
    (result, lines.into_iter().map(|line| line.text).collect())
}

#[tokio::test]
async fn the_version_is_read_from_the_report_and_the_log_from_standard_error() {
    let dir = tempfile::tempdir().unwrap();
    let hex = "ab".repeat(32);
    let script = format!(
        "echo \"$@\" >&2\necho '{{\"task\":\"packing web\",\"done\":1}}' >&2\n\
         echo '{{\"version\":\"sha256:{hex}\",\"more\":1}}'"
    );
    let workshop = workshop(dir.path(), &script);
    let (result, lines) = run(&workshop, &job(None, UpdatePolicy::Never)).await;
    assert_eq!(result.unwrap().hex(), hex);
    assert!(lines[0].starts_with("build /images/web.yml --name web --arch arm64 --confined "));
    assert!(lines[0].contains("/locks/web.lock") && !lines[0].contains("--locked"));
    assert!(!lines[0].contains("--release"));
    assert_eq!(lines[1], "packing web");
    // A lock file beside the specification is somebody's word: it is not moved.
    let (_, lines) = run(&workshop, &job(Some("/images/web.lock"), UpdatePolicy::Never)).await;
    assert!(lines[0].contains(" --locked ") && lines[0].contains("--lock /images/web.lock"));
    let (_, lines) = run(&workshop, &job(None, UpdatePolicy::Security)).await;
    assert!(lines[0].starts_with("image update /images/web.yml --only security --arch arm64 "));
    assert!(lines.iter().any(|line| line.contains(" --release ")));
}

#[tokio::test]
async fn a_build_that_fails_is_told_by_its_last_words() {
    let dir = tempfile::tempdir().unwrap();
    for (script, expected) in [
        ("echo kiln: web.yml:3:5: no >&2; exit 64", "web.yml:3:5: no"),
        ("exit 3", "the build ended without a word (exit status: 3)"),
        ("echo nonsense", "the report of the build cannot be read: "),
        ("kill -9 $$", "the build ended without a word (signal: 9 (SIGKILL))"),
    ] {
        let workshop = workshop(dir.path(), script);
        let (result, _) = run(&workshop, &job(None, UpdatePolicy::Never)).await;
        let error = result.unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[tokio::test]
async fn a_build_that_takes_too_long_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let mut workshop = workshop(dir.path(), &format!("echo $$ > {}; exec sleep 60", pid.display()));
    workshop.settings.timeout = Duration::from_millis(500);
    let (result, _) = run(&workshop, &job(None, UpdatePolicy::Never)).await;
    assert!(result.unwrap_err().starts_with("it took longer than 0 s"));
    let pid = std::fs::read_to_string(pid).unwrap();
    let gone = || !Path::new("/proc").join(pid.trim()).join("root").exists();
    for _ in 0..100 {
        if gone() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the build goes on");
}

#[test]
fn what_a_build_is_told_is_what_the_command_line_understands() {
    use clap::Parser as _;

    let dir = tempfile::tempdir().unwrap();
    let mut workshop = workshop(dir.path(), "");
    workshop.settings.config = Some("/etc/kiln/kiln.toml".into());
    workshop.mirror = Some("http://mirror.example/debian".to_owned());
    for job in [job(None, UpdatePolicy::Security), job(Some("/images/web.lock"), UpdatePolicy::All)]
    {
        for arguments in [workshop.build_arguments(&job), workshop.update_arguments(&job)] {
            let line = std::iter::once("kiln".to_owned()).chain(arguments);
            crate::cli::Cli::try_parse_from(line).unwrap();
        }
    }
}
