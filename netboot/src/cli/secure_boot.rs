//! `kiln key secure-boot`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use kiln_builder::durable;
use kiln_builder::output::secure_boot::{create_key, signature_list};

use super::Failure;
use super::machine::DryArg;

/// The key that UEFI programs are signed with
#[derive(Debug, Args)]
pub struct SecureBootArgs {
    #[command(subcommand)]
    command: SecureBootCommand,
}

#[derive(Debug, Subcommand)]
enum SecureBootCommand {
    /// Make a key, and its certificate in the forms that firmware takes
    ///
    /// Writes secure-boot.key (keep it: whoever has it can make what your machines start), secure-boot.pem,
    /// secure-boot.cer (for the setup menu of the firmware) and secure-boot.esl (for tools that enrol keys).
    Create {
        /// Folder to write to
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Name in the certificate, which some setup menus show
        #[arg(long, default_value = "Kiln Secure Boot")]
        name: String,
        #[command(flatten)]
        dry: DryArg,
    },
}

pub(super) fn run(args: &SecureBootArgs) -> Result<(), Failure> {
    let SecureBootCommand::Create { dir, name, dry } = &args.command;
    let file = |ending: &str| dir.join(format!("secure-boot.{ending}"));
    let key_file = file("key");
    if key_file.exists() {
        // Machines that trust the old one would start nothing of ours any more.
        let error = anyhow!("{} is there already; move it away first", key_file.display());
        return Err(Failure::new(Failure::CONFLICT, error));
    }
    if dry.dry_run {
        let files = ["pem", "cer", "esl", "key"].map(|ending| file(ending).display().to_string());
        println!("would write {}", files.join(", "));
        return Ok(());
    }
    let key = create_key(name)?;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let list = signature_list(&key.certificate, [0; 16]);
    write(&file("pem"), key.certificate_pem.as_bytes(), 0o644)?;
    write(&file("cer"), key.certificate.der(), 0o644)?;
    write(&file("esl"), &list, 0o644)?;
    // Last: without it the rest is of no use and may be made again.
    write(&key_file, key.key_pem.as_bytes(), 0o600)?;
    println!("{}", key_file.display());
    Ok(())
}

/// Puts a file in its place in one step, so that there is no half of a key.
fn write(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    durable::replace(path, bytes, mode).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_for_its_owner_alone_and_is_never_replaced() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("new");
        let args = |dry_run| SecureBootArgs {
            command: SecureBootCommand::Create {
                dir: dir.clone(),
                name: "test".to_owned(),
                dry: DryArg { dry_run },
            },
        };
        run(&args(true)).unwrap();
        assert!(!dir.exists());
        run(&args(false)).unwrap();
        let mode = |ending: &str| {
            let path = dir.join(format!("secure-boot.{ending}"));
            std::fs::metadata(path).unwrap().permissions().mode() & 0o777
        };
        assert_eq!(
            [mode("key"), mode("pem"), mode("cer"), mode("esl")],
            [0o600, 0o644, 0o644, 0o644]
        );
        for dry_run in [true, false] {
            assert_eq!(run(&args(dry_run)).unwrap_err().code(), Failure::CONFLICT);
        }
    }
}
