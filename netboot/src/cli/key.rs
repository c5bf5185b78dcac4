//! `kiln key`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use kiln_builder::trust::{KeyDir, PublicKey, TrustError, TrustedKey};
use serde::Serialize;

use super::confirm::Sure;
use super::machine::DryArg;
use super::print::{self, Column, How, Listed, col};
use super::secure_boot::{self, SecureBootArgs};
use super::table::plain;
use super::{Failure, KeyPlaceArgs, Output};

/// The largest public key that is read from standard input.
const MAX_INPUT: u64 = 64 << 10;

/// Keys that images are signed with
///
/// Every version that `kiln build` makes is signed with the key of this site, and the server serves only what this
/// key, or another one that is trusted, has signed. The key is made at first use. Its folder is `keys` beside the
/// store, or what `[trust] keys` in the server's settings names: /var/lib/kiln/keys unless told otherwise.
#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Show this site's key, and make it if there is none
    Show {
        #[command(flatten)]
        place: KeyPlaceArgs,
        /// How to print the answer
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Output,
    },
    /// Print the public part of this site's key, for `kiln key trust` elsewhere
    Export {
        #[command(flatten)]
        place: KeyPlaceArgs,
    },
    /// List all keys whose signatures count
    #[command(alias = "ls")]
    List {
        #[command(flatten)]
        place: KeyPlaceArgs,
        /// How to print the answer
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Output,
    },
    /// Replace this site's key by a new one; the old one stays trusted
    Rotate {
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        place: KeyPlaceArgs,
    },
    /// Trust the key of another site
    Trust {
        /// Its public key, as `kiln key export` prints it; `-` is standard input
        file: PathBuf,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        place: KeyPlaceArgs,
    },
    /// Trust a key no longer: what only it has signed is not served any more
    #[command(alias = "rm")]
    Distrust {
        /// Name of the key
        key: String,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        place: KeyPlaceArgs,
    },
    /// The key that UEFI programs are signed with: create
    SecureBoot(SecureBootArgs),
}

#[derive(Serialize)]
struct Row {
    key: String,
    own: bool,
    path: PathBuf,
    public: String,
}

impl Row {
    fn new(trusted: &TrustedKey) -> Self {
        Self {
            key: trusted.key.id().to_string(),
            own: trusted.own,
            path: trusted.path.clone(),
            public: trusted.key.to_pem(),
        }
    }
}

pub(super) fn run(args: &KeyArgs) -> Result<(), Failure> {
    match &args.command {
        KeyCommand::Show { place, output } => {
            let folder = place.keys()?;
            folder.site_key()?;
            let keys = folder.list()?;
            let own: Vec<_> = keys.iter().filter(|key| key.own).map(Row::new).collect();
            let Some(row) = own.first() else { return Ok(()) };
            print::one(How::new(*output), &row.key, row, || {
                format!(
                    "key     {}\nfolder  {}\n\n{}",
                    row.key,
                    folder.path().display(),
                    row.public
                )
            })
        }
        KeyCommand::Export { place } => {
            print!("{}", place.keys()?.site_key()?.public().to_pem());
            Ok(())
        }
        KeyCommand::List { place, output } => {
            let all: Vec<_> = place.keys()?.list()?.iter().map(Row::new).collect();
            print::list(How::new(*output), &all)
        }
        KeyCommand::Rotate { sure, dry, place } => {
            let folder = place.keys()?;
            if dry.dry_run {
                match folder.site_key_id()? {
                    Some(old) => {
                        println!("would sign with a new key from then on; {old} would stay trusted")
                    }
                    None => println!("there is no key; would sign with a new one from then on"),
                }
                return Ok(());
            }
            let at = folder.path().display();
            sure.ask(&format!(
                "the key in {at} will be replaced: versions are signed with a new one from now on, and other sites do not trust it yet. Go on?"
            ))?;
            let (old, new) = folder.rotate()?;
            match old {
                Some(old) => println!(
                    "signs with {} from now on; {old} stays trusted until `kiln key distrust {old}`",
                    new.id()
                ),
                None => println!("there was no key; signs with {} from now on", new.id()),
            }
            Ok(())
        }
        KeyCommand::Trust { file, dry, place } => {
            let (key, folder) = (read(file)?, place.keys()?);
            if dry.dry_run {
                let known = folder.is_trusted(&key)?;
                let what = if known { "is trusted already" } else { "would be trusted" };
                println!("{} {what}", key.id());
                return Ok(());
            }
            let new = folder.trust(&key)?;
            println!("{} is trusted{}", key.id(), if new { "" } else { " already" });
            Ok(())
        }
        KeyCommand::Distrust { key, sure, dry, place } => {
            let failed = |error| match error {
                error @ TrustError::Unknown { .. } => Failure::new(Failure::NOT_FOUND, error),
                error => error.into(),
            };
            let folder = place.keys()?;
            if dry.dry_run {
                let id = folder.may_distrust(key).map_err(failed)?;
                println!("{id} would be trusted no longer");
                return Ok(());
            }
            let shown = plain(key);
            sure.ask(&format!("what only {shown} has signed is served no more. Go on?"))?;
            let id = folder.distrust(key).map_err(failed)?;
            println!("{id} is trusted no longer");
            Ok(())
        }
        KeyCommand::SecureBoot(args) => secure_boot::run(args),
    }
}

impl Listed for Row {
    fn columns() -> Vec<Column<Self>> {
        vec![
            col("key", |it: &Self| it.key.clone()),
            col("", |it| (if it.own { "this site" } else { "" }).to_owned()),
            col("file", |it| it.path.display().to_string()),
        ]
    }

    fn name(&self) -> String {
        self.key.clone()
    }
}

fn read(file: &Path) -> Result<PublicKey, Failure> {
    if file != Path::new("-") {
        return Ok(KeyDir::read_public(file)?);
    }
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_INPUT)
        .read_to_string(&mut text)
        .context("cannot read standard input")?;
    PublicKey::from_pem(&text)
        .ok_or_else(|| anyhow!("there is no Ed25519 public key (PEM) on standard input").into())
}
