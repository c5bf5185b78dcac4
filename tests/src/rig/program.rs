use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context;

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Returns where the program is: `KILN_PROGRAM`, else beside the folder of this test.
pub(crate) fn program() -> PathBuf {
    if let Some(path) = env::var_os("KILN_PROGRAM") {
        return path.into();
    }
    let this = env::current_exe().unwrap_or_default();
    this.ancestors().nth(2).map(|folder| folder.join("kiln")).unwrap_or_default()
}

/// Runs `kiln` with these arguments.
pub(crate) fn kiln(arguments: &[impl AsRef<OsStr>]) -> anyhow::Result<Finished> {
    let output = Command::new(program())
        .args(arguments)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", program().display()))?;
    Ok(Finished {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
