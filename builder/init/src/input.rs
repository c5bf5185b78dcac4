//! The power button (and keys that mean the same), read without any other program.
//!
//! The kernel's driver for the button (`button` with ACPI, `gpio_keys` with a device tree) makes an input device of it,
//! whose events `evdev` hands out (linux/input.h, linux/input-event-codes.h).

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::console::say;
use crate::error::BootError;
use crate::power::{self, Then};

const DEVICES: &str = "/dev/input";
const KEY_EVENT: u16 = 1;
const POWER: u16 = 116;
const SLEEP: u16 = 142;
const POWER_2: u16 = 0x164;
const PRESSED: i32 = 1;
/// `struct input_event` with the times of 64-bit kernels.
const EVENT: usize = 24;
/// How often it is looked whether a device has come or gone.
const LOOK_AGAIN_MILLIS: u16 = 5000;
/// More devices with such keys than any machine has.
const MOST_DEVICES: usize = 64;

/// Starts to listen.
pub(crate) fn start() -> Result<(), BootError> {
    std::thread::Builder::new()
        .name("button".to_owned())
        .stack_size(64 * 1024)
        .spawn(listen)
        .map(drop)
        .map_err(|source| BootError::StartThread("button", source))
}

fn listen() {
    let mut devices: BTreeMap<String, File> = BTreeMap::new();
    loop {
        look_for_devices(&mut devices);
        let names: Vec<String> = devices.keys().cloned().collect();
        let mut polled: Vec<_> =
            devices.values().map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN)).collect();
        let _ = poll(&mut polled, PollTimeout::from(LOOK_AGAIN_MILLIS));
        let ready: Vec<bool> = polled
            .iter()
            .map(|device| device.revents().is_some_and(|events| !events.is_empty()))
            .collect();
        for (name, _) in names.iter().zip(ready).filter(|(_, ready)| *ready) {
            let mut buffer = [0; 16 * EVENT];
            let read = devices.get_mut(name).map(|file| file.read(&mut buffer));
            match read {
                Some(Ok(read)) if read >= EVENT => obey(&buffer[..read]),
                // It was pulled out.
                _ => drop(devices.remove(name)),
            }
        }
    }
}

fn look_for_devices(devices: &mut BTreeMap<String, File>) {
    let Ok(entries) = fs::read_dir(DEVICES) else { return };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !name.starts_with("event")
            || devices.contains_key(&name)
            || devices.len() >= MOST_DEVICES
        {
            continue;
        }
        let keys = format!("/sys/class/input/{name}/device/capabilities/key");
        let keys = fs::read_to_string(keys).unwrap_or_default();
        if [POWER, POWER_2, SLEEP].iter().any(|key| has_key(&keys, *key))
            && let Ok(file) = OpenOptions::new()
                .read(true)
                .custom_flags((OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).bits())
                .open(Path::new(DEVICES).join(&name))
        {
            devices.insert(name, file);
        }
    }
}

/// Reads a set of keys as the kernel writes it: words of 64 bits in hexadecimal, the last one first.
fn has_key(set: &str, key: u16) -> bool {
    let word = set.split_whitespace().rev().nth(usize::from(key / 64));
    word.and_then(|word| u64::from_str_radix(word, 16).ok())
        .is_some_and(|word| word >> (key % 64) & 1 == 1)
}

fn obey(events: &[u8]) {
    match pressed(events) {
        Some(SLEEP) => say("the sleep button was pressed; this machine does not sleep"),
        Some(_) => {
            say("the power button was pressed");
            power::ask(Then::PowerOff);
        }
        None => {}
    }
}

/// Returns the first of our keys that was pressed.
fn pressed(events: &[u8]) -> Option<u16> {
    events.chunks_exact(EVENT).find_map(|event| {
        let (kind, code) = (
            u16::from_ne_bytes([event[16], event[17]]),
            u16::from_ne_bytes([event[18], event[19]]),
        );
        let value = i32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
        let ours = [POWER, POWER_2, SLEEP].contains(&code);
        (kind == KEY_EVENT && value == PRESSED && ours).then_some(code)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> Vec<u8> {
        let mut event = vec![0xff; 16];
        event.extend(kind.to_ne_bytes());
        event.extend(code.to_ne_bytes());
        event.extend(value.to_ne_bytes());
        event
    }

    #[test]
    fn the_keys_of_a_device_are_read_from_the_kernels_words() {
        // As the kernel writes it for the ACPI power button, and for a keyboard.
        assert!(has_key("10000000000000 0\n", POWER));
        assert!(!has_key("10000000000000 0\n", SLEEP));
        assert!(has_key("402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe", POWER));
        for nothing in ["", "0", "nonsense words", "1"] {
            assert!(!has_key(nothing, POWER), "{nothing}");
        }
    }

    #[test]
    fn a_press_is_told_from_a_release_and_from_other_events() {
        let mut events = event(KEY_EVENT, 30, PRESSED);
        events.extend(event(4, POWER, PRESSED));
        events.extend(event(KEY_EVENT, POWER, 0));
        assert_eq!(pressed(&events), None);
        events.extend(event(KEY_EVENT, POWER, PRESSED));
        assert_eq!(pressed(&events), Some(POWER));
        assert_eq!(pressed(&events[..EVENT - 1]), None);
    }
}
