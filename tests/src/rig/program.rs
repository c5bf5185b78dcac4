use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
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
    run(Command::new(program()).args(arguments))
}

/// Runs `kiln` with these arguments in a folder, which is also the user's home.
pub(crate) fn kiln_in(folder: &Path, arguments: &[impl AsRef<OsStr>]) -> anyhow::Result<Finished> {
    run(Command::new(program()).args(arguments).current_dir(folder).env("HOME", folder))
}

fn run(command: &mut Command) -> anyhow::Result<Finished> {
    let output = command
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
