use std::sync::Arc;

use kiln_types::{Arch, Digest, ImageRef, Mac};
use serde::Serialize;

use crate::{Firmware, Loader, LoaderChoice, Origin, Setting};

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
    /// A machine has the UUID, but not the interface.
    #[error(
        "it looks like machine `{machine}` with a new network card; if it is, `kiln machine set {machine} --mac {mac}` \
         says so"
    )]
    LooksLike {
        /// Address seen.
        mac: Mac,
        /// Name of the machine.
        machine: String,
    },
    /// The settings say that unknown machines get nothing.
    #[error("unknown machines get no answer (`unknown = \"ignore\"` under `[discovery]`)")]
    UnknownIgnored,
    /// The settings say that unknown machines run an image.
    #[error(
        "unknown machines run `{image}` (`unknown = \"boot\"` under `[discovery]`), which may write to no disk"
    )]
    BootsDiscovery {
        /// The image.
        image: ImageRef,
    },
    /// Someone said that this one gets nothing.
    #[error("it is ignored; `kiln discovery unignore {mac}` undoes that")]
    DiscoveryIgnored {
        /// Address seen.
        mac: Mac,
    },
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
    /// A setting comes from a group.
    #[error("group `{group}` sets {setting} to `{value}`")]
    SetByGroup {
        /// Name of the group.
        group: Arc<str>,
        /// The setting.
        setting: Setting,
        /// Its value.
        value: String,
    },
    /// The machine is out of service.
    #[error(
        "machine `{machine}` is retired, so it gets nothing; `kiln machine unretire {machine}` puts it back into service"
    )]
    Retired {
        /// Name of the machine.
        machine: String,
    },
    /// The machine stays at its version.
    #[error(
        "machine `{machine}` is cordoned, so it boots what it last ran well; `kiln machine uncordon {machine}` lets it \
         have the newest"
    )]
    Cordoned {
        /// Name of the machine.
        machine: String,
    },
    /// The machine is to stay at its version, and has none.
    #[error(
        "machine `{machine}` is cordoned and has not run any version well yet; `kiln machine uncordon {machine}` lets it \
         have the newest"
    )]
    CordonedNeverRan {
        /// Name of the machine.
        machine: String,
    },
    /// The version at which the machine is to stay is not served any more.
    #[error(
        "machine `{machine}` is cordoned, and the version of image `{image}` that it last ran well is no longer served; \
         `kiln machine uncordon {machine}` lets it have the newest"
    )]
    CordonedGone {
        /// Name of the machine.
        machine: String,
        /// Image that it ran.
        image: ImageRef,
    },
    /// The machine runs its maintenance image.
    #[error("machine `{machine}` is in maintenance, so it boots its maintenance image `{image}`")]
    InMaintenance {
        /// Name of the machine.
        machine: String,
        /// The image.
        image: ImageRef,
    },
    /// The machine waits for the end of its maintenance.
    #[error(
        "machine `{machine}` is in maintenance and has no maintenance image, so it waits; \
         `kiln machine maintenance {machine} --off` ends it"
    )]
    HeldForMaintenance {
        /// Name of the machine.
        machine: String,
    },
    /// The loader is not the usual one.
    #[error("it is loaded by {loader}, as {}", whose(by.as_ref()))]
    LoadedBy {
        /// The loader.
        loader: Loader,
        /// Who says so, where it is not the firmware.
        by: Option<Origin>,
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
        "machine `{machine}` has no image to run; give it one with `kiln machine set {machine} --image IMAGE`, or give one \
         to a group of it"
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
    /// Its kernel sends what it prints.
    #[error("its kernel sends what it prints to UDP port {port} of this server (`netconsole`)")]
    KernelHeard {
        /// The port.
        port: u16,
    },
    /// Its kernel is to send what it prints, and nobody hears it.
    #[error(
        "its arguments ask for `netconsole`, and this server does not hear it; set `listen = true` under `[netconsole]`"
    )]
    KernelUnheard,
}

fn whose(by: Option<&Origin>) -> String {
    match by {
        None => "its firmware wants it".to_owned(),
        Some(Origin::Group(group)) => format!("group `{group}` says"),
        Some(_) => "the settings of the machine say".to_owned(),
    }
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
