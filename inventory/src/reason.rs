use kiln_types::{Arch, Digest, ImageRef, Mac};
use serde::Serialize;

use crate::{Firmware, Loader, LoaderChoice};

/// One step of the way to a decision: what was found, and what to do where something is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", tag = "reason")]
#[non_exhaustive]
pub enum Reason {
    /// The machine was found by its hardware address.
    #[error("{mac} is an interface of machine `{machine}`")]
    FoundByMac {
        /// Address seen.
        mac: Mac,
        /// Name of the machine.
        machine: String,
    },
    /// No machine has the hardware address.
    #[error(
        "no machine has an interface {mac}; add it with `kiln machine add NAME --mac {mac} --image IMAGE`"
    )]
    UnknownMachine {
        /// Address seen.
        mac: Mac,
    },
    /// The settings say that unknown machines get nothing.
    #[error("unknown machines get no answer (`unknown = \"ignore\"` under `[discovery]`)")]
    UnknownIgnored,
    /// The settings say that unknown machines wait.
    #[error(
        "unknown machines wait until they are added (`unknown = \"hold\"` under `[discovery]`)"
    )]
    UnknownHeld,
    /// The settings of the machine say that it boots from its disk.
    #[error(
        "machine `{machine}` boots from its own disk; `kiln machine set {machine} --boot net` lets it boot its image"
    )]
    BootsFromDisk {
        /// Name of the machine.
        machine: String,
    },
    /// The loader is not the usual one.
    #[error("it is loaded by {loader}, as {}", whose(*by_choice))]
    LoadedBy {
        /// The loader.
        loader: Loader,
        /// Whether the machine's settings say so, and not its firmware.
        by_choice: bool,
    },
    /// The loader that the machine's settings name does not run on its firmware.
    #[error(
        "loader `{wanted}` of machine `{machine}` needs UEFI, which {firmware} is not: it gets its usual loader"
    )]
    LoaderUnfit {
        /// Name of the machine.
        machine: String,
        /// The loader that is wished for.
        wanted: LoaderChoice,
        /// Kind of firmware seen.
        firmware: Firmware,
    },
    /// The server has no files of the loader that the machine's settings name.
    #[error(
        "loader `{wanted}` of machine `{machine}` lacks its files for {arch}: it gets its usual loader; see [loaders] in \
         kiln.toml"
    )]
    LoaderAbsent {
        /// Name of the machine.
        machine: String,
        /// The loader that is wished for.
        wanted: LoaderChoice,
        /// Architecture of the machine.
        arch: Arch,
    },
    /// What asks does not boot from the network.
    #[error("an operating system asks, not firmware or a loader, so it gets an address only")]
    NotBooting,
    /// The firmware did not say what it is.
    #[error(
        "the firmware does not tell what it is (DHCP option 93), so no loader can be chosen; \
         switch it to PXE or HTTP Boot of UEFI"
    )]
    FirmwareNotTold,
    /// No image can run on the firmware.
    #[error(
        "firmware type {number}{} is not supported; Kiln boots BIOS and UEFI of x86_64, and UEFI, U-Boot and Raspberry Pi of arm64",
        known_type(*number)
    )]
    UnsupportedFirmware {
        /// Number in the registry of RFC 4578 §2.1.
        number: u16,
    },
    /// The machine says it is of another architecture than the inventory says.
    #[error(
        "machine `{machine}` is set to {wanted}, but its firmware is {firmware} and runs {seen}; \
         correct the architecture of the machine or its MAC address"
    )]
    WrongArch {
        /// Name of the machine.
        machine: String,
        /// Architecture in the inventory.
        wanted: Arch,
        /// Kind of firmware seen.
        firmware: Firmware,
        /// Architecture of that firmware.
        seen: Arch,
    },
    /// The machine has no image.
    #[error(
        "machine `{machine}` has no image to run; remove it and add it again with `--image IMAGE`"
    )]
    NoImage {
        /// Name of the machine.
        machine: String,
    },
    /// There is no version of the image at all.
    #[error("image `{0}` is not built; build it with `kiln build {0}.yml`", image.name())]
    NotBuilt {
        /// Image of the machine.
        image: ImageRef,
    },
    /// The server builds the image; the machine waits for it.
    #[error("image `{image}` for {arch} is being built")]
    BeingBuilt {
        /// Image of the machine.
        image: ImageRef,
        /// Architecture that is built.
        arch: Arch,
    },
    /// The server will build the image; the machine waits for it.
    #[error("image `{image}` for {arch} waits for its turn to be built")]
    WaitsToBeBuilt {
        /// Image of the machine.
        image: ImageRef,
        /// Architecture that will be built.
        arch: Arch,
    },
    /// There is no version of the image, because its build failed.
    #[error("image `{image}` for {arch} could not be built: {error}")]
    BuildFailed {
        /// Image of the machine.
        image: ImageRef,
        /// Architecture of the build.
        arch: Arch,
        /// What the builder said.
        error: String,
    },
    /// The image exists, but not the channel.
    #[error(
        "image `{}` has no channel `{}`; it has {}", image.name(), image.channel(), channels.join(", ")
    )]
    NoChannel {
        /// Image of the machine.
        image: ImageRef,
        /// Channels it has.
        channels: Vec<String>,
    },
    /// The architecture was taken from the inventory, because the loader does not tell it.
    #[error("the loader does not tell its architecture; machine `{machine}` is set to {arch}")]
    ArchOfMachine {
        /// Name of the machine.
        machine: String,
        /// Its architecture.
        arch: Arch,
    },
    /// The architecture was taken from the image, because the loader does not tell it.
    #[error("the loader does not tell its architecture; image `{image}` is built for {arch} only")]
    OnlyArchBuilt {
        /// Image of the machine.
        image: ImageRef,
        /// The only architecture it is built for.
        arch: Arch,
    },
    /// Nothing tells the architecture.
    #[error(
        "the loader does not tell its architecture and image `{image}` is built for several; \
         set the architecture of machine `{machine}`"
    )]
    ArchNotTold {
        /// Name of the machine.
        machine: String,
        /// Image of the machine.
        image: ImageRef,
    },
    /// The image is not built for the architecture.
    #[error(
        "image `{image}` has no {arch} version; build one with `kiln build {}.yml --arch {arch}`", image.name()
    )]
    NotBuiltForArch {
        /// Image of the machine.
        image: ImageRef,
        /// Architecture of the machine.
        arch: Arch,
    },
    /// UEFI cannot start the kernel.
    #[error(
        "the kernel of image `{image}` for {arch} has no EFI stub, so UEFI cannot start it; \
         use a kernel that is built with CONFIG_EFI_STUB"
    )]
    NoEfiStub {
        /// Image of the machine.
        image: ImageRef,
        /// Architecture of the version.
        arch: Arch,
    },
    /// A version was found that the machine can run.
    #[error("image `{image}` for {arch} is version {}", version.short())]
    Selected {
        /// Image of the machine.
        image: ImageRef,
        /// Architecture of the version.
        arch: Arch,
        /// Digest of its manifest.
        version: Digest,
    },
}

const fn whose(by_choice: bool) -> &'static str {
    if by_choice { "the settings of the machine say" } else { "its firmware wants it" }
}

/// Names the types that are met in practice, so that an operator knows which switch of the firmware to look for.
fn known_type(number: u16) -> &'static str {
    match number {
        1 => " (NEC PC-98)",
        2 => " (Itanium)",
        6 | 15 => " (32-bit UEFI)",
        10 | 18 => " (32-bit ARM UEFI)",
        20 => " (BIOS by HTTP)",
        21 | 23 => " (32-bit ARM U-Boot)",
        25 | 26 => " (32-bit RISC-V UEFI)",
        27 | 28 => " (64-bit RISC-V UEFI)",
        37..=40 => " (LoongArch UEFI)",
        _ => "",
    }
}
