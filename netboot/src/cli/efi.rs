use std::path::PathBuf;

use clap::Args;
use kiln_builder::output::{EfiSettings, Signing};

/// How to write files that UEFI boots
#[derive(Args, Clone, Debug, Default)]
pub(super) struct EfiArgs {
    /// Sign UEFI programs with this key (PEM); `kiln key secure-boot create` makes one
    #[arg(long, value_name = "FILE", requires = "sign_cert", conflicts_with = "sign_command")]
    sign_key: Option<PathBuf>,
    /// Certificate of the key (PEM)
    #[arg(long, value_name = "FILE")]
    sign_cert: Option<PathBuf>,
    /// Sign by a command, which gets what is to be signed as its input and prints the signature (RSA, SHA-256)
    #[arg(long, value_name = "COMMAND", requires = "sign_cert")]
    sign_command: Option<String>,
    /// Size of disk images, such as 4G; what the boot partition leaves is a partition for state
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    disk_size: Option<u64>,
    /// Name of the partition for state; kiln-state
    #[arg(long, value_name = "NAME", requires = "disk_size")]
    state_label: Option<String>,
    /// systemd's stub; that of Debian's package systemd-boot-efi
    #[arg(long, value_name = "FILE")]
    stub: Option<PathBuf>,
}

impl EfiArgs {
    /// Returns what was said.
    pub(super) fn settings(&self) -> EfiSettings {
        let certificate = self.sign_cert.clone();
        let key = self.sign_key.clone().zip(certificate.clone());
        let key = key.map(|(key, certificate)| Signing::Key { key, certificate });
        let command = self.sign_command.clone().zip(certificate);
        let command = command.map(|(command, certificate)| Signing::Command {
            command: command.into(),
            certificate,
        });
        EfiSettings {
            signing: key.or(command),
            disk_size: self.disk_size,
            state_label: self.state_label.clone(),
            stub: self.stub.clone(),
        }
    }
}

/// Reads a number of bytes, with K, M, G or T for powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..).unwrap_or_default() {
        "" => 0,
        "K" | "k" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        unit => return Err(format!("unknown unit `{unit}`; use K, M, G or T")),
    };
    let number: u64 = digits.parse().map_err(|_| "give a size such as 512M or 4G".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "that is more than there is".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, size) in
            [("4096", 4096), ("1K", 1024), ("512M", 512 << 20), ("4G", 4 << 30), ("1T", 1 << 40)]
        {
            assert_eq!(parse_size(text), Ok(size));
        }
        for bad in ["", "G", "4GB", "-1", "1.5G", "99999999999T"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_needs_its_certificate() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            efi: EfiArgs,
        }
        let parse = |line: &[&str]| <Line as clap::Parser>::try_parse_from(line);
        assert!(parse(&["x", "--sign-key", "k"]).is_err());
        assert!(parse(&["x", "--sign-command", "c"]).is_err());
        let all = ["x", "--sign-key", "k", "--sign-cert", "c", "--sign-command", "s"];
        assert!(parse(&all).is_err());
        let Ok(line) = parse(&all[..5]) else { panic!() };
        let expected = Signing::Key { key: "k".into(), certificate: "c".into() };
        assert_eq!(line.efi.settings().signing, Some(expected));
    }
}
