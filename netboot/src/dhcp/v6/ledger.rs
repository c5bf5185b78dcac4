use std::collections::HashSet;
use std::future::Future;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_inventory::{Lease6, Pools};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::warn;

use super::encode::Reply;
use super::subnet::Subnet;
use super::table::LeaseTable;
use crate::dhcp::book::Book;
use crate::dhcp::{BoxError, SharedLedger, Shares, Timestamp};
use crate::observe::COUNTS;

/// Makes leases of IPv6 durable.
pub trait LeaseLog: Send + Sync + 'static {
    /// Writes the leases; once it returns, they survive a loss of power.
    fn commit(&self, leases: &[Lease6]) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// Replies that may wait for the disk. More requests are dropped, and their clients ask again.
const QUEUE: usize = 256;

/// Leases on their way to disk, and the packet that leaves after them.
struct Pending {
    leases: Vec<Lease6>,
    reply: Option<(Reply, Arc<UdpSocket>)>,
}

/// The leases of all subnets of IPv6: one table and one writer, as for IPv4. Clones share both.
#[derive(Clone, Debug)]
pub struct Ledger {
    known: Arc<Mutex<Known>>,
    queue: mpsc::Sender<Pending>,
}

#[derive(Debug)]
struct Known {
    book: Book<LeaseTable>,
    /// Whether every lease is known that is on disk.
    whole: bool,
}

impl Ledger {
    /// Starts from the leases that were kept. The task writes new ones until the last clone is dropped.
    pub fn start(leases: Vec<Lease6>, log: impl LeaseLog) -> (Self, JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let known = Known { book: Book::new(LeaseTable::new(leases)), whole: true };
        let known = Arc::new(Mutex::new(known));
        (Self { known, queue }, tokio::spawn(write_leases(waiting, log)))
    }

    /// Takes in leases that are on disk already, and that were not known at the start. Once: from then on newer ones may be
    /// given.
    pub(crate) fn learn(&self, leases: Vec<Lease6>) {
        let mut known = self.open();
        if known.whole {
            return;
        }
        let (table, _) = known.book.lend(|moved| self.keep(moved));
        leases.into_iter().for_each(|lease| table.insert(lease));
        known.whole = true;
    }

    /// Says that there are leases that are not known yet: nothing is claimed before they are learned.
    pub(crate) fn is_to_learn(&self) {
        self.open().whole = false;
    }

    /// Lends the table, for as long as it takes to decide on one packet, with the time.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut LeaseTable, Timestamp) -> T) -> T {
        let mut known = self.open();
        let (table, now) = known.book.lend(|moved| self.keep(moved));
        work(table, now)
    }

    /// Sends leases on their way to disk, without a reply. Returns false when too many wait for it.
    fn keep(&self, leases: Vec<Lease6>) -> bool {
        self.queue.try_send(Pending { leases, reply: None }).is_ok()
    }

    fn open(&self) -> MutexGuard<'_, Known> {
        // Every change of the table is whole when it is made.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the addresses whose leases run.
    pub(crate) fn used(&self) -> Vec<Ipv6Addr> {
        self.with(|table, now| table.used(now))
    }

    /// Sends leases on their way to disk and the reply after them, and takes them into the table that
    /// [`with`](Self::with) lends. Returns false, and leaves no trace, when too many wait for the disk.
    pub(super) fn enter(
        &self,
        table: &mut LeaseTable,
        leases: Vec<Lease6>,
        reply: Option<(Reply, Arc<UdpSocket>)>,
    ) -> bool {
        let sent = self.queue.try_send(Pending { leases: leases.clone(), reply }).is_ok();
        if sent {
            leases.into_iter().for_each(|lease| table.insert(lease));
        }
        sent
    }

    /// Takes over leases that another server gave, those of them that are wanted and in nobody's way, with one write.
    /// Returns for each of the others why it is not taken over, or nothing when too many wait for the disk or not all
    /// leases are known yet.
    pub(crate) fn take_over(
        &self,
        leases: Vec<Lease6>,
        dry_run: bool,
        refuses: impl Fn(&Lease6) -> Option<String>,
    ) -> Option<Vec<(Ipv6Addr, String)>> {
        if !self.open().whole {
            return None;
        }
        self.with(|table, now| {
            let (mut taken, mut skipped) = (Vec::new(), Vec::new());
            let (mut addresses, mut holders) = (HashSet::new(), HashSet::new());
            for lease in leases {
                let holder = (lease.duid.clone(), lease.iaid);
                let why = if lease.expires <= now.0 {
                    Some("the lease has ended".to_owned())
                } else if !table.may_lease(lease.address) {
                    Some("another server gives this address".to_owned())
                } else if !addresses.insert(lease.address) || !holders.insert(holder) {
                    Some("another lease has the address, or the association".to_owned())
                } else {
                    in_the_way(table, &lease, now).or_else(|| refuses(&lease))
                };
                match why {
                    Some(why) => skipped.push((lease.address, why)),
                    None => taken.push(lease),
                }
            }
            let done = dry_run || taken.is_empty() || self.enter(table, taken, None);
            done.then_some(skipped)
        })
    }

    /// Returns every lease, also those that have ended, in the order of addresses.
    pub(crate) fn leases(&self) -> Vec<Lease6> {
        self.with(|table, _| table.all())
    }

    /// Ends the lease of an address, so that others may get it at once. Returns the lease as it was, or nothing when
    /// there is none, it has ended, or too many wait for the disk.
    pub(crate) fn release(&self, address: Ipv6Addr) -> Option<Lease6> {
        self.with(|table, now| {
            let lease = table.at(address).filter(|lease| lease.expires > now.0)?.clone();
            let ended = Lease6 { expires: now.0, ..lease.clone() };
            self.enter(table, vec![ended], None).then_some(lease)
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
    const POOLS: Pools = Pools::V6;
    type Subnet = Subnet;

    fn lend<T>(&self, work: impl FnOnce(&mut dyn Shares, Timestamp) -> T) -> T {
        self.with(|table, now| work(table, now))
    }

    fn set_claims(&self, blocks: HashSet<u128>, until: Duration) {
        self.open().book.set_claims(blocks, until);
    }

    fn is_whole(&self) -> bool {
        self.open().whole
    }
}

/// Says who has the address of a lease that is to be taken over, or what its association has already.
fn in_the_way(table: &LeaseTable, lease: &Lease6, now: Timestamp) -> Option<String> {
    let runs = |other: &&Lease6| other.expires > now.0;
    let holder = |it: &&Lease6| (&it.duid, it.iaid) != (&lease.duid, lease.iaid);
    if let Some(other) = table.at(lease.address).filter(runs).filter(holder) {
        return Some(format!("{} has the address", other.duid));
    }
    let other = table.of(&lease.duid, lease.iaid).filter(runs);
    let other = other.filter(|it| it.address != lease.address);
    other.map(|other| format!("{} has {} already", other.duid, other.address))
}

/// Sends a reply. What cannot be sent is told in the log; its client asks again.
pub(super) async fn send(socket: &UdpSocket, reply: &Reply) {
    let sent = socket.send_to(&reply.encode(), reply.to).await;
    COUNTS.reply6(reply.kind, sent.is_ok());
    if let Err(error) = sent {
        warn!(peer = %reply.to, %error, "could not send a DHCPv6 reply");
    }
}

/// Writes leases, all that wait in one go, and sends each reply after its leases are on disk.
async fn write_leases<L: LeaseLog>(mut waiting: mpsc::Receiver<Pending>, log: L) {
    let mut batch = Vec::with_capacity(QUEUE);
    while waiting.recv_many(&mut batch, QUEUE).await > 0 {
        let leases: Vec<Lease6> =
            batch.iter().flat_map(|pending: &Pending| pending.leases.clone()).collect();
        match log.commit(&leases).await {
            Ok(()) => {
                for (reply, socket) in batch.drain(..).filter_map(|pending| pending.reply) {
                    send(&socket, &reply).await;
                }
            }
            // Without a reply the clients ask again; by then there may be room on the disk.
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
    use std::net::{SocketAddr, SocketAddrV6};

    use kiln_inventory::Duid;

    use super::*;
    use crate::dhcp::v6::ReplyKind;
    use crate::dhcp::v6::encode::Options;

    /// Counts the leases of each commit. Fails when told, and when a packet has already left.
    struct Disk {
        full: bool,
        client: Arc<UdpSocket>,
        commits: Arc<Mutex<Vec<usize>>>,
    }

    impl LeaseLog for Disk {
        async fn commit(&self, leases: &[Lease6]) -> Result<(), BoxError> {
            self.commits.lock().unwrap().push(leases.len());
            assert!(self.client.try_recv(&mut [0; 8]).is_err(), "nothing leaves before the commit");
            if self.full { Err("no space left".into()) } else { Ok(()) }
        }
    }

    async fn written(full: bool) -> (Vec<usize>, usize) {
        let local = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0);
        let client = Arc::new(UdpSocket::bind(local).await.unwrap());
        let server = Arc::new(UdpSocket::bind(local).await.unwrap());
        let SocketAddr::V6(to) = client.local_addr().unwrap() else { unreachable!() };
        let commits = Arc::new(Mutex::new(vec![]));
        let disk = Disk { full, client: Arc::clone(&client), commits: Arc::clone(&commits) };
        let (ledger, writer) = Ledger::start(vec![], disk);
        for last in 1..=3 {
            let reply = Reply {
                kind: ReplyKind::Reply,
                xid: [0; 3],
                options: Options::default(),
                relays: vec![],
                to,
            };
            let address = [0xfd77, 0, 0, 0, 0, 0, 0, last].into();
            let duid = Duid::new(&[0, 4, 1]).unwrap();
            let lease = Lease6 { address, duid, iaid: last.into(), mac: None, expires: 1 };
            let reply = Some((reply, Arc::clone(&server)));
            assert!(ledger.with(|table, _| ledger.enter(table, vec![lease], reply)));
        }
        drop(ledger);
        writer.await.unwrap();
        let mut arrived = 0;
        while arrived < 3 && !full {
            assert_eq!(client.recv(&mut [0; 16]).await.unwrap(), 4);
            arrived += 1;
        }
        assert!(client.try_recv(&mut [0; 16]).is_err());
        let commits = commits.lock().unwrap().clone();
        (commits, arrived)
    }

    /// Keeps the leases of each commit.
    struct Kept(Arc<Mutex<Vec<Lease6>>>);

    impl LeaseLog for Kept {
        async fn commit(&self, leases: &[Lease6]) -> Result<(), BoxError> {
            self.0.lock().unwrap().extend_from_slice(leases);
            Ok(())
        }
    }

    #[tokio::test]
    async fn leases_follow_a_clock_that_is_set_and_are_kept_so() {
        const HOUR: i64 = 3600;
        let now = Timestamp::now();
        let lease = |last: u16, expires| Lease6 {
            address: [0xfd77, 0, 0, 0, 0, 0, 0, last].into(),
            duid: Duid::new(&[0, 4, 1]).unwrap(),
            iaid: last.into(),
            mac: None,
            expires,
        };
        let kept = Arc::new(Mutex::new(Vec::new()));
        // An hour ago one ran and one had ended; by the new time both have.
        let then = now.0 - HOUR;
        let (runs, ended) = (lease(1, then + 600), lease(2, then - 600));
        let leases = vec![runs.clone(), ended.clone()];
        let (ledger, writer) = Ledger::start(leases, Kept(kept.clone()));
        ledger.open().book.clock_is_set(HOUR);
        assert_eq!(ledger.used(), [runs.address]);
        ledger.with(|table, _| {
            let moved = table.at(runs.address).unwrap().expires - runs.expires;
            assert!((HOUR - 1..=HOUR).contains(&moved), "{moved}");
            assert_eq!(table.at(ended.address), Some(&ended));
        });
        drop(ledger);
        writer.await.unwrap();
        let kept = kept.lock().unwrap();
        assert_eq!((kept.len(), kept[0].address), (1, runs.address));
        assert!(kept[0].expires >= runs.expires + HOUR - 1);
    }

    #[tokio::test]
    async fn leases_that_were_given_since_are_not_replaced_by_what_is_learnt_once_more() {
        let lease = |expires| Lease6 {
            address: [0xfd77, 0, 0, 0, 0, 0, 0, 1].into(),
            duid: Duid::new(&[0, 4, 1]).unwrap(),
            iaid: 1,
            mac: None,
            expires,
        };
        let (ledger, _) = Ledger::start(vec![], Kept(Arc::default()));
        ledger.is_to_learn();
        ledger.learn(vec![lease(1000)]);
        assert!(ledger.is_whole());
        assert!(ledger.with(|table, _| ledger.enter(table, vec![lease(5000)], None)));
        ledger.learn(vec![lease(1000)]);
        ledger.with(|table, _| assert_eq!(table.at(lease(0).address), Some(&lease(5000))));
    }

    #[tokio::test]
    async fn leases_of_another_server_are_taken_over_where_nobody_is_in_the_way() {
        struct Nowhere;
        impl LeaseLog for Nowhere {
            async fn commit(&self, _: &[Lease6]) -> Result<(), BoxError> {
                Ok(())
            }
        }
        let lease = |last: u16, client: u8, iaid: u32, expires: i64| Lease6 {
            address: [0xfd77, 0, 0, 0, 0, 0, 0, last].into(),
            duid: Duid::new(&[0, 4, client]).unwrap(),
            iaid,
            mac: None,
            expires,
        };
        let end = Timestamp::now().0 + 1000;
        let (ledger, _) = Ledger::start(vec![lease(1, 1, 1, end), lease(2, 2, 1, 5)], Nowhere);
        let given = vec![
            lease(1, 9, 1, end),
            lease(3, 1, 1, end),
            lease(2, 9, 2, end),
            lease(4, 9, 3, 5),
            lease(5, 9, 4, end),
            lease(5, 9, 5, end),
            lease(6, 9, 4, end),
            lease(7, 9, 6, end),
        ];
        let refuses = |lease: &Lease6| {
            (lease.address == Ipv6Addr::from([0xfd77, 0, 0, 0, 0, 0, 0, 7]))
                .then(|| "no".to_owned())
        };
        let used = || ledger.used().len();
        let mut told = Vec::new();
        for dry_run in [true, false] {
            assert_eq!(used(), 1, "a dry run takes nothing");
            let skipped = ledger.take_over(given.clone(), dry_run, refuses).unwrap();
            told.push(skipped.into_iter().map(|(_, why)| why).collect::<Vec<_>>());
        }
        let twice = "another lease has the address, or the association";
        let expected = [
            "000401 has the address",
            "000401 has fd77::1 already",
            "the lease has ended",
            twice,
            twice,
            "no",
        ];
        assert_eq!(told, [expected, expected]);
        assert_eq!(used(), 3);
        ledger.is_to_learn();
        assert!(ledger.take_over(given, true, refuses).is_none());
    }

    #[tokio::test]
    async fn leases_that_wait_are_written_at_once_and_then_told() {
        assert_eq!(written(false).await, (vec![3], 3));
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_not_told() {
        assert_eq!(written(true).await, (vec![3], 0));
    }
}
