//! Makes a state partition on an empty disk that the server names for this machine.
//!
//! A note is written first and taken away last; the file system comes before the partition table. So at any moment the
//! disk looks empty, or has our note and nothing but what we wrote, or is whole: a crash in between costs nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Duration;

use nix::fcntl::OFlag;

use super::blank;
use super::bytes::uuid_text;
use super::disks::Disk;
use super::error::StateError;
use super::gpt::{self, Geometry, Guids};
use super::marker::Marker;
use super::tools;
use crate::config::StateDisk;
use crate::console::say;
use crate::process::Children;
use crate::sys;

/// Less is of no use for anything.
const LEAST: u64 = 8 << 20;
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Makes the partition, unless anything is on the disk.
pub(super) fn create(
    disk: &Disk,
    wanted: &StateDisk,
    children: &Children,
) -> Result<(), StateError> {
    let called = disk.called();
    if disk.read_only {
        return Err(StateError::ReadOnly { disk: called });
    }
    if disk.held {
        return Err(StateError::InUse { disk: called });
    }
    if !disk.partitions.is_empty() {
        return Err(StateError::NotEmpty { disk: called, what: "partitions" });
    }
    let geometry = Geometry::new(disk.size, disk.sector);
    let wants = wanted.min_size.max(LEAST);
    let geometry = match geometry {
        Some(geometry) if geometry.partition().1 >= wants => geometry,
        Some(geometry) => {
            let has = geometry.partition().1 >> 20;
            return Err(StateError::DiskTooSmall { disk: called, has, wants: wants >> 20 });
        }
        None if disk.size < LEAST => {
            let has = disk.size >> 20;
            return Err(StateError::DiskTooSmall { disk: called, has, wants: wants >> 20 });
        }
        None => return Err(StateError::Geometry { disk: called }),
    };
    let path = format!("/dev/{}", disk.name.replace('!', "/"));
    let failed = || StateError::io(&called);
    let marker = {
        // Nobody else has it open for themselves; and nothing can be written through this.
        let exclusive = OFlag::O_EXCL.bits();
        let disk = OpenOptions::new().read(true).custom_flags(exclusive).open(&path);
        let disk = disk.map_err(failed())?;
        plan(&disk, geometry, &wanted.label).map_err(failed())?
    };
    let marker = marker.map_err(|what| StateError::NotEmpty { disk: called.clone(), what })?;
    say(&format!("making the state partition {} on {called}", wanted.label));
    let device = OpenOptions::new().read(true).write(true).open(&path).map_err(failed())?;
    marker.write(&device).map_err(failed())?;
    make_file_system(&path, &called, &marker, children)?;
    write_table(&device, &marker).map_err(failed())?;
    // The table counts already: what fails here is done again by the next boot.
    sys::read_partitions_again(&device).map_err(failed())
}

/// Returns what to make of a disk, by its note if it has one, or what else is on it. Only reads.
fn plan(disk: &File, geometry: Geometry, label: &str) -> io::Result<Result<Marker, &'static str>> {
    if let Some(marker) = Marker::read(disk, geometry, label)?
        && marker.covers(disk)?
    {
        say("going on where making the state partition was cut off");
        return Ok(Ok(marker));
    }
    if let Some(what) = blank::first_use(disk, geometry.size)? {
        return Ok(Err(what));
    }
    let guids = Guids { disk: random_guid()?, partition: random_guid()? };
    Ok(Ok(Marker { geometry, guids, file_system: random_guid()?, label: label.to_owned() }))
}

fn make_file_system(
    path: &str,
    called: &str,
    marker: &Marker,
    children: &Children,
) -> Result<(), StateError> {
    let (start, length) = marker.geometry.partition();
    let (uuid, size) = (uuid_text(&marker.file_system), format!("{}k", length >> 10));
    let extended = format!("offset={start},nodiscard");
    // The label of ext4 is shorter than that of a partition.
    let label: String = marker.label.chars().take(16).collect();
    let arguments =
        ["-q", "-F", "-t", "ext4", "-E", &extended, "-U", &uuid, "-L", &label, path, &size];
    let failed = |end: String, words| StateError::Make {
        disk: called.to_owned(),
        program: "mke2fs",
        end,
        words,
    };
    match tools::run(children, "mke2fs", &arguments, PATIENCE) {
        Ok((end, _)) if end.is_success() => Ok(()),
        Ok((end, words)) => Err(failed(format!("it {end}"), words)),
        Err(error) => Err(failed("it did not run to its end".to_owned(), error.to_string())),
    }
}

/// Each piece is on the disk before the next one, and the note goes when all are.
fn write_table(disk: &File, marker: &Marker) -> io::Result<()> {
    disk.sync_all()?;
    for (at, bytes) in gpt::pieces(marker.geometry, marker.guids, &marker.label) {
        disk.write_all_at(&bytes, at)?;
        disk.sync_all()?;
    }
    Marker::clear(disk)
}

/// Returns a GUID of random numbers (version 4 of RFC 9562 §5.4), as both its users take it.
fn random_guid() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    // Never blocks; early numbers may be poor, and these are no secrets.
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    // Partition tables have the third part with its high byte last, file systems first.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[7] = bytes[7] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::testing::disk;
    use super::*;

    const SIZE: u64 = 64 << 20;

    #[test]
    fn a_disk_is_taken_when_it_is_empty_or_has_our_unfinished_work_and_not_otherwise() {
        let geometry = Geometry::new(SIZE, 512).unwrap();
        let disk = disk(SIZE);
        let marker = plan(&disk, geometry, "kiln-state").unwrap().unwrap();
        marker.write(&disk).unwrap();
        assert_eq!(plan(&disk, geometry, "kiln-state").unwrap(), Ok(marker.clone()));
        // Another label is another wish; the note is then what is in the way.
        assert_eq!(plan(&disk, geometry, "other").unwrap(), Err("data"));
        write_table(&disk, &marker).unwrap();
        let whole = plan(&disk, geometry, "kiln-state").unwrap();
        assert_eq!(whole, Err("a partition table"));
        assert_eq!(gpt::read(&disk, geometry).unwrap()[0].name, "kiln-state");
    }

    #[test]
    fn a_disk_with_a_note_and_something_else_is_not_taken() {
        let geometry = Geometry::new(SIZE, 512).unwrap();
        let disk = disk(SIZE);
        let marker = plan(&disk, geometry, "kiln-state").unwrap().unwrap();
        marker.write(&disk).unwrap();
        disk.write_all_at(b"LUKS\xba\xbe", 1 << 20).unwrap();
        assert_eq!(plan(&disk, geometry, "kiln-state").unwrap(), Err("data"));
    }

    #[test]
    fn what_cannot_be_used_is_refused_before_it_is_opened() {
        let children = Children::default();
        let wanted = StateDisk { min_size: 32 << 20, ..StateDisk::default() };
        let usable =
            Disk { name: "no/such".to_owned(), size: SIZE, sector: 512, ..Disk::default() };
        let refused = |disk: Disk| create(&disk, &wanted, &children).unwrap_err().to_string();
        assert!(refused(Disk { read_only: true, ..usable.clone() }).ends_with("can only be read"));
        assert!(refused(Disk { held: true, ..usable.clone() }).contains("in use"));
        let partitions = vec![super::super::disks::Partition::default()];
        assert!(refused(Disk { partitions, ..usable.clone() }).contains("it has partitions"));
        for size in [100, 5 << 20, 20 << 20] {
            let said = refused(Disk { size, ..usable.clone() });
            assert!(said.contains("and the image wants 32 MiB"), "{said}");
        }
        assert!(refused(Disk { sector: 520, ..usable.clone() }).contains("that no disk has"));
        assert!(refused(usable).starts_with("cannot use no/such"));
    }
}
