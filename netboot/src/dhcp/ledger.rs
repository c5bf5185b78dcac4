use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_inventory::Lease;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::warn;

use super::Reply;
use super::leases::LeaseTable;
use super::transport::Transport;

/// Any error, for traits that others implement.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes leases durable.
pub trait LeaseLog: Send + Sync + 'static {
    /// Writes the leases; once it returns, they survive a loss of power.
    fn commit(&self, leases: &[Lease]) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// Replies that may wait for the disk. More requests are dropped, and their clients ask again.
const QUEUE: usize = 256;

/// A lease on its way to disk, and the packet that leaves after it.
struct Pending {
    lease: Lease,
    reply: Option<(Reply, Arc<Transport>)>,
}

/// The leases of all subnets: one table and one writer, so that what is on disk came there in the order in which it
/// was decided. Clones share both.
#[derive(Clone, Debug)]
pub struct Ledger {
    table: Arc<Mutex<LeaseTable>>,
    queue: mpsc::Sender<Pending>,
}

impl Ledger {
    /// Starts from the leases that were kept. The task writes new ones until the last clone is dropped.
    pub fn start(leases: Vec<Lease>, log: impl LeaseLog) -> (Self, JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let table = Arc::new(Mutex::new(LeaseTable::new(leases)));
        (Self { table, queue }, tokio::spawn(write_leases(waiting, log)))
    }

    /// Lends the table, for as long as it takes to decide on one packet.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut LeaseTable) -> T) -> T {
        // Every change of the table is whole when it is made.
        work(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends a lease on its way to disk and the reply after it, and takes it into the table. Call it within
    /// [`with`](Self::with) of the decision, with the table that it lends. Returns false, and leaves no trace, when
    /// too many wait for the disk.
    pub(super) fn enter(
        &self,
        table: &mut LeaseTable,
        lease: Lease,
        reply: Option<(Reply, Arc<Transport>)>,
    ) -> bool {
        let sent = self.queue.try_send(Pending { lease: lease.clone(), reply }).is_ok();
        if sent {
            table.insert(lease);
        }
        sent
    }

    /// Waits until the writer has ended, which it does before its time only when it has failed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn closed(&self) {
        self.queue.closed().await;
    }
}

/// Writes leases, all that wait in one go, and sends each acknowledgement after its lease is on disk.
async fn write_leases<L: LeaseLog>(mut waiting: mpsc::Receiver<Pending>, log: L) {
    let mut batch = Vec::with_capacity(QUEUE);
    while waiting.recv_many(&mut batch, QUEUE).await > 0 {
        let leases: Vec<Lease> = batch.iter().map(|pending| pending.lease.clone()).collect();
        match log.commit(&leases).await {
            Ok(()) => {
                for (reply, transport) in batch.drain(..).filter_map(|pending| pending.reply) {
                    transport.send(&reply).await;
                }
            }
            // Without an acknowledgement the clients ask again; by then there may be room on the disk.
            Err(error) => {
                let count = leases.len();
                warn!(%error, count, "leases could not be written; their requests are not answered");
                batch.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use kiln_types::Mac;
    use tokio::net::UdpSocket;

    use super::*;
    use crate::dhcp::ReplyKind;

    /// Counts the leases of each commit. Fails when told, and when a packet has already left.
    struct Disk {
        full: bool,
        client: Arc<UdpSocket>,
        commits: Arc<Mutex<Vec<usize>>>,
    }

    impl LeaseLog for Disk {
        async fn commit(&self, leases: &[Lease]) -> Result<(), BoxError> {
            self.commits.lock().unwrap().push(leases.len());
            assert!(self.client.try_recv(&mut [0; 8]).is_err(), "nothing leaves before the commit");
            if self.full { Err("no space left".into()) } else { Ok(()) }
        }
    }

    async fn written(full: bool) -> (Vec<usize>, usize) {
        let local = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let client = Arc::new(UdpSocket::bind(local).await.unwrap());
        let server = std::net::UdpSocket::bind(local).unwrap();
        let transport = Arc::new(Transport::new(server, "lo").unwrap());
        let std::net::SocketAddr::V4(to) = client.local_addr().unwrap() else { unreachable!() };
        let commits = Arc::new(Mutex::new(vec![]));
        let disk = Disk { full, client: Arc::clone(&client), commits: Arc::clone(&commits) };
        let (ledger, writer) = Ledger::start(vec![], disk);
        for last in 1..=3 {
            let (mac, address) = (Mac::new([2, 0, 0, 0, 0, last]), [10, 0, 0, last].into());
            let reply = Reply {
                yiaddr: address,
                mac,
                to,
                from: Ipv4Addr::LOCALHOST,
                ..Reply::empty(ReplyKind::Ack)
            };
            let lease = Lease { address, mac, expires: 1, hostname: None };
            let reply = Some((reply, Arc::clone(&transport)));
            assert!(ledger.with(|table| ledger.enter(table, lease, reply)));
        }
        drop(ledger);
        writer.await.unwrap();
        let mut arrived = 0;
        let mut buffer = [0; 600];
        while arrived < 3 && !full {
            let (length, from) = client.recv_from(&mut buffer).await.unwrap();
            assert_eq!((length, from.ip()), (300, Ipv4Addr::LOCALHOST.into()));
            arrived += 1;
        }
        assert!(client.try_recv(&mut buffer).is_err());
        let commits = commits.lock().unwrap().clone();
        (commits, arrived)
    }

    #[tokio::test]
    async fn leases_that_wait_are_written_at_once_and_then_acknowledged() {
        assert_eq!(written(false).await, (vec![3], 3));
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_not_acknowledged() {
        assert_eq!(written(true).await, (vec![3], 0));
    }

    #[tokio::test]
    async fn a_lease_that_finds_no_place_leaves_no_trace() {
        /// Never comes back.
        struct Stuck;
        impl LeaseLog for Stuck {
            async fn commit(&self, _leases: &[Lease]) -> Result<(), BoxError> {
                std::future::pending().await
            }
        }
        let (ledger, _writer) = Ledger::start(vec![], Stuck);
        let lease = |number: u32| {
            let [_, _, a, b] = number.to_be_bytes();
            Lease {
                address: Ipv4Addr::from_bits(0x0a00_0000 + number),
                mac: Mac::new([2, 0, 0, 0, a, b]),
                expires: 1,
                hostname: None,
            }
        };
        let enter = |number| ledger.with(|table| ledger.enter(table, lease(number), None));
        let entered = (1..1000).filter(|number| enter(*number)).count();
        assert_eq!(entered, QUEUE);
        let (last, more) = (lease(256).mac, lease(257).mac);
        assert!(ledger.with(|table| table.of(last).is_some() && table.of(more).is_none()));
    }
}
