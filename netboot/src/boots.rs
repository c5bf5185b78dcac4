//! Follows every boot from its first packet to `healthy`.
//!
//! One task owns all that is known of running boots and is the only writer of boots, events and sightings. The
//! servers hand it what they see through a bounded queue and never wait for the disk; when the queue is full,
//! sightings are dropped (the machine repeats itself), while scripts, failures and reports wait for a place.

mod active;
mod align;
mod census;
mod late;
mod message;
mod next;
mod pending;
pub(crate) mod secret;
mod tracker;
mod words;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use kiln_inventory::{
    Boot, BootId, Database, Decision, MachineId, OrderId, Sighting, SpareBoots, Store, StoreError,
};
use kiln_ipxe::BootTicket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub use self::census::Standing;
use self::message::{Message, ScriptBy, Told};
use self::tracker::Tracker;
pub use self::words::{BootsError, Exchange, Identity, NextPlan, Report, Reports, Transfer};
use crate::discovery::Discovery;
use crate::observe::COUNTS;

/// Messages that may wait for the writer.
const QUEUE: usize = 4096;
/// How long the task may take to answer whether it is there.
const PATIENCE: Duration = Duration::from_secs(5);
/// The way to the task that follows boots. Clones share it.
#[derive(Clone, Debug)]
pub struct Boots {
    queue: mpsc::Sender<Message>,
}

/// Returns the time as boots keep it: milliseconds since 1970.
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

impl Boots {
    /// Starts the task. It ends, with everything written, when the last clone is dropped.
    pub fn start(store: Store) -> (Self, JoinHandle<()>) {
        Self::start_with(store, SpareBoots::default())
    }

    /// The same with numbers for boots that begin before the database is reached.
    pub fn start_with(store: Store, spare: SpareBoots) -> (Self, JoinHandle<()>) {
        let (queue, messages) = mpsc::channel(QUEUE);
        (Self { queue }, tokio::spawn(Tracker::new(store, spare).run(messages)))
    }

    /// Uses a database that was away since the start, and takes up the boots of the server before.
    ///
    /// # Errors
    ///
    /// When it is away still.
    pub(crate) async fn go_on_with(&self, database: Database) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        let _ = self.queue.send(Message::GoOn { database, reply }).await;
        // Without a task there is nothing to take up, and the server ends.
        answer.await.unwrap_or(Ok(()))
    }

    /// Tells the queue of machines that nobody has added what those say of themselves.
    pub fn tells(&self, discovery: Discovery) {
        self.offer(Message::Discovery(discovery));
    }

    /// Tells from now on who exports boots that one has ended.
    #[cfg(feature = "otel")]
    pub(crate) fn ends(&self, ended: crate::otel::Ended) {
        self.offer(Message::Ends(ended));
    }

    /// Notes a DHCP packet and what it was answered with. `fresh` is for a DISCOVER. Never waits.
    pub fn seen(
        &self,
        sighting: &Sighting,
        decision: Option<&Decision>,
        fresh: bool,
        address: Option<IpAddr>,
    ) {
        self.exchanged(sighting, decision, fresh, address, None);
    }

    /// The same, with the packets as the timeline tells them.
    pub fn exchanged(
        &self,
        sighting: &Sighting,
        decision: Option<&Decision>,
        fresh: bool,
        address: Option<IpAddr>,
        exchange: Option<Exchange>,
    ) {
        let (sighting, decision) = (sighting.clone(), decision.cloned());
        self.offer(Message::Seen { at: now_ms(), sighting, decision, fresh, address, exchange });
    }

    /// Notes what became of a file that an address asked for before it has a script. Never waits.
    pub fn loader(&self, peer: IpAddr, transfer: Transfer) {
        self.offer(Message::Loader { at: now_ms(), peer, transfer });
    }

    /// Notes that the firmware at an address would not talk to this server, and why. Never waits.
    pub fn untrusted(&self, peer: IpAddr, detail: String) {
        self.offer(Message::Untrusted { at: now_ms(), peer, detail });
    }

    /// Notes what became of a file of a boot that an address asked for. Never waits.
    pub fn transfer(&self, peer: IpAddr, boot: BootId, transfer: Transfer) {
        self.offer(Message::Transfer { at: now_ms(), peer, boot, transfer });
    }

    /// Notes that a script is asked for, and returns what ties its fetches to the boot when it boots something.
    pub async fn script(
        &self,
        peer: IpAddr,
        sighting: Sighting,
        decision: Decision,
    ) -> Option<BootTicket> {
        self.tied(peer, sighting, decision, ScriptBy::Ipxe).await
    }

    /// The same for the menu of another loader. Nobody gets one from another address than that of the machine.
    pub async fn menu(
        &self,
        peer: IpAddr,
        sighting: Sighting,
        decision: Decision,
    ) -> Option<BootTicket> {
        self.tied(peer, sighting, decision, ScriptBy::Menu).await
    }

    /// The same for one file with everything in it, which is not worth a line in the timeline before it was sent.
    pub async fn ticket(
        &self,
        peer: IpAddr,
        sighting: Sighting,
        decision: Decision,
    ) -> Option<BootTicket> {
        self.tied(peer, sighting, decision, ScriptBy::Firmware).await
    }

    async fn tied(
        &self,
        peer: IpAddr,
        sighting: Sighting,
        decision: Decision,
        by: ScriptBy,
    ) -> Option<BootTicket> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Script { at: now_ms(), peer, sighting, decision, by, reply };
        self.queue.send(message).await.ok()?;
        answer.await.ok().flatten()
    }

    /// Returns what was seen of the machine that has an address.
    pub async fn who(&self, peer: IpAddr) -> Option<Sighting> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Message::Who { peer, reply }).await.ok()?;
        answer.await.ok().flatten()
    }

    /// Takes the word of a loader that it gave up. It counts for a boot that is under way, from its own address and
    /// before its system has reported; the caller does not learn whether it did.
    pub async fn loader_failed(&self, peer: IpAddr, boot: BootId, detail: String) {
        let message = Message::LoaderFailed { at: now_ms(), peer, boot, detail };
        // A server that stops has no more use for it.
        let _ = self.queue.send(message).await;
    }

    /// Returns what goes into the machine's own segment, for its secret key and from its own address only.
    ///
    /// The key works until the system reports for the first time, a quarter of an hour after the loader was seen last, or
    /// some fetches: a loader may fetch again what broke off. Whoever is refused is told of in the timeline of the boot.
    ///
    /// # Errors
    ///
    /// Fails for a boot that is not under way, and for anything that is not the machine.
    pub async fn identity(
        &self,
        peer: IpAddr,
        boot: BootId,
        key: &str,
    ) -> Result<Identity, BootsError> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Identity { at: now_ms(), peer, boot, key: key.to_owned(), reply };
        self.queue.send(message).await.map_err(|_| BootsError::Stopping)?;
        answer.await.unwrap_or(Err(BootsError::Stopping))
    }

    /// Notes something that may be wrong with a boot, once.
    pub async fn warn(&self, boot: BootId, detail: String) {
        // A server that stops has no more use for it.
        let _ = self.queue.send(Message::Warn { at: now_ms(), boot, detail }).await;
    }

    /// Takes what a booted system reports. `at` is when it arrived.
    ///
    /// # Errors
    ///
    /// Fails for a boot that is not under way, and for anything that is not the machine.
    pub async fn reports(
        &self,
        at: i64,
        peer: IpAddr,
        boot: BootId,
        token: &str,
        reports: Reports,
    ) -> Result<(), BootsError> {
        let (reply, answer) = oneshot::channel();
        let token = token.to_owned();
        let message = Message::Reports { at, peer, boot, token, reports, reply };
        self.queue.send(message).await.map_err(|_| BootsError::Stopping)?;
        answer.await.unwrap_or(Err(BootsError::Stopping))
    }

    /// Keeps what a machine says about itself: JSON that was looked through already.
    ///
    /// # Errors
    ///
    /// Fails for a boot that is not under way, for anything that is not the machine, and when it cannot be written.
    pub async fn facts(
        &self,
        peer: IpAddr,
        boot: BootId,
        token: &str,
        facts: String,
    ) -> Result<(), BootsError> {
        self.told(peer, boot, token, Told::Facts(facts)).await
    }

    /// Keeps the last words of the kernel of a boot that failed.
    ///
    /// # Errors
    ///
    /// Fails for a boot that is not under way, for anything that is not the machine, and when it cannot be written.
    pub async fn kernel_log(
        &self,
        peer: IpAddr,
        boot: BootId,
        token: &str,
        log: String,
    ) -> Result<(), BootsError> {
        self.told(peer, boot, token, Told::KernelLog(log)).await
    }

    async fn told(
        &self,
        peer: IpAddr,
        boot: BootId,
        token: &str,
        told: Told,
    ) -> Result<(), BootsError> {
        let (reply, answer) = oneshot::channel();
        let token = token.to_owned();
        let message = Message::Told { at: now_ms(), peer, boot, token, told, reply };
        self.queue.send(message).await.map_err(|_| BootsError::Stopping)?;
        answer.await.unwrap_or(Err(BootsError::Stopping))
    }

    /// Returns the machine whose system proves with its token that it runs this boot.
    ///
    /// # Errors
    ///
    /// Fails for a boot that is not under way, and for anything that is not the machine.
    pub async fn proven(
        &self,
        peer: IpAddr,
        boot: BootId,
        token: &str,
    ) -> Result<MachineId, BootsError> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Proof { at: now_ms(), peer, boot, token: token.to_owned(), reply };
        self.queue.send(message).await.map_err(|_| BootsError::Stopping)?;
        answer.await.unwrap_or(Err(BootsError::Stopping))
    }

    /// Returns whether this server gave somebody his address in a boot that is under way.
    pub async fn gave(&self, peer: IpAddr, boot: BootId) -> bool {
        let (reply, answer) = oneshot::channel();
        let sent = self.queue.send(Message::Gave { peer, boot, reply }).await;
        sent.is_ok() && answer.await.unwrap_or(false)
    }

    /// Returns the boot whose system has reported last of a machine, unless a later one has begun by DHCP or has its
    /// system.
    pub async fn running(&self, machine: MachineId) -> Option<Boot> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Message::Running { machine, reply }).await.ok()?;
        answer.await.ok().flatten()
    }

    /// Returns the addresses of the machines whose systems run, as [`running`](Self::running) tells them.
    pub async fn addresses(&self) -> HashMap<MachineId, IpAddr> {
        let (reply, answer) = oneshot::channel();
        match self.queue.send(Message::Addresses { reply }).await {
            Ok(()) => answer.await.unwrap_or_default(),
            Err(_) => HashMap::new(),
        }
    }

    /// Opens the boot that the system of a machine is told to start, and returns what ties its fetches to it. It
    /// takes the place of the boot that runs when its own system reports. The same order has the same boot.
    pub async fn next(
        &self,
        machine: MachineId,
        plan: NextPlan,
        order: OrderId,
    ) -> Option<BootTicket> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Next { at: now_ms(), machine, plan, order, reply };
        self.queue.send(message).await.ok()?;
        answer.await.ok().flatten()
    }

    /// Notes that the system of a machine could not start what it was told to.
    pub async fn next_failed(&self, machine: MachineId, detail: String) {
        // A server that stops has no more use for it.
        let _ = self.queue.send(Message::NextFailed { at: now_ms(), machine, detail }).await;
    }

    /// Returns the last boot of the machine that has an address.
    pub async fn boot_at(&self, peer: IpAddr) -> Option<BootId> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Message::At { peer, reply }).await.ok()?;
        answer.await.ok().flatten()
    }

    /// Returns whether the task answers within some seconds: a live server always does.
    pub async fn answers(&self) -> bool {
        let nobody = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.queue.send(Message::Who { peer: nobody, reply }).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(PATIENCE, asked).await.is_ok_and(|answer| answer.is_some())
    }

    /// Returns how many messages wait to be taken in.
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    fn offer(&self, message: Message) {
        if self.queue.try_send(message).is_err() {
            COUNTS.lost.add(1);
            tracing::debug!("the queue of the boot tracker is full, an event is lost");
        }
    }
}

#[cfg(test)]
mod late_tests;
#[cfg(test)]
mod next_tests;
#[cfg(test)]
mod script_tests;
#[cfg(test)]
pub(crate) mod tests;
