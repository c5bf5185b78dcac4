//! Files that are made for one machine when it asks for them, by TFTP and HTTP alike: programs with everything in them,
//! menus, scripts. What is large in them stays in the store until it is sent.

mod menu;
mod path;
mod pi;

use std::net::IpAddr;
use std::sync::Arc;

use kiln_builder::hash::Hasher;
use kiln_builder::manifest::{Manifest, SegmentEntry};
use kiln_builder::output::{Bootable, Piece, Plan as FilePlan, uki};
use kiln_inventory::{
    Asker, BootId, BootPlan, Decision, Firmware, Loader, Phase, Plan, Sighting, decide,
};
use kiln_ipxe::{BootTicket, Endpoints, autoexec};
use kiln_types::{Digest, Mac};

use self::path::{Wanted, Whose};
use crate::bake::Baker;
use crate::boots::{Boots, Identity, now_ms};
use crate::http::machine_segment;
use crate::loaders::{self, Loaders};
use crate::memory;
use crate::view::View;

/// What files are made of.
#[derive(Clone, Copy, Debug)]
pub struct Made<'a> {
    /// Machines and images.
    pub view: &'a Arc<View>,
    /// Who knows which machine has which address.
    pub boots: &'a Boots,
    /// Stubs of UEFI programs.
    pub loaders: &'a Loaders,
    /// Who is told which image is wanted.
    pub baker: &'a Baker,
    /// Where the machine reaches us.
    pub at: &'a Endpoints,
}

/// A file that was made.
#[derive(Clone, Debug)]
pub struct MadeFile {
    /// Its bytes, and so its length.
    pub plan: FilePlan,
    /// Whether it is a UEFI program.
    pub is_efi: bool,
    /// How the timeline calls it when it was sent, where that is worth a line.
    pub event: Option<Phase>,
}

/// Returns how the timeline calls a file of this path, and its name there.
pub fn event(path: &str, peer: IpAddr) -> Option<(Phase, &'static str)> {
    Some(match path::parse(path, peer)? {
        Wanted::Uki { .. } => (Phase::Loader, "uki"),
        Wanted::Kernel { .. } => (Phase::Kernel, "kernel"),
        Wanted::Initrd { .. } => (Phase::Segment, "initrd"),
        Wanted::PiImage { signature: false } => (Phase::Loader, "boot.img"),
        _ => return None,
    })
}

/// Returns all segments in one, with that of the machine where it goes. Each ends at a multiple of four.
fn all_segments(manifest: &Manifest, own: Vec<u8>) -> FilePlan {
    let segments = &manifest.segments;
    let first = segments
        .iter()
        .take_while(|segment| BootPlan::goes_before_machine(&segment.component))
        .count();
    let (before, after) = segments.split_at(first);
    let mut plan = FilePlan::default();
    let push = |plan: &mut FilePlan, segments: &[SegmentEntry]| {
        for segment in segments {
            plan.push_artifact(segment.digest, segment.size);
            plan.align(4);
        }
    };
    push(&mut plan, before);
    plan.push_bytes(own);
    plan.align(4);
    push(&mut plan, after);
    plan
}

impl MadeFile {
    fn new(bytes: impl Into<bytes::Bytes>) -> Self {
        let mut plan = FilePlan::default();
        plan.push_bytes(bytes);
        Self { plan, is_efi: false, event: None }
    }

    /// Returns a name for exactly these bytes.
    pub fn fingerprint(&self) -> Digest {
        fingerprint(&self.plan)
    }
}

/// Returns a name for exactly these bytes: the digest of what they are made of, so that none of them has to be read.
fn fingerprint(plan: &FilePlan) -> Digest {
    let mut hasher = Hasher::default();
    for piece in plan.pieces() {
        match piece {
            Piece::Bytes(bytes) => {
                hasher.update(b"b");
                hasher.update(&piece.len().to_le_bytes());
                hasher.update(bytes);
            }
            Piece::Zeros(len) => {
                hasher.update(b"z");
                hasher.update(&len.to_le_bytes());
            }
            Piece::Artifact { digest, offset, len } => {
                hasher.update(b"a");
                hasher.update(digest.hex().as_bytes());
                hasher.update(&offset.to_le_bytes());
                hasher.update(&len.to_le_bytes());
            }
        }
    }
    hasher.finish()
}

impl Made<'_> {
    /// Makes the file of a path for whoever has an address. None is for everything that it does not get.
    pub async fn file(&self, peer: IpAddr, path: &str) -> Option<MadeFile> {
        match path::parse(path, peer)? {
            Wanted::Uki { mac, firmware } => self.uki(peer, mac, firmware).await,
            // The script asks for an address of IPv4; without one, iPXE goes its own way, which is that of DHCPv6 too.
            Wanted::Autoexec if peer.is_ipv6() => None,
            Wanted::Autoexec => {
                let sighting = self.boots.who(peer).await?;
                let sighting = Sighting { asker: Asker::Ipxe, ..sighting };
                let decision = decide(&self.view.snapshot(), &sighting);
                let told = !matches!(decision.plan, Plan::Ignore | Plan::Address);
                told.then(|| MadeFile::new(autoexec(&sighting, self.at)))
            }
            Wanted::UbootScript => {
                let (decision, ticket) = self.uboot(peer, &Whose::Asker).await?;
                let seen = self.boots.who(peer).await.and_then(|seen| seen.firmware);
                let http = (seen == Some(Firmware::UbootArm64Http)).then_some(self.at.http);
                let text = menu::uboot(&decision, ticket.as_ref(), http);
                Some(MadeFile::new(menu::uimage_script(&text)))
            }
            Wanted::UbootMenu(whose) => {
                let (decision, ticket) = self.uboot(peer, &whose).await?;
                let Plan::Boot(plan) = &decision.plan else { return None };
                Some(MadeFile::new(menu::pxelinux(plan, &ticket?)))
            }
            Wanted::GrubMenu(whose) => {
                let sighting = self.sighting(peer, &whose).await?;
                let (decision, ticket) = self.decide(peer, sighting, Loader::Grub).await?;
                Some(MadeFile::new(menu::grub(&decision, ticket.as_ref())))
            }
            Wanted::Kernel { boot, key } => {
                let identity = self.identity(peer, boot, &key).await?;
                let manifest = self.view.artifacts().manifest(&identity.version).ok()?;
                let mut plan = FilePlan::default();
                plan.push_artifact(manifest.kernel.digest, manifest.kernel.size);
                Some(MadeFile { plan, is_efi: false, event: Some(Phase::Kernel) })
            }
            Wanted::Initrd { boot, key } => self.initrd(peer, boot, &key).await,
            Wanted::PiImage { signature } => self.pi_image(peer, signature).await,
            Wanted::Pi { file, .. } => self.pi(peer, &file).await,
        }
    }

    /// Finds who a file is for.
    async fn sighting(&self, peer: IpAddr, whose: &Whose) -> Option<Sighting> {
        let seen = self.boots.who(peer).await;
        let mac = match whose {
            Whose::Asker => return seen,
            Whose::Mac(mac) => *mac,
            Whose::Uuid(uuid) => {
                let snapshot = self.view.snapshot();
                let mut machines = snapshot.machines().iter().map(|machine| &machine.spec);
                let named = |own: &String| own.eq_ignore_ascii_case(uuid);
                let found = machines.find(|spec| spec.uuid.as_ref().is_some_and(named));
                match found {
                    Some(spec) => *spec.macs.first()?,
                    None => return seen,
                }
            }
        };
        let seen = seen.filter(|seen| seen.mac == mac);
        let new = Sighting { mac, asker: Asker::Firmware, firmware: None, uuid: None };
        Some(seen.unwrap_or(new))
    }

    /// Settles what U-Boot gets. It may have said nothing of itself, and then it is what Kiln has images for; it says
    /// that it is UEFI where it tries that first.
    async fn uboot(&self, peer: IpAddr, whose: &Whose) -> Option<(Decision, Option<BootTicket>)> {
        let seen = self.sighting(peer, whose).await?;
        let arch = seen.arch();
        let firmware = match seen.firmware {
            Some(own @ (Firmware::UbootArm64 | Firmware::UbootArm64Http)) => own,
            _ if arch.is_none_or(|arch| arch == kiln_types::Arch::Arm64) => Firmware::UbootArm64,
            _ => return None,
        };
        let sighting = Sighting { asker: Asker::Firmware, firmware: Some(firmware), ..seen };
        self.decide(peer, sighting, Loader::UBoot).await
    }

    /// Settles what a machine gets that asks from an address.
    fn decided(&self, peer: IpAddr, sighting: &Sighting) -> Decision {
        decide(&self.view.snapshot(), sighting).between(Some(peer), self.at.address)
    }

    /// Settles what a loader gets that runs already, and opens its boot.
    async fn decide(
        &self,
        peer: IpAddr,
        sighting: Sighting,
        loader: Loader,
    ) -> Option<(Decision, Option<BootTicket>)> {
        let sighting = Sighting { asker: Asker::Firmware, ..sighting };
        let decision = self.decided(peer, &sighting);
        self.baker.hears(&decision, &sighting);
        if matches!(decision.plan, Plan::Ignore | Plan::Address | Plan::LocalDisk)
            || decision.loader != loader
        {
            return None;
        }
        let boots = matches!(decision.plan, Plan::Boot(_));
        let ticket = match boots {
            true => Some(self.boots.menu(peer, sighting, decision.clone()).await?),
            false => None,
        };
        Some((decision, ticket))
    }

    async fn uki(&self, peer: IpAddr, mac: Mac, firmware: Firmware) -> Option<MadeFile> {
        let sighting =
            Sighting { mac, asker: Asker::Firmware, firmware: Some(firmware), uuid: None };
        let decision = self.decided(peer, &sighting);
        self.baker.hears(&decision, &sighting);
        let (Plan::Boot(plan), Loader::Uki) = (&decision.plan, decision.loader) else {
            return None;
        };
        let plan = plan.clone();
        let Some(stub) = self.loaders.stub(plan.arch) else {
            tracing::error!(arch = %plan.arch, "no stub for UEFI programs; see [loaders] in kiln.toml");
            return None;
        };
        let ticket = self.boots.ticket(peer, sighting, decision).await?;
        let identity = self.identity(peer, ticket.boot, &ticket.machine_key).await?;
        memory::warn(self.view, self.boots, &identity).await;
        let segment = self.segment(&identity)?;
        let store = self.view.artifacts().clone();
        let signer = self.loaders.signer();
        let made = tokio::task::spawn_blocking(move || -> Result<FilePlan, loaders::BoxError> {
            let BootPlan { version, cmdline, .. } = &plan;
            let manifest = store.manifest(version)?;
            let bootable = Bootable { manifest: &manifest, store: &store, cmdline };
            let mut parts = bootable.parts()?;
            parts.initrd = all_segments(&manifest, segment);
            let program = uki::plan(&stub, &parts)?;
            Ok(match signer {
                Some(signer) => signer.sign(fingerprint(&program), &program, &store)?,
                None => program,
            })
        });
        match made.await {
            Ok(Ok(plan)) => Some(MadeFile { plan, is_efi: true, event: Some(Phase::Loader) }),
            Ok(Err(error)) => {
                tracing::error!(error = &*error as &dyn std::error::Error, %mac, "no UEFI program can be made");
                None
            }
            Err(_) => None,
        }
    }

    async fn initrd(&self, peer: IpAddr, boot: BootId, key: &str) -> Option<MadeFile> {
        let identity = self.identity(peer, boot, key).await?;
        memory::warn(self.view, self.boots, &identity).await;
        let segment = self.segment(&identity)?;
        let manifest = self.view.artifacts().manifest(&identity.version).ok()?;
        let plan = all_segments(&manifest, segment);
        Some(MadeFile { plan, is_efi: false, event: Some(Phase::Segment) })
    }

    /// Returns a file of a Raspberry Pi: made for it, or of the firmware that a folder has.
    async fn pi(&self, peer: IpAddr, file: &str) -> Option<MadeFile> {
        let sighting = self.boots.who(peer).await?;
        if sighting.firmware != Some(Firmware::RaspberryPi) {
            return None;
        }
        let decision = self.decided(peer, &sighting);
        self.baker.hears(&decision, &sighting);
        let Plan::Boot(plan) = decision.plan.clone() else { return None };
        let u_boot = self.loaders.pi_u_boot();
        let ticket = match file {
            // U-Boot asks anew, and is told of the boot then.
            "config.txt" if u_boot.is_some() => return Some(MadeFile::new(pi::U_BOOT_SETTINGS)),
            pi::U_BOOT if u_boot.is_some() => return u_boot.map(MadeFile::new),
            // It is fetched once in a boot, and early.
            "config.txt" => self.boots.menu(peer, sighting, decision).await?,
            "cmdline.txt" => self.boots.ticket(peer, sighting, decision).await?,
            _ => {
                let path = self.loaders.pi_file(file)?;
                let read = tokio::task::spawn_blocking(move || loaders::read(&path)).await;
                return read.ok()?.ok().map(MadeFile::new);
            }
        };
        pi::text(file, &plan, &ticket).map(MadeFile::new)
    }

    /// Returns all files of a Raspberry Pi in one, or the signature of that. Nobody else asks for such a file, and one that
    /// boots by HTTP need not have said in DHCP what it is.
    async fn pi_image(&self, peer: IpAddr, signature: bool) -> Option<MadeFile> {
        let seen = self.boots.who(peer).await?;
        let (asker, firmware) = (Asker::Firmware, Some(Firmware::RaspberryPi));
        let sighting = Sighting { asker, firmware, ..seen };
        let decision = self.decided(peer, &sighting);
        self.baker.hears(&decision, &sighting);
        let Plan::Boot(plan) = decision.plan.clone() else { return None };
        let Some(signer) = self.loaders.signer() else {
            tracing::warn!(
                mac = %sighting.mac,
                "a Raspberry Pi asks for boot.img, which has to be signed; name a key by [loaders] sign-key"
            );
            return None;
        };
        let ticket = self.boots.ticket(peer, sighting, decision).await?;
        let identity = self.identity(peer, ticket.boot, &ticket.machine_key).await?;
        let segment = self.segment(&identity)?;
        let (store, loaders) = (self.view.artifacts().clone(), self.loaders.clone());
        let made = tokio::task::spawn_blocking(move || -> Result<MadeFile, loaders::BoxError> {
            let manifest = store.manifest(&identity.version)?;
            let mut kernel = FilePlan::default();
            kernel.push_artifact(manifest.kernel.digest, manifest.kernel.size);
            let initrd = all_segments(&manifest, segment);
            let parts = pi::Parts { firmware: loaders.pi_firmware()?, kernel, initrd };
            let image = pi::image(parts, &plan, ticket.boot)?;
            Ok(match signature {
                true => {
                    let now = u64::try_from(now_ms() / 1000).unwrap_or_default();
                    MadeFile::new(signer.sign_image(&image, &store, now)?)
                }
                false => MadeFile { plan: image, is_efi: false, event: Some(Phase::Loader) },
            })
        });
        made.await
            .ok()?
            .inspect_err(|error| {
                let error = &**error as &dyn std::error::Error;
                tracing::error!(error, "no boot.img can be made for a Raspberry Pi");
            })
            .ok()
    }

    /// Returns what the segment of a boot tells. A machine that was retired since it began gets no more.
    async fn identity(&self, peer: IpAddr, boot: BootId, key: &str) -> Option<Identity> {
        let identity = self.boots.identity(peer, boot, key).await.ok()?;
        (!self.view.is_retired(identity.mac)).then_some(identity)
    }

    /// Makes the machine's own segment.
    fn segment(&self, identity: &Identity) -> Option<Vec<u8>> {
        machine_segment(self.view, identity, self.at)
            .inspect_err(|error| {
                let error = error as &dyn std::error::Error;
                tracing::error!(error, boot = identity.boot.0, "machine segment cannot be made");
            })
            .ok()
    }
}
