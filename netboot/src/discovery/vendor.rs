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
    (0x52_54_00, "qemu"),
    (0x00_16_3e, "xen"),
    (0x00_50_56, "vmware"),
    (0x00_0c_29, "vmware"),
    (0x00_05_69, "vmware"),
    (0x00_15_5d, "hyper-v"),
    (0x08_00_27, "virtualbox"),
    (0xb8_27_eb, "raspberry-pi"),
    (0xdc_a6_32, "raspberry-pi"),
    (0xe4_5f_01, "raspberry-pi"),
    (0x28_cd_c1, "raspberry-pi"),
    (0xd8_3a_dd, "raspberry-pi"),
    (0x2c_cf_67, "raspberry-pi"),
    (0x00_25_90, "supermicro"),
    (0x00_30_48, "supermicro"),
    (0x0c_c4_7a, "supermicro"),
    (0xac_1f_6b, "supermicro"),
    (0x3c_ec_ef, "supermicro"),
    (0x7c_c2_55, "supermicro"),
    (0x00_14_22, "dell"),
    (0x18_66_da, "dell"),
    (0xb0_83_fe, "dell"),
    (0xf8_bc_12, "dell"),
    (0xec_f4_bb, "dell"),
    (0x24_6e_96, "dell"),
    (0x94_18_82, "hpe"),
    (0x3c_a8_2a, "hpe"),
    (0x9c_b6_54, "hp"),
    (0x3c_d9_2b, "hp"),
    (0x00_1b_21, "intel"),
    (0xa0_36_9f, "intel"),
    (0x3c_fd_fe, "intel"),
    (0x00_02_c9, "mellanox"),
    (0xb8_59_9f, "mellanox"),
    (0x00_04_4b, "nvidia"),
    (0x48_b0_2d, "nvidia"),
    (0x00_e0_4c, "realtek"),
    (0x70_b3_d5, "ieee-small-block"),
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

    /// Reads lines such as `28-6F-B9   (hex)		Example Corp.`.
    fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (number, name) = line.split_once("(hex)")?;
            let number = u32::from_str_radix(&number.trim().replace('-', ""), 16).ok()?;
            let name: String =
                name.trim().chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
            (number <= 0xff_ff_ff && !name.is_empty()).then(|| (number, name.into_boxed_str()))
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
