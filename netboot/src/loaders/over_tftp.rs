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
        let (peer, path, bytes) = (transfer.peer, &transfer.name, transfer.taken);
        let name = loader_name(path);
        let (phase, name) = match self.loaders.get(name) {
            Some(_) => (Phase::Loader, name),
            None => match made::event(path, peer) {
                Some(event) => event,
                None => return,
            },
        };
        let Some(detail) = transfer.told(name) else { return };
        let phase = if transfer.end == tftp::End::Done { phase } else { Phase::Broken };
        let millis = u64::try_from(transfer.took.as_millis()).unwrap_or(u64::MAX);
        self.boots.loader(peer, Transfer { phase, detail, bytes, millis });
    }
}

/// Returns the name of a loader by its path.
fn loader_name(path: &str) -> &str {
    path.strip_prefix("ipxe/").or_else(|| path.strip_prefix("grub/")).unwrap_or(path)
}
