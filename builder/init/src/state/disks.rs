//! The disks of this machine, as the kernel describes them in `/sys`.

use std::fs;
use std::io::Read;
use std::path::Path;

/// What the kernel counts sizes in here, whatever the sectors of the disk are.
const UNIT: u64 = 512;
/// More than any file of `/sys` that is read here has.
const LONGEST: u64 = 4096;

/// A disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Disk {
    /// As in `/dev`.
    pub(super) name: String,
    /// In bytes.
    pub(super) size: u64,
    /// Bytes of the pieces it is written in.
    pub(super) sector: u64,
    pub(super) read_only: bool,
    /// Whether something was made of it or of its partitions, such as an array.
    pub(super) held: bool,
    pub(super) serials: Vec<String>,
    pub(super) wwns: Vec<String>,
    /// Where it is plugged in, below `/sys/devices`.
    pub(super) path: String,
    pub(super) partitions: Vec<Partition>,
}

/// A partition, as the kernel has read it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Partition {
    pub(super) name: String,
    pub(super) label: String,
    /// Both in bytes.
    pub(super) start: u64,
    pub(super) size: u64,
}

impl Disk {
    /// Says whether this is the disk that the server names: `serial:…`, `wwn:…` or `path:…`.
    pub(super) fn is(&self, named: &str) -> bool {
        let Some((kind, value)) = named.split_once(':') else { return false };
        let value = value.trim();
        if value.is_empty() {
            return false;
        }
        match kind {
            "serial" => self.serials.iter().any(|serial| serial == value),
            "wwn" => self.wwns.iter().any(|wwn| wwn == bare(&value.to_ascii_lowercase())),
            "path" => {
                // The name that the kernel gives changes from boot to boot, and names no place.
                let place = self.path.split("/block/").next().unwrap_or_default();
                format!("/{place}/").contains(&format!("/{}/", value.trim_matches('/')))
            }
            _ => false,
        }
    }

    /// Returns what a person knows it by.
    pub(super) fn called(&self) -> String {
        match self.serials.first() {
            Some(serial) => format!("{} (serial {serial})", self.name),
            None => format!("{} (no serial)", self.name),
        }
    }
}

/// Returns every disk, sorted by name.
pub(super) fn scan(sys: &Path) -> Vec<Disk> {
    let Ok(entries) = fs::read_dir(sys.join("block")) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut disks: Vec<Disk> = names.filter_map(|name| disk(sys, name)).collect();
    disks.sort_by(|a, b| a.name.cmp(&b.name));
    disks
}

fn disk(sys: &Path, name: String) -> Option<Disk> {
    let directory = sys.join("block").join(&name);
    // Only what is a device: no loop, memory or mapped one. A card's boot areas have the card's serial number.
    let area = name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb"));
    if area || name.starts_with("sr") || !directory.join("device").exists() {
        return None;
    }
    let text = |file: &str| text(&directory.join(file));
    let number = |file: &str| text(file).parse::<u64>().unwrap_or(0);
    let size = number("size").saturating_mul(UNIT);
    // One of several ways to a disk that has a name of its own.
    if size == 0 || number("hidden") != 0 {
        return None;
    }
    let mut serials: Vec<String> = ["serial", "device/serial"].map(text).into();
    // SCSI's page with the serial number has a head of four bytes.
    serials.push(text("device/vpd_pg80").chars().skip(4).collect::<String>().trim().to_owned());
    let wwns =
        ["wwid", "device/wwid"].map(|file| bare(&text(file).to_ascii_lowercase()).to_owned());
    let whole = |list: Vec<String>| -> Vec<String> {
        list.into_iter().filter(|text| !text.is_empty()).collect()
    };
    let path = fs::canonicalize(&directory).unwrap_or_default();
    let path = path.to_string_lossy();
    let mut partitions: Vec<Partition> = fs::read_dir(&directory)
        .ok()?
        .flatten()
        .filter(|entry| entry.path().join("partition").exists())
        .filter_map(|entry| partition(&entry.path(), entry.file_name().into_string().ok()?))
        .collect();
    partitions.sort_by(|a, b| a.name.cmp(&b.name));
    let places = partitions.iter().map(|it| directory.join(&it.name)).chain([directory.clone()]);
    let held = places
        .map(|place| place.join("holders"))
        .any(|holders| fs::read_dir(holders).is_ok_and(|mut all| all.next().is_some()));
    Some(Disk {
        size,
        sector: number("queue/logical_block_size"),
        read_only: number("ro") != 0,
        held,
        serials: whole(serials),
        wwns: whole(wwns.into()),
        path: path.split_once("/devices/").map_or("", |(_, path)| path).to_owned(),
        partitions,
        name,
    })
}

fn partition(directory: &Path, name: String) -> Option<Partition> {
    let number = |file: &str| text(&directory.join(file)).parse::<u64>().ok()?.checked_mul(UNIT);
    let about = text(&directory.join("uevent"));
    let label = about.lines().find_map(|line| line.strip_prefix("PARTNAME=")).unwrap_or_default();
    Some(Partition {
        name,
        label: label.to_owned(),
        start: number("start")?,
        size: number("size")?,
    })
}

/// Leaves the kind of a name that is worldwide unique out: `naa.`, `eui.`, `0x`.
fn bare(wwn: &str) -> &str {
    ["naa.", "eui.", "nvme.", "uuid.", "t10.", "0x"]
        .iter()
        .find_map(|kind| wwn.strip_prefix(kind))
        .unwrap_or(wwn)
}

fn text(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        let _ = file.take(LONGEST).read_to_end(&mut bytes);
    }
    // Each byte is one letter, so that the head of a binary page can be left out.
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    text.trim_end_matches(['\0', '\n', ' ']).to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    /// A pretended `/sys` that is taken away at the end.
    struct Sys(PathBuf);

    impl Drop for Sys {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn sys(name: &str, files: &[(&str, &[u8])]) -> Sys {
        let root = std::env::temp_dir().join(format!("kiln-disks-{name}-{}", std::process::id()));
        let real = root.join("devices/pci0000:00/0000:00:04.0/virtio1/block/vda");
        for (path, content) in files {
            let path = real.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        fs::create_dir_all(real.join("device")).unwrap();
        fs::create_dir_all(root.join("block")).unwrap();
        symlink(&real, root.join("block/vda")).unwrap();
        fs::create_dir_all(root.join("block/loop0")).unwrap();
        Sys(root)
    }

    #[test]
    fn a_disk_is_known_with_its_names_and_partitions_and_what_is_no_device_is_not() {
        let sys = sys(
            "known",
            &[
                ("size", b"2048\n"),
                ("ro", b"0\n"),
                ("queue/logical_block_size", b"512\n"),
                ("serial", b"S1 23"),
                ("device/vpd_pg80", b"\0\x80\0\x08ABC  \n"),
                ("device/wwid", b"naa.5000C50012345678\n"),
                ("vda1/partition", b"1\n"),
                ("vda1/start", b"64\n"),
                ("vda1/size", b"128\n"),
                ("vda1/uevent", b"DEVTYPE=partition\nPARTNAME=kiln-state\n"),
            ],
        );
        let disks = scan(&sys.0);
        let [disk] = disks.as_slice() else { panic!("{disks:?}") };
        assert_eq!((disk.name.as_str(), disk.size, disk.sector), ("vda", 1 << 20, 512));
        assert_eq!(disk.serials, ["S1 23", "ABC"]);
        let partition = &disk.partitions[0];
        assert_eq!((partition.label.as_str(), partition.start), ("kiln-state", 32768));
        for named in [
            "serial:S1 23",
            "serial:ABC",
            "wwn:5000c50012345678",
            "wwn:0x5000C50012345678",
            "path:0000:00:04.0",
            "path:pci0000:00/0000:00:04.0/virtio1",
        ] {
            assert!(disk.is(named), "{named}");
        }
        for named in
            ["serial:", "serial:AB", "wwn:naa.", "path:04.0", "path:vda", "path:/", "vda", ""]
        {
            assert!(!disk.is(named), "{named}");
        }
    }

    #[test]
    fn a_disk_without_a_medium_is_none_and_one_without_names_is_never_named() {
        assert!(scan(&sys("empty", &[("size", b"0\n")]).0).is_empty());
        let bare = sys("bare", &[("size", b"2048\n")]);
        let disk = &scan(&bare.0)[0];
        assert_eq!(disk.called(), "vda (no serial)");
        assert!(!disk.is("serial:") && !disk.is("wwn:"));
        assert!(scan(Path::new("/nonexistent")).is_empty());
    }
}
