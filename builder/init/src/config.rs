//! What the image and the server tell this machine, in two small files.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::error::BootError;
use crate::health::Health;

/// Where the image describes itself.
pub(crate) const IMAGE: &str = "/etc/kiln/image.json";
/// Where the server describes this machine and this boot.
pub(crate) const MACHINE: &str = "/etc/kiln/machine.json";

/// The most that either file may have.
const LARGEST: u64 = 1 << 20;

/// What is the same for every machine that boots this image.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Image {
    pub(crate) image: String,
    /// Modules to load besides those that the hardware asks for.
    pub(crate) modules: Vec<String>,
    pub(crate) services: BTreeMap<String, Service>,
    /// What happens when a container of `onboot` fails, by its name.
    pub(crate) onboot: BTreeMap<String, OnFailure>,
    /// The component that the mark at the end of each archive of the initrd stands for.
    pub(crate) parts: BTreeMap<String, String>,
    /// The least memory of a machine that boots this image, in bytes.
    #[serde(rename = "min-ram")]
    pub(crate) min_ram: Option<u64>,
    /// The network; without, the interface of the boot with DHCP.
    pub(crate) network: Option<serde_json::Value>,
    /// The partition that is kept from image to image.
    pub(crate) state: Option<StateDisk>,
    /// After how many milliseconds a watchdog resets a machine that hangs; 0 for never.
    pub(crate) watchdog: Option<u64>,
    /// Whether nothing in the image can reach a disk: nobody waits for the drivers of disks then.
    pub(crate) diskless: bool,
}

impl Image {
    /// What is done when nobody knows what the image wants: everything that is there is started.
    pub(crate) fn guess() -> Self {
        let modules = ["overlay", "af_packet", "loop", "squashfs"].map(str::to_owned);
        Self { modules: modules.into(), ..Self::default() }
    }
}

/// The partition at `/var/lib/state`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct StateDisk {
    /// Its name in the partition table.
    pub(crate) label: String,
    /// In bytes.
    pub(crate) min_size: u64,
    /// In which form this image keeps its data.
    pub(crate) schema: u32,
    /// The lowest schema of an image that can use the data after this one.
    pub(crate) compatible: u32,
    /// Whether the machine is of use without it.
    pub(crate) required: bool,
    /// How long it is waited for, in milliseconds.
    pub(crate) timeout: u64,
    /// The bundles of those containers that keep something there.
    pub(crate) containers: Vec<String>,
}

impl StateDisk {
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout)
    }
}

/// What happens when a container of `onboot` fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OnFailure {
    #[default]
    Continue,
    Halt,
    Reboot,
}

/// How a service is kept.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Service {
    pub(crate) restart: Restart,
    /// Pause before the first new start, in milliseconds; it doubles with each fault.
    pub(crate) delay: Option<u64>,
    /// The longest pause.
    #[serde(rename = "max-delay")]
    pub(crate) max_delay: Option<u64>,
    /// Services that have to be up before this one starts.
    pub(crate) after: Vec<String>,
    pub(crate) health: Option<Health>,
}

/// What happens when a service ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Restart {
    #[default]
    Always,
    OnFailure,
    #[serde(alias = "no")]
    Never,
}

/// What is only for this machine and this boot.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Machine {
    /// `http://ADDRESS:PORT` of the server.
    pub(crate) server: String,
    pub(crate) boot: i64,
    pub(crate) token: String,
    #[serde(default)]
    pub(crate) hostname: Option<String>,
    /// The network card over which the machine booted.
    #[serde(default)]
    pub(crate) mac: Option<String>,
    #[serde(default)]
    pub(crate) version: Option<String>,
    /// The address that this card had while the machine booted.
    #[serde(default)]
    pub(crate) address: Option<String>,
    /// The network of this machine, in the place of the image's.
    #[serde(default)]
    pub(crate) network: Option<serde_json::Value>,
    /// The public keys whose signatures count, in hexadecimal digits.
    #[serde(default)]
    pub(crate) keys: Vec<String>,
    /// The disk on which a state partition may be made: `serial:…`, `wwn:…` or `path:…`.
    #[serde(default, rename = "state-disk")]
    pub(crate) state_disk: Option<String>,
    /// How the server is talked to where the site encrypts; then `server` is for older programs only.
    #[serde(default)]
    pub(crate) secure: Option<Secure>,
}

/// What is needed to talk to the server by TLS.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Secure {
    /// `https://ADDRESS:PORT`.
    pub(crate) server: String,
    /// The certificate of the site's authority (DER), in hexadecimal digits.
    pub(crate) authority: String,
    /// What the server's clock showed when this boot began, in seconds since 1970.
    pub(crate) time: u64,
}

/// Reads one of the files; `None` when it is not there.
pub(crate) fn read<T: serde::de::DeserializeOwned>(path: &str) -> Result<Option<T>, BootError> {
    let path = Path::new(path);
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(BootError::Read { path: path.into(), source }),
    };
    let mut text = Vec::new();
    file.take(LARGEST)
        .read_to_end(&mut text)
        .map_err(|source| BootError::Read { path: path.into(), source })?;
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| BootError::Parse { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_file_is_read_and_a_service_without_settings_restarts_always() {
        let image: Image = serde_json::from_str(
            r#"{"image":"demo","arch":"x86_64","modules":["overlay"],
                "services":{"web":{},"job":{"restart":"on-failure","after":["web"]}}}"#,
        )
        .unwrap();
        assert_eq!(image.modules, ["overlay"]);
        assert_eq!(image.services["web"].restart, Restart::Always);
        assert_eq!(image.services["job"].restart, Restart::OnFailure);
        assert_eq!(image.services["job"].after, ["web"]);
    }

    #[test]
    fn a_machine_file_is_read() {
        let machine: Machine = serde_json::from_str(
            r#"{"server":"http://10.0.0.1:8080","boot":12,"token":"ab","hostname":"n1",
                "mac":"52:54:00:00:00:01","version":"sha256:0"}"#,
        )
        .unwrap();
        assert_eq!(machine.boot, 12);
        assert_eq!(machine.hostname.as_deref(), Some("n1"));
    }

    #[test]
    fn the_partition_of_an_image_and_the_disk_of_a_machine_are_read() {
        let image: Image = serde_json::from_str(
            r#"{"state":{"label":"kiln-state","min-size":1048576,"schema":3,"compatible":2,
                "required":true,"timeout":5000,"containers":["/containers/services/db"]}}"#,
        )
        .unwrap();
        let state = image.state.unwrap();
        assert_eq!((state.min_size, state.schema, state.compatible), (1 << 20, 3, 2));
        assert_eq!(state.timeout(), Duration::from_secs(5));
        assert!(state.required && state.containers == ["/containers/services/db"]);
        let machine: Machine = serde_json::from_str(
            r#"{"server":"http://10.0.0.1","boot":1,"token":"ab","state-disk":"serial:A"}"#,
        )
        .unwrap();
        assert_eq!(machine.state_disk.as_deref(), Some("serial:A"));
    }

    #[test]
    fn a_file_that_is_not_there_is_no_fault() {
        assert!(read::<Image>("/nonexistent/image.json").unwrap().is_none());
    }
}
