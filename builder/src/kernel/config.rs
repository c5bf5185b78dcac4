//! The configuration that a kernel was built with.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};

use memchr::memmem;

/// No configuration comes near this.
const MAX_CONFIG: u64 = 4 << 20;
/// How a kernel marks the configuration inside itself (`kernel/configs.c`).
const MARK: &[u8] = b"IKCFG_ST";
/// What is looked through at a time.
const CHUNK: usize = 1 << 20;

/// Which options a kernel was built with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelConfig {
    /// Values by the name of the option without `CONFIG_`. What is off is not there.
    options: BTreeMap<Box<str>, Box<str>>,
}

/// How a kernel has something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    /// Not at all.
    Absent,
    /// As a module, which has to be in the image.
    Module,
    /// In the kernel itself.
    BuiltIn,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Absent => "absent",
            Self::Module => "module",
            Self::BuiltIn => "built in",
        })
    }
}

/// Something that an image may need of its kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Feature {
    /// An initrd at all.
    Initrd,
    /// An initrd that is compressed by zstd.
    ZstdInitrd,
    /// An initrd that is compressed by gzip.
    GzipInitrd,
    /// A start by UEFI.
    EfiStub,
    /// Files as block devices.
    Loop,
    /// SquashFS with zstd, which packed roots are.
    SquashfsZstd,
    /// Extended attributes in SquashFS, such as file capabilities.
    SquashfsXattr,
    /// EROFS with zstd.
    ErofsZstd,
    /// Writable roots of containers over read-only ones.
    Overlay,
    /// File systems in memory.
    Tmpfs,
    /// Device files that appear by themselves.
    Devtmpfs,
    /// Limits for containers.
    Cgroups,
    /// Filters of system calls.
    SeccompFilter,
    /// Namespaces of processes, networks, names and users.
    Namespaces,
    /// A hardware watchdog.
    Watchdog,
    /// Loading another kernel without a reboot.
    KexecFile,
}

impl Feature {
    /// Returns the options that all have to be set. What only the last of them can be a module of comes last.
    const fn options(self) -> &'static [&'static str] {
        match self {
            Self::Initrd => &["BLK_DEV_INITRD"],
            Self::ZstdInitrd => &["BLK_DEV_INITRD", "RD_ZSTD"],
            Self::GzipInitrd => &["BLK_DEV_INITRD", "RD_GZIP"],
            Self::EfiStub => &["EFI", "EFI_STUB"],
            Self::Loop => &["BLK_DEV_LOOP"],
            Self::SquashfsZstd => &["SQUASHFS", "SQUASHFS_ZSTD"],
            Self::SquashfsXattr => &["SQUASHFS", "SQUASHFS_XATTR"],
            Self::ErofsZstd => &["EROFS_FS", "EROFS_FS_ZIP_ZSTD"],
            Self::Overlay => &["OVERLAY_FS"],
            Self::Tmpfs => &["TMPFS"],
            Self::Devtmpfs => &["DEVTMPFS"],
            Self::Cgroups => &["CGROUPS", "MEMCG", "CGROUP_PIDS", "CGROUP_BPF"],
            Self::SeccompFilter => &["SECCOMP", "SECCOMP_FILTER"],
            Self::Namespaces => &["PID_NS", "NET_NS", "UTS_NS", "IPC_NS", "USER_NS"],
            Self::Watchdog => &["WATCHDOG"],
            Self::KexecFile => &["KEXEC_FILE"],
        }
    }
}

impl KernelConfig {
    /// Reads a configuration: `CONFIG_X=y` and the like, a line each (`Documentation/kbuild/kconfig-language.rst` of
    /// the kernel). Returns nothing when there is no such line, and takes no notice of other lines.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read or has more than 4 MiB.
    pub fn read(text: impl Read) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        text.take(MAX_CONFIG + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_CONFIG {
            return Err(io::Error::other("a kernel's configuration has no more than 4 MiB"));
        }
        Ok(Self::parse(&String::from_utf8_lossy(&bytes)))
    }

    fn parse(text: &str) -> Option<Self> {
        let options: BTreeMap<_, _> = text
            .lines()
            .filter_map(|line| {
                let (name, value) = line.trim().strip_prefix("CONFIG_")?.split_once('=')?;
                let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
                (!name.is_empty() && name.bytes().all(good) && value != "n")
                    .then(|| (name.into(), value.into()))
            })
            .collect();
        (!options.is_empty()).then_some(Self { options })
    }

    /// Looks for the configuration inside an uncompressed kernel (`CONFIG_IKCONFIG`). Returns nothing when there is
    /// none.
    ///
    /// # Errors
    ///
    /// Fails when the kernel cannot be read, or what is marked as its configuration cannot be unpacked.
    pub fn find_in(mut kernel: impl Read) -> io::Result<Option<Self>> {
        let mut window = Vec::with_capacity(2 * CHUNK);
        loop {
            if let Some(at) = memmem::find(&window, MARK) {
                let found = io::Cursor::new(window.split_off(at + MARK.len())).chain(kernel);
                return Self::read(flate2::read::GzDecoder::new(found.take(MAX_CONFIG)));
            }
            // A mark may lie across two chunks.
            let keep = window.len().saturating_sub(MARK.len() - 1);
            window.drain(..keep);
            let chunk = CHUNK as u64;
            if kernel.by_ref().take(chunk).read_to_end(&mut window)? == 0 {
                return Ok(None);
            }
        }
    }

    /// Returns it as text that [`read`](Self::read) reads: a line for each option that is on, sorted.
    pub fn to_text(&self) -> String {
        let lines = self.options.iter().map(|(name, value)| format!("CONFIG_{name}={value}\n"));
        lines.collect()
    }

    /// Returns the value of an option, whose name may begin with `CONFIG_`: `y`, `m`, a number or a text in quotes.
    /// What is off has none.
    pub fn get(&self, option: &str) -> Option<&str> {
        let name = option.strip_prefix("CONFIG_").unwrap_or(option);
        self.options.get(name).map(AsRef::as_ref)
    }

    /// Returns how the kernel has an option.
    pub fn setting(&self, option: &str) -> Setting {
        match self.get(option) {
            None => Setting::Absent,
            Some("m") => Setting::Module,
            Some(_) => Setting::BuiltIn,
        }
    }

    /// Returns how the kernel has something: as the least of the options that it takes.
    pub fn supports(&self, feature: Feature) -> Setting {
        let options = feature.options().iter();
        options.map(|option| self.setting(option)).min().unwrap_or(Setting::Absent)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const TEXT: &str = "# Linux/x86 6.12 Kernel Configuration\nCONFIG_BLK_DEV_INITRD=y\nCONFIG_RD_ZSTD=y\n\
        # CONFIG_RD_GZIP is not set\nCONFIG_SQUASHFS=m\nCONFIG_SQUASHFS_ZSTD=y\nCONFIG_HZ=250\n\
        CONFIG_LOCALVERSION=\"-x\"\nnonsense\nCONFIG_=y\nCONFIG_OVERLAY_FS=n\n";

    #[test]
    fn each_feature_is_as_present_as_the_least_of_its_options() {
        let config = KernelConfig::read(TEXT.as_bytes()).unwrap().unwrap();
        for (feature, setting) in [
            (Feature::ZstdInitrd, Setting::BuiltIn),
            (Feature::GzipInitrd, Setting::Absent),
            (Feature::SquashfsZstd, Setting::Module),
            (Feature::SquashfsXattr, Setting::Absent),
            (Feature::Overlay, Setting::Absent),
        ] {
            assert_eq!(config.supports(feature), setting, "{feature:?}");
        }
        assert_eq!(config.get("CONFIG_HZ"), Some("250"));
        assert_eq!(config.get("LOCALVERSION"), Some("\"-x\""));
    }

    #[test]
    fn what_is_written_reads_as_the_same() {
        let config = KernelConfig::read(TEXT.as_bytes()).unwrap().unwrap();
        let text = config.to_text();
        assert!(text.starts_with("CONFIG_BLK_DEV_INITRD=y\nCONFIG_HZ=250\n"), "{text}");
        assert_eq!(KernelConfig::read(text.as_bytes()).unwrap(), Some(config));
    }

    #[test]
    fn a_text_without_options_is_no_configuration_and_a_huge_one_is_refused() {
        assert_eq!(KernelConfig::read(&b"hello\n"[..]).unwrap(), None);
        assert!(KernelConfig::read(io::repeat(b'x')).is_err());
    }

    #[test]
    fn the_configuration_inside_a_kernel_is_found_wherever_it_is() {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(TEXT.as_bytes()).unwrap();
        let gz = gz.finish().unwrap();
        for before in [0, 100, CHUNK - 3, CHUNK, 3 * CHUNK + 5] {
            let mut kernel = vec![b'I'; before];
            kernel.extend_from_slice(MARK);
            kernel.extend_from_slice(&gz);
            kernel.extend_from_slice(b"IKCFG_ED and more");
            let config = KernelConfig::find_in(&kernel[..]).unwrap().unwrap();
            assert_eq!(config.get("HZ"), Some("250"), "after {before} bytes");
        }
        assert_eq!(KernelConfig::find_in(&vec![0; 2 * CHUNK][..]).unwrap(), None);
    }

    #[test]
    fn a_damaged_configuration_inside_a_kernel_is_an_error() {
        assert!(KernelConfig::find_in(&b"IKCFG_STnot gzip at all"[..]).is_err());
    }
}
