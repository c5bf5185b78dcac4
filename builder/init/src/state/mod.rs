//! The state disk: one partition that is kept from image to image, at `/var/lib/state`.
//!
//! ```text
//! disks ─▶ find ─┬─▶ partition with the label ──▶ table, size, file system ─▶ e2fsck -p ─▶ record ─▶ mount
//!                └─▶ none, and the server names an empty disk ─▶ create ─▲
//! ```
//!
//! What the server names comes in `machine.json`, which only machines have that somebody has added to its inventory: to
//! a disk of a machine that nobody approved nothing is written. And whatever is not empty stays as it is.

mod blank;
mod bytes;
mod create;
mod disks;
mod error;
mod ext4;
mod find;
mod gpt;
mod marker;
mod record;
#[cfg(test)]
mod testing;
mod tools;

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use self::disks::{Disk, Partition};
use self::error::StateError;
use self::find::Choice;
use self::gpt::Geometry;
use self::record::Record;
use crate::clock::{uptime, wall_clock_is_unset};
use crate::config::{Image, Machine, StateDisk};
use crate::console::say;
use crate::error::chain;
use crate::modules::Loader;
use crate::mounts;
use crate::phone::{Phase, Phone};
use crate::process::Children;

/// Where it is mounted.
const MOUNT_POINT: &str = "/var/lib/state";
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A disk is only written to when no other has come for this long: one of them may have the partition already.
const SETTLED: Duration = Duration::from_secs(2);
/// How long a partition that was just made may take to appear.
const APPEARS: Duration = Duration::from_secs(10);
/// A large file system that was not unmounted takes its time.
const CHECK_PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How long those that were just ended may take to let go.
const LETTING_GO: Duration = Duration::from_secs(2);

const SAFE: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// What became of the state of this machine.
#[derive(Debug)]
pub(crate) enum State {
    /// The image asks for none, or does without.
    Unneeded,
    /// It is mounted, and had this record.
    Mounted(Option<Record>),
    /// The image asks for it, and it is not there.
    Missing,
}

impl State {
    /// Says whether the machine can become healthy.
    pub(crate) const fn is_as_wanted(&self) -> bool {
        !matches!(self, Self::Missing)
    }

    /// Records, once the machine is healthy, which image uses the data. Not before: until then an older image may
    /// come back, and finds what it left.
    pub(crate) fn record(&self, image: &Image, machine: Option<&Machine>, phone: &Phone) {
        let (Self::Mounted(before), Some(wanted)) = (self, &image.state) else { return };
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let record = Record {
            image: image.image.clone(),
            version: machine.and_then(|machine| machine.version.clone()).unwrap_or_default(),
            time: if wall_clock_is_unset() { 0 } else { time },
            ..Record::after(before.as_ref(), wanted)
        };
        if let Err(error) = record.write(Path::new(MOUNT_POINT)) {
            let sentence = format!("cannot record the schema of the state: {error}");
            say(&sentence);
            phone.tell(Phase::Failed, sentence);
        }
    }
}

/// Mounts the state, where the image asks for it. Without it what needs it is held back, and the rest goes on.
pub(crate) fn set_up(
    image: &Image,
    machine: Option<&Machine>,
    loader: &mut Loader,
    children: &Children,
    phone: &Phone,
) -> State {
    let Some(wanted) = &image.state else { return State::Unneeded };
    // A machine that the server does not know has no such file, and so no disk that may be written to.
    let named = machine.and_then(|machine| machine.state_disk.as_deref());
    match mount_state(wanted, named, loader, children) {
        Ok((partition, record)) => {
            say(&format!("state on {partition}"));
            State::Mounted(record)
        }
        Err(error) => {
            let sentence = format!("no state: {}", chain(&error));
            say(&sentence);
            if let Err(error) = stand_in(wanted.required) {
                say(&format!("{MOUNT_POINT}: {}", chain(&error)));
            }
            if !wanted.required {
                say(&format!("{MOUNT_POINT} is in memory until the machine stops"));
                return State::Unneeded;
            }
            phone.tell(Phase::Failed, sentence);
            children.hold_back(&wanted.containers, &format!("{MOUNT_POINT} is not there"));
            State::Missing
        }
    }
}

/// Puts memory in its place. Where the state is required nothing can be written to it: what a container writes there
/// must be kept or fail.
fn stand_in(required: bool) -> Result<(), mounts::MountError> {
    let target = Path::new(MOUNT_POINT);
    let _ = fs::create_dir_all(target);
    let (flags, data) = match required {
        true => (SAFE | MsFlags::MS_RDONLY, "mode=0755,size=4k"),
        false => (SAFE, "mode=0755,size=20%"),
    };
    mounts::mount_at("tmpfs", target, Some("tmpfs"), flags, data)
}

/// Takes the state away before the machine stops or another kernel starts; what still writes to it was ended before.
pub(crate) fn leave() {
    let start = uptime();
    loop {
        match umount2(MOUNT_POINT, MntFlags::empty()) {
            // One mount may lie over another.
            Ok(()) => {}
            Err(Errno::EBUSY) if uptime().saturating_sub(start) < LETTING_GO => {
                sleep(Duration::from_millis(20));
            }
            Err(Errno::EBUSY) => break,
            Err(_) => return,
        }
    }
    say(&format!("{MOUNT_POINT} is still in use; it is made read-only"));
    nix::unistd::sync();
    let flags = SAFE | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    if let Err(error) = mount(None::<&str>, MOUNT_POINT, None::<&str>, flags, None::<&str>) {
        say(&format!("{MOUNT_POINT} stays writable: {error}"));
    }
}

/// Returns the name of the partition and what it says of itself.
fn mount_state(
    wanted: &StateDisk,
    named: Option<&str>,
    loader: &mut Loader,
    children: &Children,
) -> Result<(String, Option<Record>), StateError> {
    let (disk, partition) = match wait(wanted, named, loader)? {
        (disk, Some(partition)) => (disk, partition),
        (disk, None) => {
            create::create(&disk, wanted, children)?;
            appeared(&disk, &wanted.label)?
        }
    };
    let head = inspect(&disk, &partition, wanted)?;
    let path = format!("/dev/{}", partition.name.replace('!', "/"));
    if ext4::is_clean(&head) {
        peek(&path, &partition, wanted)?;
    }
    check(&path, &partition, children)?;
    let record = mount_checked(&path, &partition, wanted)?;
    Ok((format!("{} of {}", partition.name, disk.called()), record))
}

/// Waits until there is a partition, or a disk on which one may be made.
fn wait(
    wanted: &StateDisk,
    named: Option<&str>,
    loader: &mut Loader,
) -> Result<(Disk, Option<Partition>), StateError> {
    let start = uptime();
    let (mut known, mut since, mut drivers) = (Vec::new(), start, start);
    loop {
        let now = uptime();
        let disks = disks::scan(Path::new("/sys"));
        if disks != known {
            since = now;
        }
        let late = now.saturating_sub(start) >= wanted.timeout();
        match find::choose(&disks, &wanted.label, named)? {
            Choice::Use(disk, partition) => return Ok((disk.clone(), Some(partition.clone()))),
            Choice::Make(disk) if now.saturating_sub(since) >= SETTLED => {
                return Ok((disk.clone(), None));
            }
            Choice::Wait(error) if late => return Err(error),
            Choice::Make(_) | Choice::Wait(_) => {}
        }
        known = disks;
        sleep(LOOK_AGAIN);
        // Disks behind a controller that has just come up want drivers of their own.
        if now.saturating_sub(drivers) >= Duration::from_millis(500) {
            loader.load_for_hardware();
            drivers = now;
        }
    }
}

fn appeared(made: &Disk, label: &str) -> Result<(Disk, Partition), StateError> {
    let start = uptime();
    while uptime().saturating_sub(start) < APPEARS {
        let disks = disks::scan(Path::new("/sys"));
        if let Some(disk) = disks.into_iter().find(|disk| disk.name == made.name)
            && let Some(partition) = disk.partitions.iter().find(|it| it.label == label)
            && Path::new("/dev").join(&partition.name).exists()
        {
            let partition = partition.clone();
            return Ok((disk, partition));
        }
        sleep(LOOK_AGAIN);
    }
    Err(StateError::DoesNotAppear { disk: made.called() })
}

/// Looks at a partition before any program or the kernel does, and returns its beginning. Only reads.
fn inspect(disk: &Disk, partition: &Partition, wanted: &StateDisk) -> Result<Vec<u8>, StateError> {
    let called = disk.called();
    if disk.read_only {
        return Err(StateError::ReadOnly { disk: called });
    }
    if disk.held {
        return Err(StateError::InUse { disk: called });
    }
    let Some(geometry) = Geometry::new(disk.size, disk.sector) else {
        return Err(StateError::Geometry { disk: called });
    };
    let path = format!("/dev/{}", disk.name.replace('!', "/"));
    let device = File::open(path).map_err(StateError::io(&called))?;
    let table = gpt::read(&device, geometry)
        .map_err(|source| StateError::Table { disk: called.clone(), source })?;
    let (start, end) = (partition.start, partition.start.saturating_add(partition.size));
    let is_this =
        |it: &gpt::Partition| it.name == wanted.label && (it.start, it.end) == (start, end);
    if !table.iter().any(is_this) {
        return Err(StateError::TableDiffers { disk: called });
    }
    if partition.size < wanted.min_size {
        let (has, wants) = (partition.size >> 20, wanted.min_size >> 20);
        return Err(StateError::TooSmall { partition: partition.name.clone(), has, wants });
    }
    let path = format!("/dev/{}", partition.name.replace('!', "/"));
    let mut head = Vec::new();
    File::open(path)
        .and_then(|device| device.take(ext4::HEAD as u64).read_to_end(&mut head))
        .map_err(StateError::io(&partition.name))?;
    ext4::look(&head, partition.size)
        .map_err(|source| StateError::NotExt4 { partition: partition.name.clone(), source })?;
    Ok(head)
}

/// Reads the record of a file system that was unmounted, before anything writes to it; the check writes even where it
/// finds nothing. What cannot be read here is told after the check.
fn peek(path: &str, partition: &Partition, wanted: &StateDisk) -> Result<(), StateError> {
    let target = Path::new(MOUNT_POINT);
    let flags = SAFE | MsFlags::MS_RDONLY;
    fs::create_dir_all(target).map_err(StateError::io(MOUNT_POINT))?;
    if mounts::mount_at(path, target, Some("ext4"), flags, "noload").is_err() {
        return Ok(());
    }
    let admitted = admitted(target, partition, wanted);
    let _ = umount2(target, MntFlags::empty());
    match admitted {
        Err(error @ StateError::TooNew { .. }) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Returns the record of a mounted partition if it lets this image use the data.
fn admitted(
    mounted: &Path,
    partition: &Partition,
    wanted: &StateDisk,
) -> Result<Option<Record>, StateError> {
    let name = || partition.name.clone();
    let record =
        Record::read(mounted).map_err(|source| StateError::Record { partition: name(), source })?;
    if let Some(record) = &record {
        let admitted = record.admits(wanted);
        admitted.map_err(|source| StateError::TooNew { partition: name(), source })?;
    }
    Ok(record)
}

/// Replays the journal and repairs what can be repaired without a person's word.
fn check(path: &str, partition: &Partition, children: &Children) -> Result<(), StateError> {
    let failed = |end: String, words: String| StateError::Check {
        partition: partition.name.clone(),
        program: "e2fsck -p",
        end,
        words,
    };
    match tools::run(children, "e2fsck", &["-p", path], CHECK_PATIENCE) {
        Ok((crate::process::End::Code(0), _)) => Ok(()),
        // 1: repaired. 2: a mounted root would want a new start.
        Ok((crate::process::End::Code(1 | 2), words)) => {
            say(&format!("{}: {words}", partition.name));
            Ok(())
        }
        Ok((end, words)) => Err(failed(end.to_string(), words)),
        Err(error) => Err(failed("did not run to its end".to_owned(), error.to_string())),
    }
}

/// Mounts it so that it can only be read, and lets others write once its record admits this image.
fn mount_checked(
    path: &str,
    partition: &Partition,
    wanted: &StateDisk,
) -> Result<Option<Record>, StateError> {
    let name = || partition.name.clone();
    let target = Path::new(MOUNT_POINT);
    fs::create_dir_all(target).map_err(StateError::io(MOUNT_POINT))?;
    let failed = |source| StateError::Mount { partition: name(), source };
    let flags = SAFE | MsFlags::MS_RDONLY;
    let options = "errors=remount-ro";
    mounts::mount_at(path, target, Some("ext4"), flags, options).map_err(failed)?;
    let usable = admitted(target, partition, wanted).and_then(|record| {
        mounts::mount_at(path, target, None, SAFE | MsFlags::MS_REMOUNT, options)
            .map_err(failed)?;
        Ok(record)
    });
    if usable.is_err() {
        let _ = umount2(target, MntFlags::empty());
    }
    usable
}
