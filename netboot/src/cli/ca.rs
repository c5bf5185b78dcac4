//! `kiln ca`.

use std::io::Write as _;

use anyhow::anyhow;
use clap::{Args, Subcommand, ValueEnum};
use kiln_builder::output::Certificate;
use kiln_builder::output::secure_boot::signature_list;
use kiln_builder::trust::KeyDir;
use serde::Serialize;

use super::confirm::Sure;
use super::machine::DryArg;
use super::print::{self, How};
use super::{Failure, KeyPlaceArgs, Output};
use crate::tls::Authority;

/// The certificate authority of this site, for HTTPS
///
/// With `[https] port` in its settings the server speaks HTTPS, with a certificate that this authority signs. Firmware
/// fetches from it once the authority's certificate is enrolled there. The authority is made at first use, in the
/// folder of the site's key: by the server that starts, or by `kiln ca show`.
#[derive(Debug, Args)]
pub struct CaArgs {
    #[command(subcommand)]
    command: CaCommand,
}

#[derive(Debug, Subcommand)]
enum CaCommand {
    /// Show the authority, and make it if there is none
    Show {
        #[command(flatten)]
        place: KeyPlaceArgs,
        /// How to print the answer
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Output,
    },
    /// Print its certificate, for machines and other clients to trust
    Export {
        #[command(flatten)]
        place: KeyPlaceArgs,
        /// Form of the certificate
        #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
        format: Form,
    },
    /// Replace it by a new one; machines trust the server again when they are given the new certificate
    Rotate {
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        place: KeyPlaceArgs,
    },
}

/// Form of a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Text, as most programs take it
    #[default]
    Pem,
    /// The bytes alone, as menus of firmware take them from a disk
    Der,
    /// An EFI signature list: the value of the variable TlsCaCertificate, and qemu's etc/edk2/https/cacerts
    Esl,
}

#[derive(Serialize)]
struct Row<'a> {
    ca: String,
    path: String,
    certificate: &'a str,
}

pub(super) fn run(args: &CaArgs) -> Result<(), Failure> {
    match &args.command {
        CaCommand::Show { place, output } => {
            let authority = Authority::open(&place.keys()?)?;
            let path = authority.path().display().to_string();
            let row = Row { ca: authority.name(), path, certificate: authority.pem() };
            print::one(How::new(*output), &row.ca, &row, || {
                format!("ca      {}\nfile    {}\n\n{}", row.ca, row.path, row.certificate.trim())
            })
        }
        CaCommand::Export { place, format } => {
            Ok(std::io::stdout().write_all(&exported(&place.keys()?, *format)?)?)
        }
        CaCommand::Rotate { sure, dry, place } => {
            let folder = place.keys()?;
            if dry.dry_run {
                match Authority::present(&folder)? {
                    Some(old) => println!(
                        "{} in {} would be replaced by a new one",
                        old.name(),
                        old.path().display()
                    ),
                    None => println!("there is no authority; one would be made"),
                }
                return Ok(());
            }
            let at = folder.path().display();
            sure.ask(&format!(
                "the authority in {at} will be replaced: machines that know only the old one refuse the server from its next start on. Go on?"
            ))?;
            let authority = Authority::rotate(&folder)?;
            println!(
                "{} signs from the next start of the server on; give `kiln ca export` to all machines",
                authority.name()
            );
            Ok(())
        }
    }
}

/// Returns the certificate of the authority that there is.
fn exported(keys: &KeyDir, format: Form) -> Result<Vec<u8>, Failure> {
    let Some(authority) = Authority::present(keys)? else {
        let at = keys.path().display();
        let error = anyhow!(
            "there is no authority in {at}; the server makes it when it starts with [https], and so does `kiln ca show`. \
             Where its keys are elsewhere, name its settings with --config"
        );
        return Err(Failure::new(Failure::NOT_FOUND, error));
    };
    Ok(match format {
        Form::Pem => authority.pem().as_bytes().to_vec(),
        Form::Der => authority.der().to_vec(),
        Form::Esl => Certificate::parse(authority.der().to_vec())
            .map(|certificate| signature_list(&certificate, [0; 16]))
            .ok_or_else(|| anyhow!("the authority has no certificate"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_that_is_not_there_is_not_made_to_be_exported() {
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyDir::new(dir.path().join("keys"));
        let missing = exported(&keys, Form::Pem).unwrap_err();
        assert_eq!(missing.code(), Failure::NOT_FOUND);
        assert!(missing.to_string().contains("`kiln ca show`"), "{missing}");
        assert!(!keys.path().exists());
        let authority = Authority::open(&keys).unwrap();
        assert_eq!(exported(&keys, Form::Pem).unwrap(), authority.pem().as_bytes());
        assert_eq!(exported(&keys, Form::Der).unwrap(), authority.der());
    }
}
