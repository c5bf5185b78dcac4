//! Modules side by side: disks take their time, and network cards need not wait for them.
//!
//! Each lane is loaded in its order, so that the names of cards and disks come out the same in every boot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, PoisonError};

const STACK: usize = 128 * 1024;

/// Where modules for disks are, below `kernel/drivers`.
const DISKS: &[&str] = &["ata/", "block/", "md/", "mmc/", "nvme/", "scsi/", "cdrom/"];

/// The lane of the drivers of disks.
pub(super) const DISK_LANE: usize = 1;

/// Returns the lane of a module by its file: network, disks, or everything else.
pub(super) fn of(file: &str) -> usize {
    let Some((_, driver)) = file.split_once("kernel/drivers/") else { return 2 };
    if driver.starts_with("net/") {
        0
    } else if DISKS.iter().any(|folder| driver.starts_with(folder)) {
        DISK_LANE
    } else {
        2
    }
}

/// Calls `load` once for each file that was not tried before, the lanes side by side. Where a file is in several lanes,
/// the others wait until it is loaded: what follows may need it.
pub(super) fn run(lanes: &[&[String]], tried: &mut BTreeSet<String>, load: &(dyn Fn(&str) + Sync)) {
    let state = State {
        done: Mutex::new(tried.iter().map(|file| (file.clone(), true)).collect()),
        changed: Condvar::new(),
    };
    let mut lanes = lanes.iter().filter(|lane| !lane.is_empty());
    let last = lanes.next_back();
    std::thread::scope(|scope| {
        for lane in lanes {
            let go = || state.run(lane, load);
            let builder = std::thread::Builder::new().name("modules".to_owned()).stack_size(STACK);
            if builder.spawn_scoped(scope, go).is_err() {
                // Too little memory for another thread: one after the other.
                go();
            }
        }
        if let Some(lane) = last {
            state.run(lane, load);
        }
    });
    let done = state.done.into_inner().unwrap_or_else(PoisonError::into_inner);
    tried.extend(done.into_keys());
}

struct State {
    /// Files that a lane has begun with, and whether it is done with them.
    done: Mutex<BTreeMap<String, bool>>,
    changed: Condvar,
}

impl State {
    fn run(&self, lane: &[String], load: &(dyn Fn(&str) + Sync)) {
        for file in lane {
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            if done.contains_key(file) {
                // No lane waits while it loads, so this ends.
                let waiting = self.changed.wait_while(done, |done| done.get(file) == Some(&false));
                drop(waiting.unwrap_or_else(PoisonError::into_inner));
                continue;
            }
            done.insert(file.clone(), false);
            drop(done);
            load(file);
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            done.insert(file.clone(), true);
            drop(done);
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_by_what_a_module_drives() {
        assert_eq!(of("kernel/drivers/net/virtio_net.ko"), 0);
        assert_eq!(of("kernel/drivers/ata/ahci.ko"), 1);
        assert_eq!(of("kernel/drivers/virtio/virtio_pci.ko"), 2);
        assert_eq!(of("kernel/fs/overlayfs/overlay.ko"), 2);
    }

    #[test]
    fn every_file_is_loaded_once_and_in_each_lane_after_what_is_before_it() {
        let lane = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let lanes = [lane("a b c old d"), lane("a x b y"), lane("d z"), Vec::new()];
        let slices: Vec<&[String]> = lanes.iter().map(Vec::as_slice).collect();
        let loaded = Mutex::new(Vec::new());
        let mut tried = BTreeSet::from(["old".to_owned()]);
        run(&slices, &mut tried, &|file| {
            std::thread::yield_now();
            loaded.lock().unwrap().push(file.to_owned());
        });
        let loaded = loaded.into_inner().unwrap();
        let at = |file: &str| loaded.iter().position(|other| other == file).unwrap();
        assert_eq!(loaded.len(), 7);
        assert!(at("a") < at("b") && at("b") < at("y") && at("x") < at("y") && at("d") < at("z"));
        assert_eq!(tried.len(), 8);
    }
}
