//! Kernel modules: those that the image names, and those that the hardware asks for.

mod glob;
mod index;
mod lanes;

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use crate::console::say;
pub(crate) use glob::matches;
use index::Index;

/// There when the machine has been started by UEFI.
const EFI: &str = "/sys/firmware/efi";
/// Loading a bus driver brings up devices that want drivers again.
const ROUNDS: usize = 6;

/// Loads modules of the running kernel, each once.
#[derive(Debug)]
pub(crate) struct Loader {
    directory: PathBuf,
    index: Index,
    tried: BTreeSet<String>,
    /// Devices that were looked at.
    known: BTreeSet<String>,
    loaded: usize,
    /// Files to load beside the next ones.
    soon: Vec<String>,
    /// Whether drivers of disks wait, and those that do.
    puts_off_disks: bool,
    put_off: Vec<String>,
}

impl Loader {
    /// Reads the tables of the running kernel. Without tables nothing is ever loaded, which is
    /// right for a kernel that has everything built in.
    pub(crate) fn open() -> Self {
        let release = nix::sys::utsname::uname()
            .map(|name| name.release().to_string_lossy().into_owned())
            .unwrap_or_default();
        let directory = Path::new("/lib/modules").join(&release);
        let table = |name| fs::read_to_string(directory.join(name)).unwrap_or_default();
        let dependencies = table("modules.dep");
        if dependencies.is_empty() {
            say(&format!("no modules for the kernel {release}"));
        }
        let index = Index::parse(&dependencies, &table("modules.alias"), &table("modules.softdep"));
        Self {
            directory,
            index,
            tried: BTreeSet::new(),
            known: BTreeSet::new(),
            loaded: 0,
            soon: Vec::new(),
            puts_off_disks: false,
            put_off: Vec::new(),
        }
    }

    fn note_missing(&self, name: &str) {
        let built_in = || Path::new("/sys/module").join(index::normal(name)).exists();
        if self.index.files_for(name).is_empty() && !built_in() {
            say(&format!("the module {name} is not in this image"));
        }
    }

    /// Loads what the image names when hardware is looked for the next time, beside what that asks for.
    pub(crate) fn load_soon(&mut self, names: &[String]) {
        for name in names {
            // Every module takes time to check, and a BIOS has no variables.
            if name == "efivarfs" && !Path::new(EFI).exists() {
                continue;
            }
            self.note_missing(name);
            self.soon.extend(self.index.files_for(name).into_iter().map(str::to_owned));
        }
    }

    /// Leaves drivers of disks for [`load_the_rest`](Self::load_the_rest): they take longest, and disks take their time.
    pub(crate) fn put_off_disks(&mut self) {
        self.puts_off_disks = true;
    }

    /// Loads what was put off. Returns how many modules it was.
    pub(crate) fn load_the_rest(&mut self) -> usize {
        self.puts_off_disks = false;
        self.soon.append(&mut self.put_off);
        self.load_for_hardware()
    }

    /// Loads what the hardware asks for, until nothing new appears. Returns how many modules it was.
    pub(crate) fn load_for_hardware(&mut self) -> usize {
        let before = self.loaded;
        for _ in 0..ROUNDS {
            let round = self.loaded;
            let mut lanes = vec![std::mem::take(&mut self.soon)];
            for device in devices(Path::new("/sys")) {
                if !self.known.insert(device.clone()) {
                    continue;
                }
                for name in self.index.wanted_by(&device) {
                    let files = self.index.files_for(name);
                    let lane = files.last().map_or(0, |file| lanes::of(file));
                    if self.puts_off_disks && lane == lanes::DISK_LANE {
                        self.put_off.extend(files.into_iter().map(str::to_owned));
                        continue;
                    }
                    let lane = 1 + lane;
                    lanes.resize(lanes.len().max(lane + 1), Vec::new());
                    if let Some(lane) = lanes.get_mut(lane) {
                        lane.extend(files.into_iter().map(str::to_owned));
                    }
                }
            }
            self.load_lanes(&lanes);
            if self.loaded == round {
                break;
            }
        }
        self.loaded - before
    }

    /// Loads one module with options, and before it what it needs. Nothing where there is no such module here, or it was
    /// loaded before.
    pub(crate) fn load_with(&mut self, name: &str, options: &CStr) -> Option<Result<(), Errno>> {
        let files: Vec<String> =
            self.index.files_for(name).into_iter().map(str::to_owned).collect();
        let mut result = None;
        for file in files.into_iter().filter(|file| self.tried.insert(file.clone())) {
            let path = self.directory.join(&file);
            let own = index::name_of(&file) == index::normal(name);
            let loaded = load(&path, if own { Some(options) } else { None });
            if own {
                result = Some(loaded);
            }
        }
        result
    }

    fn load_lanes(&mut self, all: &[Vec<String>]) {
        let lanes: Vec<&[String]> = all.iter().map(Vec::as_slice).collect();
        let loaded = AtomicUsize::new(0);
        let directory = &self.directory;
        lanes::run(&lanes, &mut self.tried, &|file| match load(&directory.join(file), None) {
            Ok(()) => {
                loaded.fetch_add(1, Ordering::Relaxed);
            }
            // Somebody was faster, or the hardware it drives is not there after all.
            Err(Errno::EEXIST | Errno::ENODEV) => {}
            Err(error) => say(&format!("cannot load {}: {error}", index::name_of(file))),
        });
        self.loaded += loaded.into_inner();
    }
}

fn load(path: &Path, options: Option<&CStr>) -> Result<(), Errno> {
    let file = fs::File::open(path)
        .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    // Without this it makes an interface of its own choice.
    let bonding = path.file_stem().is_some_and(|name| name == "bonding");
    let usual = if bonding { c"max_bonds=0" } else { c"" };
    finit_module(&file, options.unwrap_or(usual), ModuleInitFlags::empty())
}

/// What describes itself without being on a bus: the processors, the board, keyboards and the like.
const ALONE: &[&str] = &["devices/system/cpu", "class/dmi/id"];

/// Returns how every device describes itself, each description once. The folders of the buses have all of them: a
/// fraction of what is below `devices`.
fn devices(sys: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut add = |device: &Path| {
        let text = fs::read_to_string(device.join("modalias")).unwrap_or_default();
        let text = text.trim();
        if !text.is_empty() {
            found.insert(text.to_owned());
        }
    };
    for device in ALONE {
        add(&sys.join(device));
    }
    let buses = entries(&sys.join("bus")).map(|bus| bus.join("devices"));
    for folder in buses.chain([sys.join("class/input")]) {
        entries(&folder).for_each(|device| add(&device));
    }
    found
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_on_buses_and_beside_them_and_named_once() {
        let sys = std::env::temp_dir().join(format!("kiln-devices-{}", std::process::id()));
        for (folder, text) in [
            ("bus/pci/devices/0000:00:01.0", "pci:v1\n"),
            ("bus/pci/devices/0000:00:02.0", "pci:v1\n"),
            ("bus/virtio/devices/virtio0", "virtio:d1v1\n"),
            ("bus/serial/devices/empty", ""),
            ("class/input/input0", "input:b0\n"),
            ("class/net/eth0", "never:looked at\n"),
            ("devices/system/cpu", "cpu:type:x86\n"),
        ] {
            fs::create_dir_all(sys.join(folder)).unwrap();
            fs::write(sys.join(folder).join("modalias"), text).unwrap();
        }
        let found = devices(&sys);
        fs::remove_dir_all(&sys).unwrap();
        let found: Vec<_> = found.iter().map(String::as_str).collect();
        assert_eq!(found, ["cpu:type:x86", "input:b0", "pci:v1", "virtio:d1v1"]);
    }
}
