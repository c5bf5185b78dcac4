//! `kiln support-bundle`.

mod allow;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use kiln_builder::durable::{folder_of, persist};
use serde_json::{Value, json};

use super::client::Client;
use super::{ClientArgs, ConfigArg, Failure, Output, print};
use crate::boots::now_ms;
use crate::doctor::{self, Asked};
use crate::settings::{DEFAULT_SOCKET, Settings};

/// The folder in the archive.
const FOLDER: &str = "kiln-support";
/// How many boots, and how many changes, are told of.
const BOOTS: usize = 100;
const CHANGES: usize = 1000;
/// The boots that failed of which there is the timeline.
const TIMELINES: usize = 20;

/// Write an archive with what helps to find out what is wrong, and no secrets
///
/// It has the settings, the version, what `kiln doctor` says, the latest boots with their verdicts, metrics, who changed
/// what in the log of changes, and figures of the inventory. What goes into it is on a list; anything else stays out:
/// passwords, tokens, keys, metadata, kernel arguments, URLs with a user. Look into it before you give it away: names and
/// addresses of machines are in it. To be run on the host of the server, best as root.
#[derive(Args, Debug)]
pub struct SupportArgs {
    /// The file; without it, kiln-support-TIME.tar.gz here
    #[arg(short, long, value_name = "FILE.tar.gz")]
    output: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArg,
    /// Socket of the running server; where there is none, what it knows is left out
    #[arg(long, env = "KILN_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    socket: PathBuf,
}

/// A file of the archive.
type Part = (&'static str, Vec<u8>);

pub(super) async fn run(args: SupportArgs) -> Result<(), Failure> {
    let path = args.output.unwrap_or_else(|| {
        let now = jiff::Timestamp::from_millisecond(now_ms()).unwrap_or_default();
        format!("{FOLDER}-{}.tar.gz", now.strftime("%Y%m%d-%H%M%SZ")).into()
    });
    let client = Client::new(&ClientArgs {
        socket: Some(args.socket),
        server: None,
        token_file: None,
        ca: None,
        output: Output::Json,
        no_headers: false,
    });
    let parts = gather(&args.config.config, &client).await?;
    write(&path, &parts)?;
    let names: Vec<&str> = parts.iter().map(|(name, _)| *name).collect();
    print::say(&format!("{} has {}", path.display(), names.join(", ")))
}

/// Collects every part. What cannot be had is told in `missing.txt`.
pub(super) async fn gather(config: &Path, client: &Client) -> Result<Vec<Part>, Failure> {
    let mut parts = vec![("version.json", pretty(&version())?)];
    let mut missing = String::new();
    let mut miss = |what: &str, why: &dyn std::fmt::Display| {
        let _ = writeln!(missing, "{what}: {}", allow::text(&why.to_string()));
    };
    match fs::read_to_string(config) {
        Ok(text) => parts.push(("settings.json", pretty(&allow::settings(&text))?)),
        Err(error) => miss("settings", &error),
    }
    let settings = Settings::read(config);
    match &settings {
        Ok(settings) => {
            let found = doctor::examine(settings, &Asked::default()).await;
            let found = serde_json::to_value(&found)?;
            parts.push(("doctor.json", pretty(&allow::list(&found, allow::FINDING))?));
        }
        // Its words may quote what is wrong.
        Err(_) => miss("doctor", &"the settings cannot be read; `kiln config check` says why"),
    }
    match client.get::<Value>(&format!("/api/v1/boots?limit={BOOTS}")).await {
        Ok(boots) => {
            let timelines = timelines(client, &boots).await;
            parts.push(("boots.json", pretty(&allow::list(&boots, allow::BOOT))?));
            parts.push(("timelines.json", pretty(&timelines)?));
        }
        Err(failure) => miss("boots", &failure),
    }
    match client.text("/metrics").await {
        Ok(text) => parts.push(("metrics.txt", text.into_bytes())),
        Err(failure) => miss("metrics", &failure),
    }
    match client.text("/readyz?verbose").await {
        Ok(text) => parts.push(("ready.txt", allow::lines(&text).into_bytes())),
        Err(failure) => miss("readiness", &failure),
    }
    let last = match changes(client).await {
        Ok((all, latest)) => {
            let mut lines = String::new();
            for change in &latest {
                let _ = writeln!(lines, "{}", allow::change(change));
            }
            parts.push(("changes.jsonl", lines.into_bytes()));
            all
        }
        Err(failure) => {
            miss("log of changes", &failure);
            0
        }
    };
    let figures = figures(client, settings.as_ref().ok(), last).await;
    parts.push(("inventory.json", pretty(&figures)?));
    if !missing.is_empty() {
        parts.push(("missing.txt", missing.into_bytes()));
    }
    Ok(parts)
}

fn version() -> Value {
    let host = nix::sys::utsname::uname().ok();
    let word = |word: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        host.as_ref().map(|host| word(host).to_string_lossy().into_owned())
    };
    json!({
        "kiln": env!("CARGO_PKG_VERSION"),
        "system": word(|it| it.sysname()),
        "kernel": word(|it| it.release()),
        "arch": word(|it| it.machine()),
        "at": now_ms(),
    })
}

/// Reads the log of changes, which comes in parts. Returns how many there are, and the latest.
async fn changes(client: &Client) -> Result<(usize, VecDeque<Value>), Failure> {
    let (mut count, mut after, mut latest) = (0, 0, VecDeque::new());
    loop {
        let part: Vec<Value> = client.get(&format!("/api/v1/audit?after={after}")).await?;
        let last = part.last().and_then(|change| change.get("id")?.as_i64());
        let Some(last) = last.filter(|last| *last > after) else { return Ok((count, latest)) };
        after = last;
        count += part.len();
        latest.extend(part);
        latest.drain(..latest.len().saturating_sub(CHANGES));
    }
}

/// Returns the steps of the latest boots that did not come up.
async fn timelines(client: &Client, boots: &Value) -> Value {
    let mut found = Vec::new();
    let failed = boots.as_array().into_iter().flatten();
    let failed =
        failed.filter(|boot| boot.get("outcome").and_then(Value::as_str) != Some("healthy"));
    for boot in failed.take(TIMELINES) {
        let Some(id) = boot.get("id").and_then(Value::as_i64) else { continue };
        if let Ok(detail) = client.get::<Value>(&format!("/api/v1/boots/{id}")).await {
            let steps = detail.pointer("/breakdown/steps").cloned().unwrap_or_default();
            found.push(json!({"boot": id, "steps": allow::list(&steps, allow::STEP)}));
        }
    }
    Value::Array(found)
}

/// Counts what is in the inventory.
async fn figures(client: &Client, settings: Option<&Settings>, changes: usize) -> Value {
    let count = async |path: &str| client.get::<Vec<Value>>(path).await.ok().map(|all| all.len());
    let database = settings.map(Settings::database);
    let file = database.as_ref().and_then(|database| database.file().map(Path::to_owned));
    let size = |path: &Path| fs::metadata(path).ok().map(|it| it.len());
    let log = file.as_ref().map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push("-wal");
        PathBuf::from(name)
    });
    json!({
        "kind": database.map(|_| if file.is_some() { "sqlite" } else { "postgres" }),
        "bytes": file.as_deref().and_then(size),
        "log_bytes": log.as_deref().and_then(size),
        "machines": count("/api/v1/machines?fields=id").await,
        "groups": count("/api/v1/groups").await,
        "leases": count("/api/v1/leases?fields=address").await,
        "changes": changes,
    })
}

fn pretty(value: &Value) -> Result<Vec<u8>, Failure> {
    Ok(serde_json::to_vec_pretty(value)?)
}

/// Writes the archive: whole or not there, and nobody else's to read.
pub(super) fn write(path: &Path, parts: &[Part]) -> Result<(), Failure> {
    let folder = folder_of(path);
    // A file of that kind is its owner's alone from the first byte on.
    let file = tempfile::NamedTempFile::new_in(folder)
        .with_context(|| format!("cannot write to {}", folder.display()))?;
    let packed = flate2::write::GzEncoder::new(file, flate2::Compression::default());
    let mut archive = tar::Builder::new(packed);
    for (name, bytes) in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(bytes.len())?);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(now_ms() / 1000).unwrap_or(0));
        archive.append_data(&mut header, format!("{FOLDER}/{name}"), bytes.as_slice())?;
    }
    let mut file = archive.into_inner()?.finish()?;
    file.flush()?;
    persist(file, path, 0o600).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests;
