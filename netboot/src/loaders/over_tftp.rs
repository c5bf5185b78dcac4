use std::net::IpAddr;
use std::sync::Arc;

use kiln_inventory::Phase;
use kiln_ipxe::Endpoints;

use super::Loaders;
use crate::bake::Baker;
use crate::boots::{Boots, Transfer};
use crate::made::{self, Made};
use crate::pieces::Pieces;
use crate::tftp;
use crate::view::View;

/// What TFTP serves: loaders by name, with or without their folder, and what is made for the machine that asks.
#[derive(Debug)]
pub struct OverTftp {
    /// Machines and images.
    pub view: Arc<View>,
    /// Where machines reach us.
    pub at: Endpoints,
    /// The files.
    pub loaders: Loaders,
    /// Who is told of each that was sent.
    pub boots: Boots,
    /// Who is told which image is wanted.
    pub baker: Baker,
}

impl tftp::Files for OverTftp {
    async fn open(&self, peer: IpAddr, path: &str) -> Option<tftp::File> {
        if let Some((bytes, _)) = self.loaders.get(loader_name(path)) {
            return Some(bytes.into());
        }
        let Self { view, at, loaders, boots, baker } = self;
        let Some(file) = Made { view, boots, loaders, baker, at }.file(peer, path).await else {
            // Firmware looks for many files that there need not be; a loader that it was named is none of these.
            if ["ipxe/", "grub/", "uki/"].iter().any(|folder| path.starts_with(folder)) {
                let name: String = loader_name(path).chars().take(64).collect();
                boots.loader(peer, Transfer::absent(&name, "there is no such file"));
            }
            return None;
        };
        let reader = Pieces::new(view.artifacts().clone(), &file.plan);
        Some(tftp::File::streamed(file.plan.len(), reader))
    }

    fn ended(&self, transfer: &tftp::Ended) {
        let (peer, path) = (transfer.peer, &transfer.name);
        let name = loader_name(path);
        let (phase, name) = match self.loaders.get(name) {
            Some(_) => (Phase::Loader, name),
            None => match made::event(path, peer) {
                Some(event) => event,
                None => return,
            },
        };
        if let Some(told) = told(transfer, phase, name) {
            self.boots.loader(peer, told);
        }
    }
}

/// Returns what a timeline tells of a transfer that is over, with the file by this name.
fn told(transfer: &tftp::Ended, phase: Phase, name: &str) -> Option<Transfer> {
    let detail = transfer.told(name)?;
    let phase = if transfer.end == tftp::End::Done { phase } else { Phase::Broken };
    let millis = u64::try_from(transfer.took.as_millis()).unwrap_or(u64::MAX);
    Some(Transfer { phase, detail, bytes: transfer.taken, millis, resent: transfer.resent })
}

/// Returns the name of a loader by its path.
fn loader_name(path: &str) -> &str {
    path.strip_prefix("ipxe/").or_else(|| path.strip_prefix("grub/")).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_timeline_is_told_how_much_was_sent_again_however_a_transfer_ended() {
        let ended = |end, taken| tftp::Ended {
            peer: [10, 0, 0, 9].into(),
            name: "ipxe/ipxe.efi".to_owned(),
            end,
            size: 9,
            taken,
            took: Duration::from_millis(70),
            resent: 12,
        };
        let told = |end, taken| told(&ended(end, taken), Phase::Loader, "ipxe.efi");
        let done = told(tftp::End::Done, 9).unwrap();
        assert_eq!(
            (done.phase, done.detail.as_str(), done.resent),
            (Phase::Loader, "ipxe.efi", 12)
        );
        assert_eq!((done.bytes, done.millis), (9, 70));
        let silent = told(tftp::End::Silent, 5).unwrap();
        assert_eq!((silent.phase, silent.resent), (Phase::Broken, 12));
        assert!(silent.detail.ends_with("after 5 of 9 bytes"), "{}", silent.detail);
        assert!(told(tftp::End::Probe, 0).is_none());
    }
}
