//! A server that runs, and its end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use kiln_inventory::Lease;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::observe::COUNTS;
use crate::{dhcp, http, tftp};

/// How long the last events may take to be written: longer than the tracker itself tries it.
const GRACE: Duration = Duration::from_secs(12);

/// A running server.
#[derive(Debug)]
pub struct Running {
    pub(super) http: Vec<http::Server>,
    pub(super) https: Vec<http::Server>,
    pub(super) tftp: Vec<tftp::Server>,
    pub(super) api: Option<SocketAddr>,
    pub(super) socket: PathBuf,
    pub(super) metrics: Option<SocketAddr>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: Vec<JoinHandle<()>>,
    pub(super) tracker: JoinHandle<()>,
    pub(super) died: mpsc::Receiver<String>,
    pub(super) ledger: Option<dhcp::Ledger>,
    pub(super) _lock: std::fs::File,
}

impl Running {
    /// Returns where the boot plane of the first subnet listens.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http.first().map(http::Server::local_addr)
    }

    /// Returns where the boot plane of the first subnet listens for HTTPS.
    pub fn https_addr(&self) -> Option<SocketAddr> {
        self.https.first().map(http::Server::local_addr)
    }

    /// Returns where TFTP of the first subnet listens.
    pub fn tftp_addr(&self) -> Option<SocketAddr> {
        self.tftp.first().map(tftp::Server::local_addr)
    }

    /// Returns where the control plane listens on the network.
    pub const fn api_addr(&self) -> Option<SocketAddr> {
        self.api
    }

    /// Returns the unix socket of the control plane.
    pub fn socket_path(&self) -> &Path {
        &self.socket
    }

    /// Returns where metrics are served.
    pub const fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Returns every lease, also those that have ended.
    pub fn leases(&self) -> Vec<Lease> {
        self.ledger.as_ref().map(dhcp::Ledger::leases).unwrap_or_default()
    }

    /// Waits until a part of the server dies, and says which. Pends while all is well.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn failed(&mut self) -> String {
        match self.died.recv().await {
            Some(what) => what,
            None => std::future::pending().await,
        }
    }

    /// Returns what TFTP has counted on all addresses together.
    pub fn tftp_counts(&self) -> tftp::Counts {
        self.tftp.iter().map(|server| server.stats().counts()).sum()
    }

    /// Stops: no new work, transfers under way get some seconds, every event is written.
    pub async fn shutdown(self) {
        self.stop.cancel();
        let tftp::Counts { requests, done, broken, bytes, .. } = self.tftp_counts();
        tracing::info!(requests, done, broken, bytes, "TFTP ends");
        // The writer of leases ends when nobody can give it any.
        drop(self.ledger);
        for server in self.tftp {
            server.shutdown().await;
        }
        for server in self.http.into_iter().chain(self.https) {
            server.shutdown().await;
        }
        for task in self.tasks {
            let _ = task.await;
        }
        let _ = std::fs::remove_file(&self.socket);
        // Every sender is gone by now, so that the tracker writes what it has and ends; unless a transfer outlived
        // its grace.
        if tokio::time::timeout(GRACE, self.tracker).await.is_err() {
            let events = COUNTS.backlog.load(Ordering::Relaxed);
            tracing::error!(events, "lost, as the server stops");
        }
    }
}
