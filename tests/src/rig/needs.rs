use std::env;
use std::fs;
use std::path::Path;

use kiln::lab::MachineKind;
use kiln_types::Arch;

use super::program::program;

/// Something that a case cannot do without.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need {
    /// The right to make network namespaces and network interfaces.
    Root,
    /// qemu and firmware.
    Machine(MachineKind),
    /// kiln-init, which goes into every image.
    KilnInit(Arch),
    /// The program `kiln`.
    Program,
    /// Another program on the PATH, and the Debian package that has it.
    Tool(&'static str, &'static str),
    /// A file, and the Debian package that has it.
    File(&'static str, &'static str),
    /// Files as block devices, with SquashFS on them.
    Loop,
}

impl Need {
    /// Says what is missing and how to get it, or nothing when all is there.
    pub(crate) fn missing(&self) -> Option<String> {
        match self {
            Self::Root => {
                if !nix::unistd::geteuid().is_root() {
                    Some("it makes a network namespace; run it as root".to_owned())
                } else if !Path::new("/dev/net/tun").exists() {
                    Some("there is no /dev/net/tun; load the kernel module `tun`".to_owned())
                } else {
                    None
                }
            }
            Self::Machine(kind) => kind.check().err().map(|error| error.to_string()),
            Self::KilnInit(arch) => {
                let folder = env::var_os("KILN_INIT_DIR")?;
                let file = Path::new(&folder).join(format!("kiln-init-{arch}"));
                (!file.exists())
                    .then(|| format!("{} is missing; `./dev test` builds it", file.display()))
            }
            Self::Tool(name, package) => {
                let path = env::var_os("PATH").unwrap_or_default();
                let found = env::split_paths(&path)
                    .chain(["/usr/sbin", "/sbin"].map(Into::into))
                    .any(|folder| folder.join(name).is_file());
                (!found).then(|| {
                    format!("`{name}` is not installed; install the Debian package {package}")
                })
            }
            Self::File(path, package) => (!Path::new(path).is_file())
                .then(|| format!("{path} is missing; install the Debian package {package}")),
            Self::Loop => {
                let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
                let there = Path::new("/dev/loop-control").exists();
                (!there || !known.lines().any(|line| line.trim() == "squashfs")).then(|| {
                    "the kernel has no loop devices or no SquashFS; load `loop` and `squashfs`"
                        .to_owned()
                })
            }
            Self::Program => (!program().exists())
                .then(|| format!("{} is missing; run `cargo build -p kiln`", program().display())),
        }
    }
}
