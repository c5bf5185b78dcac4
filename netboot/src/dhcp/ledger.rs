use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_inventory::{Lease, Pools};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::warn;

use super::Reply;
use super::book::Book;
use super::claims::{SharedLedger, Shares};
use super::leases::{LeaseTable, Timestamp};
use super::subnet::Subnet;
use super::transport::Transport;

/// Any error, for traits that others implement.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes leases durable. Called by one thread, which may wait for the disk.
pub trait LeaseLog: Send + 'static {
    /// Writes the leases; once it returns, they survive a loss of power.
    ///
    /// # Errors
    ///
    /// When some of them may not.
    fn commit(&mut self, leases: &[Lease]) -> Result<(), BoxError>;
}

/// Replies that may wait for the disk. More requests are dropped, and their clients ask again.
const QUEUE: usize = 2048;

/// What goes to the disk.
enum Pending {
    /// A lease on its way to disk, and the packet that leaves after it.
    One(Lease, Option<(Reply, Arc<Transport>)>),
    /// Leases that changed because the clock was set.
    Moved(Vec<Lease>),
}

/// The leases of all subnets: one table and one writer, so that what is on disk came there in the order in which it
/// was decided. Clones share both.
#[derive(Clone, Debug)]
pub struct Ledger {
    book: Arc<Mutex<Book<LeaseTable>>>,
    queue: mpsc::Sender<Pending>,
}

impl Ledger {
    /// Starts from the leases that were kept. The task writes new ones until the last clone is dropped.
    pub fn start(leases: Vec<Lease>, log: impl LeaseLog) -> (Self, JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let book = Book::new(LeaseTable::new(leases));
        // A thread of its own: what it does is wait for the disk.
        let writer = tokio::task::spawn_blocking(|| write_leases(waiting, log));
        (Self { book: Arc::new(Mutex::new(book)), queue }, writer)
    }

    /// Lends the table, for as long as it takes to decide on one packet, with the time.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut LeaseTable, Timestamp) -> T) -> T {
        let mut book = self.open();
        let (table, now) = book.lend(|moved| self.queue.try_send(Pending::Moved(moved)).is_ok());
        work(table, now)
    }

    fn open(&self) -> MutexGuard<'_, Book<LeaseTable>> {
        // Every change of the table is whole when it is made.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
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
        let sent = self.queue.try_send(Pending::One(lease.clone(), reply)).is_ok();
        if sent {
            table.insert(lease);
        }
        sent
    }

    /// Returns every lease, also those that have ended, in the order of addresses.
    pub fn leases(&self) -> Vec<Lease> {
        self.with(|table, _| table.all())
    }

    /// Takes over leases that another server gave, those of them that are wanted and in nobody's way, with one write.
    /// Returns for each of the others why it is not taken over, or nothing when too many wait for the disk.
    pub fn take_over(
        &self,
        leases: Vec<Lease>,
        dry_run: bool,
        refuses: impl Fn(&Lease) -> Option<String>,
    ) -> Option<Vec<(Ipv4Addr, String)>> {
        self.with(|table, now| {
            let (mut taken, mut skipped) = (Vec::new(), Vec::new());
            let (mut addresses, mut macs) = (HashSet::new(), HashSet::new());
            for lease in leases {
                let why = if lease.expires <= now.0 {
                    Some("the lease has ended".to_owned())
                } else if !table.may_lease(lease.address) {
                    Some("another server gives this address".to_owned())
                } else if !addresses.insert(lease.address) || !macs.insert(lease.mac) {
                    Some("another lease has the address, or the machine".to_owned())
                } else {
                    in_the_way(table, &lease, now).or_else(|| refuses(&lease))
                };
                match why {
                    Some(why) => skipped.push((lease.address, why)),
                    None => taken.push(lease),
                }
            }
            if dry_run || taken.is_empty() {
                return Some(skipped);
            }
            self.queue.try_send(Pending::Moved(taken.clone())).ok()?;
            taken.into_iter().for_each(|lease| table.insert(lease));
            Some(skipped)
        })
    }

    /// Ends the lease of an address, so that others may get it at once. Returns the lease as it was, or nothing when
    /// there is none, it has ended, or too many wait for the disk.
    pub fn release(&self, address: Ipv4Addr) -> Option<Lease> {
        self.with(|table, now| {
            let lease = table.at(address).filter(|lease| lease.expires > now.0)?.clone();
            let ended = Lease { expires: now.0, ..lease.clone() };
            self.enter(table, ended, None).then_some(lease)
        })
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

impl SharedLedger for Ledger {
    const POOLS: Pools = Pools::V4;
    type Subnet = Subnet;

    fn lend<T>(&self, work: impl FnOnce(&mut dyn Shares, Timestamp) -> T) -> T {
        self.with(|table, now| work(table, now))
    }

    fn set_claims(&self, blocks: HashSet<u128>, until: Duration) {
        self.open().set_claims(blocks, until);
    }
}

/// Says which running lease is in the way of another one.
fn in_the_way(table: &LeaseTable, lease: &Lease, now: Timestamp) -> Option<String> {
    let runs = |other: &&Lease| other.expires > now.0;
    if let Some(other) = table.at(lease.address).filter(runs).filter(|it| it.mac != lease.mac) {
        return Some(format!("{} has the address", other.mac));
    }
    let other = table.of(lease.mac).filter(runs).filter(|it| it.address != lease.address);
    other.map(|other| format!("{} has {} already", other.mac, other.address))
}

/// Writes leases, all that wait in one go, and sends each acknowledgement after its lease is on disk.
fn write_leases<L: LeaseLog>(mut waiting: mpsc::Receiver<Pending>, mut log: L) {
    let mut batch = Vec::with_capacity(QUEUE);
    let mut leases = Vec::with_capacity(QUEUE);
    let mut replies = Vec::with_capacity(QUEUE);
    while waiting.blocking_recv_many(&mut batch, QUEUE) > 0 {
        for pending in batch.drain(..) {
            match pending {
                Pending::One(lease, reply) => {
                    leases.push(lease);
                    replies.extend(reply);
                }
                Pending::Moved(moved) => leases.extend(moved),
            }
        }
        match log.commit(&leases) {
            Ok(()) => {
                for (reply, transport) in replies.drain(..) {
                    transport.send(&reply);
                }
            }
            // Without an acknowledgement the clients ask again; by then there may be room on the disk.
            Err(error) => {
                let (count, error) = (leases.len(), crate::cli::chain(&*error));
                warn!(error, count, "leases could not be written; their requests are not answered");
                replies.clear();
            }
        }
        leases.clear();
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
        fn commit(&mut self, leases: &[Lease]) -> Result<(), BoxError> {
            let mut commits = self.commits.lock().unwrap();
            let left = !commits.is_empty() || self.client.try_recv(&mut [0; 8]).is_err();
            assert!(left, "nothing leaves before the commit");
            commits.push(leases.len());
            if self.full { Err("no space left".into()) } else { Ok(()) }
        }
    }

    async fn written(full: bool) -> (usize, usize) {
        let local = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let client = Arc::new(UdpSocket::bind(local).await.unwrap());
        let server = std::net::UdpSocket::bind(local).unwrap();
        let transport = Arc::new(Transport::new(server, "lo").unwrap());
        let std::net::SocketAddr::V4(to) = client.local_addr().unwrap() else { unreachable!() };
        let commits = Arc::new(Mutex::new(vec![]));
        let disk = Disk { full, client: Arc::clone(&client), commits: Arc::clone(&commits) };
        let (ledger, writer) = Ledger::start(vec![], disk);
        ledger.with(|table, _| {
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
                assert!(ledger.enter(table, lease, reply));
            }
        });
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
        let commits = commits.lock().unwrap().iter().sum();
        (commits, arrived)
    }

    #[tokio::test]
    async fn leases_are_written_and_then_acknowledged() {
        assert_eq!(written(false).await, (3, 3));
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_not_acknowledged() {
        assert_eq!(written(true).await, (3, 0));
    }

    #[tokio::test]
    async fn leases_that_wait_go_to_disk_together_and_one_without_a_place_leaves_no_trace() {
        /// Begins, says so, and goes on when told.
        struct Slow(std::sync::mpsc::Sender<usize>, std::sync::mpsc::Receiver<()>);
        impl LeaseLog for Slow {
            fn commit(&mut self, leases: &[Lease]) -> Result<(), BoxError> {
                self.0.send(leases.len())?;
                self.1.recv()?;
                Ok(())
            }
        }
        let (begun, told) = std::sync::mpsc::channel();
        let (go, wait) = std::sync::mpsc::channel();
        let (ledger, writer) = Ledger::start(vec![], Slow(begun, wait));
        let lease = |number: u32| {
            let [_, _, a, b] = number.to_be_bytes();
            Lease {
                address: Ipv4Addr::from_bits(0x0a00_0000 + number),
                mac: Mac::new([2, 0, 0, 0, a, b]),
                expires: i64::MAX,
                hostname: None,
            }
        };
        let enter = |number| ledger.with(|table, _| ledger.enter(table, lease(number), None));
        assert!(enter(1));
        assert_eq!(told.recv().unwrap(), 1);
        let entered = (2..5000).filter(|number| enter(*number)).count();
        assert_eq!(entered, QUEUE);
        let last = 1 + u32::try_from(QUEUE).unwrap();
        let (last, more) = (lease(last).mac, lease(last + 1).mac);
        assert!(ledger.with(|table, _| table.of(last).is_some() && table.of(more).is_none()));
        assert_eq!(ledger.release([10, 0, 0, 1].into()), None, "no place for this either");
        go.send(()).unwrap();
        assert_eq!(told.recv().unwrap(), QUEUE);
        go.send(()).unwrap();
        assert_eq!(ledger.release([10, 0, 0, 1].into()), Some(lease(1)));
        assert_eq!(ledger.release([10, 0, 0, 1].into()), None, "it has ended");
        assert_eq!(told.recv().unwrap(), 1);
        go.send(()).unwrap();
        assert_eq!(ledger.leases().len(), QUEUE + 1);
        drop(ledger);
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn leases_of_another_server_are_taken_over_where_nobody_is_in_their_way() {
        struct Counts(Arc<Mutex<Vec<Lease>>>);
        impl LeaseLog for Counts {
            fn commit(&mut self, leases: &[Lease]) -> Result<(), BoxError> {
                self.0.lock().unwrap().extend_from_slice(leases);
                Ok(())
            }
        }
        let lease = |mac: u8, last: u8, expires| Lease {
            address: [10, 0, 0, last].into(),
            mac: Mac::new([2, 0, 0, 0, 0, mac]),
            expires,
            hostname: None,
        };
        let later = i64::from(u32::MAX);
        let written = Arc::new(Mutex::new(vec![]));
        let own = vec![lease(1, 1, later)];
        let (ledger, writer) = Ledger::start(own, Counts(written.clone()));
        let others = vec![
            lease(2, 2, later),
            lease(3, 1, later),
            lease(1, 4, later),
            lease(5, 5, 1),
            lease(6, 2, later),
            lease(7, 200, later),
        ];
        let refuses = |lease: &Lease| (lease.address.octets()[3] > 99).then(|| "no".to_owned());
        let tried = ledger.take_over(others.clone(), true, refuses).unwrap();
        assert_eq!(ledger.leases().len(), 1);
        let skipped = ledger.take_over(others, false, refuses).unwrap();
        assert_eq!(skipped, tried);
        let last: Vec<u8> = skipped.iter().map(|(address, _)| address.octets()[3]).collect();
        assert_eq!(last, [1, 4, 5, 2, 200]);
        assert_eq!(ledger.leases().len(), 2);
        drop(ledger);
        writer.await.unwrap();
        assert_eq!(*written.lock().unwrap(), [lease(2, 2, later)]);
    }
}
