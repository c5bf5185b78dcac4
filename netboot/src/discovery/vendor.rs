//! Who made a network card, by the first three bytes of its address.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use kiln_types::Mac;

/// The registry of Debian's package `ieee-data`, where that is installed.
const REGISTRY: &str = "/usr/share/ieee-data/oui.txt";
/// The longest file that is read: the registry has 6 MB.
const MOST_BYTES: u64 = 32 << 20;
/// The longest name.
const MAX_NAME: usize = 80;

/// Makers of servers, virtual machines and small boards, by short names that are the same everywhere.
const KNOWN: [(u32, &str); 38] = [
    (0x525400, "qemu"),
    (0x00163e, "xen"),
    (0x005056, "vmware"),
    (0x000c29, "vmware"),
    (0x000569, "vmware"),
    (0x00155d, "hyper-v"),
    (0x080027, "virtualbox"),
    (0xb827eb, "raspberry-pi"),
    (0xdca632, "raspberry-pi"),
    (0xe45f01, "raspberry-pi"),
    (0x28cdc1, "raspberry-pi"),
    (0xd83add, "raspberry-pi"),
    (0x2ccf67, "raspberry-pi"),
    (0x002590, "supermicro"),
    (0x003048, "supermicro"),
    (0x0cc47a, "supermicro"),
    (0xac1f6b, "supermicro"),
    (0x3cecef, "supermicro"),
    (0x7cc255, "supermicro"),
    (0x001422, "dell"),
    (0x1866da, "dell"),
    (0xb083fe, "dell"),
    (0xf8bc12, "dell"),
    (0xecf4bb, "dell"),
    (0x246e96, "dell"),
    (0x941882, "hpe"),
    (0x3ca82a, "hpe"),
    (0x9cb654, "hp"),
    (0x3cd92b, "hp"),
    (0x001b21, "intel"),
    (0xa0369f, "intel"),
    (0x3cfdfe, "intel"),
    (0x0002c9, "mellanox"),
    (0xb8599f, "mellanox"),
    (0x00044b, "nvidia"),
    (0x48b02d, "nvidia"),
    (0x00e04c, "realtek"),
    (0x70b3d5, "ieee-small-block"),
];

/// Who made what.
#[derive(Clone, Debug, Default)]
pub struct Vendors {
    registry: Arc<HashMap<u32, Box<str>>>,
}

impl Vendors {
    /// Reads the registry of this host, where it has one. Without it, only usual makers are known.
    pub fn of_host() -> Self {
        Self::read(Path::new(REGISTRY))
    }

    fn read(path: &Path) -> Self {
        let fits = std::fs::metadata(path).is_ok_and(|file| file.len() <= MOST_BYTES);
        let bytes = fits.then(|| std::fs::read(path).ok()).flatten().unwrap_or_default();
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    /// Reads lines such as `28-6F-B9   (hex)   Example Corp.`, with tabs or blanks between.
    fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (number, name) = line.split_once("(hex)")?;
            let number = u32::from_str_radix(&number.trim().replace('-', ""), 16).ok()?;
            let name: String =
                name.trim().chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
            (number <= 0xffffff && !name.is_empty()).then(|| (number, name.into_boxed_str()))
        };
        Self { registry: Arc::new(text.lines().filter_map(line).collect()) }
    }

    /// Returns who made a card. Nobody, when its address was made up by a system.
    pub fn of(&self, mac: Mac) -> Option<&str> {
        let [a, b, c, ..] = mac.octets();
        let number = u32::from_be_bytes([0, a, b, c]);
        let known = KNOWN.iter().find(|(known, _)| *known == number).map(|(_, name)| *name);
        known.or_else(|| self.registry.get(&number).filter(|_| a & 2 == 0).map(|name| &**name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makers_are_known_by_heart_and_from_the_registry() {
        let text = "OUI/MA-L\t\tOrganization\n28-6F-B9   (hex)\t\tExample\u{1b} Corp.\r\n286FB9     (base 16)\t\tExample\n\
                    00-25-90   (hex)\t\tSuper Micro Computer, Inc.\nzz-00-00 (hex) x\n02-00-00 (hex)\t\tNobody\n";
        let vendors = Vendors::parse(text);
        let of = |mac: &str| vendors.of(mac.parse().unwrap()).map(str::to_owned);
        assert_eq!(of("28:6f:b9:00:00:01").as_deref(), Some("Example Corp."));
        assert_eq!(of("00:25:90:00:00:01").as_deref(), Some("supermicro"), "the short name wins");
        assert_eq!(of("52:54:00:00:00:01").as_deref(), Some("qemu"));
        assert_eq!(of("02:00:00:00:00:01"), None, "made up by a system");
        assert_eq!(of("28:6f:ba:00:00:01"), None);
        assert!(
            Vendors::read(Path::new("/nonexistent"))
                .of("28:6f:b9:00:00:01".parse().unwrap())
                .is_none()
        );
    }
}
