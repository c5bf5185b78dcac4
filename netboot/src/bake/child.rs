//! Runs `kiln build` as a child that may not do what the server may.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_types::Digest;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::live::Live;
use super::policy::{BakeSettings, UpdatePolicy};
use super::schedule::Job;
use crate::observe::COUNTS;

/// The largest report that is read.
const MAX_REPORT: u64 = 16 << 20;
/// The longest line that is read; what follows is cut off.
const MAX_LINE: u64 = 64 << 10;

/// What every build of a server has in common.
#[derive(Debug)]
pub(super) struct Workshop {
    pub(super) settings: BakeSettings,
    pub(super) store: PathBuf,
    pub(super) mirror: Option<String>,
    /// Where lock files are kept of specifications that have none beside them.
    pub(super) locks: PathBuf,
}

/// The part of a build's report that matters here.
#[derive(Deserialize)]
struct Report {
    version: Digest,
    #[serde(default)]
    components: Vec<Component>,
}

/// One of the kernel and the segments.
#[derive(Deserialize)]
struct Component {
    reused: bool,
}

impl Workshop {
    /// Builds, and returns the version or what went wrong in one line.
    pub(super) async fn run(
        &self,
        job: &Job,
        live: &Arc<Mutex<Live>>,
        stop: &CancellationToken,
    ) -> Result<Digest, String> {
        let work = async {
            if job.update != UpdatePolicy::Never {
                self.call(self.update_arguments(job), live).await?;
            }
            let report = self.call(self.build_arguments(job), live).await?;
            let report: Report = serde_json::from_slice(&report)
                .map_err(|error| format!("the report of the build cannot be read: {error}"))?;
            for component in report.components {
                if component.reused { &COUNTS.reused } else { &COUNTS.made }.add(1);
            }
            Ok(report.version)
        };
        tokio::select! {
            result = work => result,
            () = tokio::time::sleep(self.settings.timeout) => Err(format!(
                "it took longer than {} s (`timeout` under `[images]`)", self.settings.timeout.as_secs()
            )),
            () = stop.cancelled() => Err("the server was stopped".to_owned()),
        }
    }

    fn build_arguments(&self, job: &Job) -> Vec<String> {
        let mut list = vec!["build".to_owned()];
        list.extend(job.specs.iter().map(|path| path.display().to_string()));
        let arch = job.arch.to_string();
        let fixed = ["--name", &job.image, "--arch", &arch, "--confined"];
        let told = ["--progress", "json", "--report", "json"];
        list.extend(fixed.into_iter().chain(told).map(str::to_owned));
        if job.lock.is_some() {
            list.push("--locked".to_owned());
        }
        if job.release {
            list.push("--release".to_owned());
        }
        list.extend(self.common(job));
        list
    }

    fn update_arguments(&self, job: &Job) -> Vec<String> {
        let mut list = vec!["image".to_owned(), "update".to_owned()];
        list.extend(job.specs.iter().map(|path| path.display().to_string()));
        if job.update == UpdatePolicy::Security {
            list.extend(["--only".to_owned(), "security".to_owned()]);
        }
        list.extend(["--arch".to_owned(), job.arch.to_string()]);
        list.extend(self.common(job));
        list
    }

    fn common(&self, job: &Job) -> Vec<String> {
        let lock = self.lock(job).display().to_string();
        let mut list = vec!["--store".to_owned(), self.store.display().to_string()];
        list.extend(["--lock".to_owned(), lock]);
        if let Some(config) = &self.settings.config {
            list.extend(["--config".to_owned(), config.display().to_string()]);
        }
        if let Some(mirror) = &self.mirror {
            list.extend(["--mirror".to_owned(), mirror.clone()]);
        }
        list
    }

    fn lock(&self, job: &Job) -> PathBuf {
        job.lock.clone().unwrap_or_else(|| self.locks.join(format!("{}.lock", job.image)))
    }

    /// Runs this program with other arguments and returns what it printed.
    async fn call(
        &self,
        arguments: Vec<String>,
        live: &Arc<Mutex<Live>>,
    ) -> Result<Vec<u8>, String> {
        let program = match &self.settings.program {
            Some(program) => program.clone(),
            None => {
                std::env::current_exe().map_err(|e| format!("no program to build with: {e}"))?
            }
        };
        let cannot = |error| format!("cannot run {}: {error}", program.display());
        let mut command = Command::new(&program);
        if let Some(keys) = &self.settings.keys {
            command.env("KILN_KEY_DIR", keys);
        }
        let mut child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LISTEN_FDS")
            .env("NO_COLOR", "1")
            .kill_on_drop(true)
            .spawn()
            .map_err(cannot)?;
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        let report = async {
            let mut report = Vec::new();
            if let Some(output) = output {
                output.take(MAX_REPORT).read_to_end(&mut report).await?;
            }
            std::io::Result::Ok(report)
        };
        let last = async {
            match errors {
                Some(errors) => follow(errors, live).await,
                None => String::new(),
            }
        };
        let (report, last, status) = tokio::join!(report, last, child.wait());
        let status = status.map_err(cannot)?;
        match status.success() {
            true => report.map_err(cannot),
            false => Err(reason(&last, status)),
        }
    }
}

/// Says why a build failed: its last words, or how it ended.
fn reason(last: &str, status: ExitStatus) -> String {
    match last.trim().trim_start_matches("kiln: ") {
        "" => format!("the build ended without a word ({status})"),
        words => words.to_owned(),
    }
}

/// Takes every line, and returns the last one that is not an event.
async fn follow(errors: impl AsyncRead + Unpin, live: &Arc<Mutex<Live>>) -> String {
    let mut lines = BufReader::new(errors);
    let (mut line, mut last) = (Vec::new(), String::new());
    loop {
        line.clear();
        match (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return last,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let mut live = live.lock().unwrap_or_else(PoisonError::into_inner);
        live.take(&text);
        if !text.starts_with('{') && !text.trim().is_empty() {
            last = text.trim_end().chars().filter(|c| !c.is_control()).take(1000).collect();
        }
    }
}

/// Makes the folder for lock files.
pub(super) fn make_locks(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)
}

#[cfg(test)]
#[path = "child_tests.rs"]
mod tests;
