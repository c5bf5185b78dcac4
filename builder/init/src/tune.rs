//! Settings of the kernel: limits, control groups, sysctls, randomness.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::resource::{Resource, setrlimit};

use crate::console::say;

const OPEN_FILES: u64 = 1 << 20;
const GROUPS: &str = "/sys/fs/cgroup";
/// More than any file of settings has.
const LARGEST: u64 = 1 << 16;

/// Set before what the image says: nobody follows links or opens files that others put into a common folder, and no
/// program learns the kernel's addresses.
const DEFAULTS: &str = "\
-kernel.kptr_restrict = 1
-fs.protected_hardlinks = 1
-fs.protected_symlinks = 1
-fs.protected_fifos = 1
-fs.protected_regular = 2
";

/// How many files every program may have open, and which resources control groups can limit: all.
pub(crate) fn set_limits() {
    let _ = setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES);
    let groups = Path::new(GROUPS);
    let all = fs::read_to_string(groups.join("cgroup.controllers")).unwrap_or_default();
    for controller in all.split_whitespace() {
        let result = fs::write(groups.join("cgroup.subtree_control"), format!("+{controller}"));
        if let Err(error) = result {
            say(&format!("control groups cannot have the controller {controller}: {error}"));
        }
    }
}

/// Lets the kernel wait for its other processors by asking them instead of letting time pass, as it does itself before it
/// starts us. Loading modules and making containers wait like this all the time, so it is only for the boot: it takes
/// processors out of what they are at.
pub(crate) fn hurry(on: bool) {
    let _ = fs::write("/sys/kernel/rcu_expedited", if on { "1" } else { "0" });
}

/// Applies the sysctls of the image: `/etc/sysctl.conf` and `/etc/sysctl.d/*.conf`, in the order of their names.
pub(crate) fn set_sysctls() {
    set_all(DEFAULTS);
    let mut files: Vec<PathBuf> = fs::read_dir("/etc/sysctl.d")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "conf"))
        .collect();
    files.sort();
    files.insert(0, "/etc/sysctl.conf".into());
    for path in files {
        let Ok(file) = File::open(&path) else { continue };
        let mut text = String::new();
        match file.take(LARGEST).read_to_string(&mut text) {
            Ok(_) => set_all(&text),
            Err(error) => say(&format!("cannot read {}: {error}", path.display())),
        }
    }
}

fn set_all(text: &str) {
    for line in text.lines() {
        let setting = match parse(line) {
            Ok(Some(setting)) => setting,
            Ok(None) => continue,
            Err(()) => {
                say(&format!("{line:?} is no sysctl"));
                continue;
            }
        };
        let path = Path::new("/proc/sys").join(&setting.path);
        if let Err(error) = fs::write(&path, setting.value)
            && !setting.optional
        {
            say(&format!("cannot set {}: {error}", setting.path.replace('/', ".")));
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Setting<'a> {
    path: String,
    value: &'a str,
    /// One that this kernel does not have is passed over.
    optional: bool,
}

/// Reads a line as sysctl.conf has it; nothing for comments and empty lines.
fn parse(line: &str) -> Result<Option<Setting<'_>>, ()> {
    let line = line.trim();
    if line.is_empty() || line.starts_with(['#', ';']) {
        return Ok(None);
    }
    let (name, value) = line.split_once('=').ok_or(())?;
    let name = name.trim_end();
    let (optional, name) = name.strip_prefix('-').map_or((false, name), |name| (true, name));
    // Where a slash comes first, the points belong to the names: net/ipv4/conf/eth0.5/forwarding.
    let slashes = name.find('/').is_some_and(|slash| name.find('.').is_none_or(|dot| slash < dot));
    let path = if slashes { name.to_owned() } else { name.replace('.', "/") };
    let good = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if good { Ok(Some(Setting { path, value: value.trim(), optional })) } else { Err(()) }
}

/// Mixes a secret of this boot into the kernel's random numbers, without counting it as random. Where the kernel still has
/// too few to give any out, somebody must wait for them before it begins to make them from its own clock: here nobody
/// else has to.
pub(crate) fn stir(secret: Option<&str>) {
    if let Some(secret) = secret
        && let Ok(mut pool) = File::options().write(true).open("/dev/urandom")
    {
        let _ = pool.write_all(secret.as_bytes());
    }
    let mut byte = [0];
    let pool = File::options().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/random");
    let empty = pool.is_ok_and(|mut pool| {
        pool.read(&mut byte).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    });
    if empty {
        let wait = move || File::open("/dev/random").map(|mut pool| pool.read(&mut byte));
        // Without the thread the first program that needs random numbers waits itself.
        let _ =
            std::thread::Builder::new().name("random".to_owned()).stack_size(64 * 1024).spawn(wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctls_are_read_as_everywhere() {
        let read = |line| parse(line).map(|it| it.map(|it| (it.path, it.value, it.optional)));
        let some = |path: &str, value, optional| Ok(Some((path.to_owned(), value, optional)));
        assert_eq!(read("net.ipv4.ip_forward=1"), some("net/ipv4/ip_forward", "1", false));
        assert_eq!(read("  -kernel.x =  1 2  "), some("kernel/x", "1 2", true));
        assert_eq!(read("net/ipv4/conf/eth0.5/x = 1"), some("net/ipv4/conf/eth0.5/x", "1", false));
        assert_eq!(read("net.ipv4.conf.eth0/5.x = 1"), some("net/ipv4/conf/eth0/5/x", "1", false));
        for line in ["", "  ", "# a = b", ";c=d"] {
            assert_eq!(read(line), Ok(None));
        }
        for line in ["word", "../../etc/passwd = x", "a..b=1", "/etc/passwd = x", "= 1"] {
            assert_eq!(read(line), Err(()), "{line}");
        }
    }

    #[test]
    fn the_defaults_are_sysctls_that_a_kernel_may_lack() {
        assert!(DEFAULTS.lines().all(|line| parse(line).unwrap().unwrap().optional));
    }
}
