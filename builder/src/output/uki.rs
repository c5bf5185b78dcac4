//! Unified kernel images: systemd's stub with kernel, initrd and kernel arguments as sections of one UEFI program
//! (UAPI.5, Unified Kernel Image).

use bytes::Bytes;
use kiln_types::Arch;

use super::pe::{self, Headers, NewSection, PeError};
use super::plan::Plan;

/// What goes into one program.
#[derive(Clone, Debug)]
pub struct Parts {
    /// What it runs on.
    pub arch: Arch,
    /// The kernel, which must have an EFI stub.
    pub kernel: Plan,
    /// The first bytes of the kernel, with all of its headers.
    pub kernel_head: Bytes,
    /// The initrd: segments one after the other, each at a multiple of four.
    pub initrd: Plan,
    /// The kernel arguments.
    pub cmdline: String,
    /// What `uname -r` says.
    pub release: String,
    /// The text of an os-release file, by which boot menus name it.
    pub os_release: String,
    /// The devicetree to boot with instead of the firmware's.
    pub devicetree: Option<Bytes>,
}

/// The program cannot be put together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UkiError {
    /// The stub is of no use.
    #[error("cannot add an image to systemd's stub")]
    Stub(#[source] PeError),
    /// UEFI cannot start the kernel.
    #[error("UEFI cannot start kernel {release}; take one that is built with CONFIG_EFI_STUB")]
    Kernel {
        /// What `uname -r` says.
        release: String,
        /// Why.
        #[source]
        source: PeError,
    },
    /// The kernel arguments have a character that would end or break them.
    #[error("the kernel arguments have a line break or NUL in them: {0:?}")]
    Cmdline(String),
}

/// Plans the program that starts an image. Its length is that of the plan.
///
/// # Errors
///
/// Fails when the stub or the kernel is not a program for the architecture, or all together are too large.
pub fn plan(stub: &[u8], parts: &Parts) -> Result<Plan, UkiError> {
    Headers::parse(stub)
        .and_then(|headers| headers.check_arch(parts.arch))
        .map_err(UkiError::Stub)?;
    let no_kernel = |source| UkiError::Kernel { release: parts.release.clone(), source };
    let kernel = Headers::parse(&parts.kernel_head).map_err(no_kernel)?;
    kernel.check_arch(parts.arch).map_err(no_kernel)?;
    if parts.cmdline.contains(['\n', '\r', '\0']) {
        return Err(UkiError::Cmdline(parts.cmdline.clone()));
    }
    let text = |text: &str| {
        let mut plan = Plan::default();
        plan.push_bytes(text.as_bytes().to_vec());
        plan
    };
    // Without this section the stub takes the firmware's arguments, which are not ours; an empty one is no section.
    let cmdline = if parts.cmdline.is_empty() { " " } else { &parts.cmdline };
    let section = |name, content| NewSection { name, content, memory: 0 };
    let mut sections = vec![
        section(".osrel", text(&parts.os_release)),
        section(".cmdline", text(cmdline)),
        section(".uname", text(&parts.release)),
    ];
    if let Some(devicetree) = &parts.devicetree {
        let mut content = Plan::default();
        content.push_bytes(devicetree.clone());
        sections.push(section(".dtb", content));
    }
    // The kernel may run where the firmware put it, and then needs the memory that its own header asks for.
    let memory = u64::from(kernel.size_of_image());
    sections.push(NewSection { name: ".linux", content: parts.kernel.clone(), memory });
    sections.push(section(".initrd", parts.initrd.clone()));
    pe::append(stub, &sections).map_err(UkiError::Stub)
}

/// Returns the exact length of the program that [`plan`] would plan, in bytes.
///
/// # Errors
///
/// As [`plan`].
pub fn len(stub: &[u8], parts: &Parts) -> Result<u64, UkiError> {
    plan(stub, parts).map(|plan| plan.len())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::output::pe::tests::program;

    pub(in crate::output) fn parts(arch: Arch, machine: u16) -> Parts {
        let kernel_head = Bytes::from(program(machine, 0));
        let mut kernel = Plan::default();
        kernel.push_bytes(kernel_head.clone());
        let mut initrd = Plan::default();
        initrd.push_bytes(vec![3; 10_000]);
        Parts {
            arch,
            kernel,
            kernel_head,
            initrd,
            cmdline: "console=ttyS0 quiet".to_owned(),
            release: "6.12".to_owned(),
            os_release: "ID=kiln\n".to_owned(),
            devicetree: None,
        }
    }

    #[test]
    fn every_part_is_a_section_and_the_length_is_known_beforehand() {
        let dir = tempfile::tempdir().unwrap();
        let store = crate::Store::open(dir.path()).unwrap();
        let stub = program(0xaa64, 8);
        let mut parts = parts(Arch::Arm64, 0xaa64);
        parts.devicetree = Some(Bytes::from_static(b"tree"));
        let plan = plan(&stub, &parts).unwrap();
        let mut bytes = Vec::new();
        plan.write(&store, &mut bytes).unwrap();
        assert_eq!(len(&stub, &parts).unwrap(), bytes.len() as u64);
        let headers = Headers::parse(&bytes).unwrap();
        let content = |name: &str| {
            let section = headers.sections().iter().find(|section| section.name == name).unwrap();
            let offset = section.offset as usize;
            bytes[offset..offset + section.size.min(section.file_size) as usize].to_vec()
        };
        assert_eq!(content(".cmdline"), b"console=ttyS0 quiet");
        assert_eq!(content(".uname"), b"6.12");
        assert_eq!(content(".osrel"), b"ID=kiln\n");
        assert_eq!(content(".dtb"), b"tree");
        assert_eq!(content(".initrd"), vec![3; 10_000]);
        assert!(content(".linux").starts_with(&parts.kernel_head));
        assert_eq!(headers.sections()[0].name, ".text");
    }

    #[test]
    fn parts_that_cannot_boot_are_refused() {
        let stub = program(0x8664, 8);
        let wrong = plan(&stub, &parts(Arch::X86_64, 0xaa64)).unwrap_err();
        assert!(matches!(wrong, UkiError::Kernel { .. }), "{wrong}");
        let wrong = plan(&stub, &parts(Arch::Arm64, 0xaa64)).unwrap_err();
        assert!(matches!(wrong, UkiError::Stub(PeError::Machine { .. })), "{wrong}");
        let mut bare = parts(Arch::X86_64, 0x8664);
        bare.kernel_head = Bytes::from_static(b"\x1f\x8b");
        assert!(matches!(plan(&stub, &bare), Err(UkiError::Kernel { .. })));
        bare = parts(Arch::X86_64, 0x8664);
        bare.cmdline = "quiet\ninit=/bin/sh".to_owned();
        assert!(matches!(plan(&stub, &bare), Err(UkiError::Cmdline(_))));
    }
}
