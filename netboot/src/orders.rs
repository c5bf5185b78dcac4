//! Orders to running machines: handed out by long poll, answered once.
//!
//! The inventory holds what was ordered and what became of it. Here is only who waits: a machine that has nothing to do
//! costs one task and one entry of a map, and asks the database nothing.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_inventory::{BootId, MachineId, NewOrder, Order, OrderId, OrderState, Store, StoreError};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::boots::now_ms;

/// The longest that a poll waits.
pub const LONGEST_WAIT: Duration = Duration::from_secs(55);
/// How long an order waits for its machine.
pub const LIFETIME: Duration = Duration::from_secs(10 * 60);
/// Polls that one machine may have at a time: one that waits, and others whose connection is gone unnoticed.
const MOST_POLLS: usize = 4;
/// The largest answer that is kept.
const LARGEST_ANSWER: usize = 256 << 10;

/// The orders of one server. Clones share them.
#[derive(Clone, Debug)]
pub struct Orders {
    store: Store,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    machines: Mutex<Machines>,
    /// Changes whenever an order ends.
    ended: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Machines {
    /// Those that may have orders without an end; nobody else's are looked for.
    with_orders: HashSet<MachineId>,
    polls: HashMap<MachineId, Polls>,
}

#[derive(Debug, Default)]
struct Polls {
    count: usize,
    wake: Arc<Notify>,
}

/// Why a poll has no answer.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    /// The machine polls already.
    #[error("this machine asks for its orders too often")]
    TooMany,
    /// The server stops.
    #[error("the server stops")]
    Stopping,
    /// The inventory cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Orders {
    /// Begins without orders.
    pub fn new(store: Store, stop: CancellationToken) -> Self {
        let (machines, ended) = (Mutex::default(), watch::Sender::new(()));
        Self { store, shared: Arc::new(Shared { machines, ended }), stop }
    }

    /// Takes up what an earlier server left.
    ///
    /// # Errors
    ///
    /// When the inventory cannot be read.
    pub async fn take_up(&self) -> Result<(), StoreError> {
        let left = self.store.machines_with_orders().await?;
        self.machines().with_orders.extend(left);
        Ok(())
    }

    /// Begins with what an earlier server left.
    ///
    /// # Errors
    ///
    /// When the inventory cannot be read.
    pub async fn start(store: Store, stop: CancellationToken) -> Result<Self, StoreError> {
        let orders = Self::new(store, stop);
        orders.take_up().await?;
        Ok(orders)
    }

    /// Gives an order, and wakes the machine that waits for one.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub async fn give(&self, new: &NewOrder) -> Result<Order, StoreError> {
        let order = self.store.add_order(new).await?;
        let (id, machine) = (order.id.0, &order.machine_name);
        tracing::info!(
            order = id,
            machine,
            kind = order.command.kind(),
            by = order.asked_by,
            "ordered"
        );
        // After it is written: a poll that looks now finds it.
        let mut machines = self.machines();
        machines.with_orders.insert(order.machine);
        if let Some(polls) = machines.polls.get(&order.machine) {
            polls.wake.notify_waiters();
        }
        Ok(order)
    }

    /// Returns the orders of a boot after the last one that its system knows, waiting for one for a while.
    ///
    /// # Errors
    ///
    /// When the machine has too many polls, the server stops, or the inventory cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was handed out into nothing is handed out again.
    pub async fn poll(
        &self,
        machine: MachineId,
        boot: BootId,
        after: OrderId,
        patience: Duration,
    ) -> Result<Vec<Order>, PollError> {
        let deadline = Instant::now() + patience.min(LONGEST_WAIT);
        let poll = Poll::begin(&self.shared, machine).ok_or(PollError::TooMany)?;
        loop {
            let woken = poll.wake.notified();
            tokio::pin!(woken);
            // From here on an order that is given wakes us.
            woken.as_mut().enable();
            if self.machines().with_orders.remove(&machine) {
                let mut mark = Mark { orders: self, machine: Some(machine) };
                let orders = self.store.take_orders(boot, after, now_ms()).await?;
                if !orders.is_empty() {
                    return Ok(orders);
                }
                mark.machine = None;
            }
            tokio::select! {
                () = self.stop.cancelled() => return Err(PollError::Stopping),
                woken = timeout_at(deadline, woken) => if woken.is_err() { return Ok(Vec::new()) },
            }
        }
    }

    /// Takes what a machine says about an order of its boot. The first word counts; nothing is returned where there is
    /// no such order.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub async fn end(
        &self,
        boot: BootId,
        id: OrderId,
        state: OrderState,
        answer: &str,
    ) -> Result<Option<Order>, StoreError> {
        let answer = clean(answer);
        let order = self.store.end_order(boot, id, state, &answer, now_ms()).await?;
        if let Some(order) = &order {
            let (machine, state) = (&order.machine_name, order.state.as_str());
            tracing::info!(order = id.0, machine, state, "order ended");
            self.shared.ended.send_replace(());
        }
        Ok(order)
    }

    /// Returns an order, waiting for its end for a while.
    ///
    /// # Errors
    ///
    /// When the inventory cannot be read.
    pub async fn show(&self, id: OrderId, patience: Duration) -> Result<Option<Order>, StoreError> {
        let deadline = Instant::now() + patience.min(LONGEST_WAIT);
        let mut ended = self.shared.ended.subscribe();
        loop {
            ended.mark_unchanged();
            self.store.expire_orders(now_ms()).await?;
            let order = self.store.order(id).await?;
            if order.as_ref().is_none_or(|order| order.state.has_ended()) {
                return Ok(order);
            }
            // A machine that starts anew ends its orders without a word to us.
            let look = (Instant::now() + Duration::from_secs(2)).min(deadline);
            tokio::select! {
                () = self.stop.cancelled() => return Ok(order),
                changed = timeout_at(look, ended.changed()) => {
                    if changed.is_err() && Instant::now() >= deadline {
                        return Ok(order);
                    }
                }
            }
        }
    }

    /// Returns the orders of a machine, newest first; with another order, those before it.
    ///
    /// # Errors
    ///
    /// When the inventory cannot be read.
    pub async fn list(
        &self,
        machine: MachineId,
        before: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<Order>, StoreError> {
        self.store.expire_orders(now_ms()).await?;
        self.store.orders(machine, before, limit).await
    }

    fn machines(&self) -> MutexGuard<'_, Machines> {
        self.shared.machines()
    }
}

impl Shared {
    fn machines(&self) -> MutexGuard<'_, Machines> {
        // Each change is one step, so that a panic elsewhere leaves it whole.
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One poll of a machine, counted while it lives.
struct Poll<'a> {
    shared: &'a Shared,
    machine: MachineId,
    wake: Arc<Notify>,
}

impl<'a> Poll<'a> {
    fn begin(shared: &'a Shared, machine: MachineId) -> Option<Self> {
        let mut machines = shared.machines();
        let polls = machines.polls.entry(machine).or_default();
        if polls.count >= MOST_POLLS {
            return None;
        }
        polls.count += 1;
        let wake = polls.wake.clone();
        Some(Self { shared, machine, wake })
    }
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        let mut machines = self.shared.machines();
        if let Some(polls) = machines.polls.get_mut(&self.machine) {
            polls.count -= 1;
            if polls.count == 0 {
                machines.polls.remove(&self.machine);
            }
        }
    }
}

/// Takes out of an answer what would move the cursor of whoever reads it, and what is too much.
fn clean(answer: &str) -> String {
    let fits = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    let mut text: String = answer.chars().filter(fits).collect();
    if text.len() > LARGEST_ANSWER {
        let mut end = LARGEST_ANSWER;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}

/// Says again that a machine has orders, unless it was seen that there are none: who asked may be gone by then.
struct Mark<'a> {
    orders: &'a Orders,
    machine: Option<MachineId>,
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        if let Some(machine) = self.machine {
            self.orders.machines().with_orders.insert(machine);
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_inventory::Command;

    use super::*;

    const MACHINE: MachineId = MachineId(3);
    const BOOT: BootId = BootId(7);

    async fn orders() -> (tempfile::TempDir, Orders) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("inventory.db")).await.unwrap();
        let orders = Orders::start(store, CancellationToken::new()).await.unwrap();
        (dir, orders)
    }

    fn reboot() -> NewOrder {
        let asked = now_ms();
        NewOrder {
            machine: MACHINE,
            machine_name: "n1".to_owned(),
            boot: BOOT,
            command: Command::Reboot,
            asked,
            asked_by: "uid 0".to_owned(),
            expires: asked + 60_000,
        }
    }

    #[tokio::test]
    async fn a_machine_that_waits_is_woken_by_its_order_and_by_no_other() {
        let (_dir, orders) = orders().await;
        let waiting = {
            let orders = orders.clone();
            tokio::spawn(async move { orders.poll(MACHINE, BOOT, OrderId(0), LONGEST_WAIT).await })
        };
        while !orders.machines().polls.contains_key(&MACHINE) {
            tokio::task::yield_now().await;
        }
        orders
            .give(&NewOrder { machine: MachineId(4), boot: BootId(8), ..reboot() })
            .await
            .unwrap();
        let order = orders.give(&reboot()).await.unwrap();
        let handed = waiting.await.unwrap().unwrap();
        assert_eq!(handed.iter().map(|order| order.id).collect::<Vec<_>>(), [order.id]);
        assert!(orders.machines().polls.is_empty());
    }

    #[tokio::test]
    async fn an_order_is_handed_out_again_until_it_is_known_and_not_after_its_end() {
        let (_dir, orders) = orders().await;
        let order = orders.give(&reboot()).await.unwrap();
        let poll = async |orders: &Orders, after| {
            orders.poll(MACHINE, BOOT, after, Duration::ZERO).await.unwrap().len()
        };
        assert_eq!(poll(&orders, OrderId(0)).await, 1);
        // A server that starts anew knows of it.
        let next = Orders::start(orders.store.clone(), CancellationToken::new()).await.unwrap();
        assert_eq!(poll(&next, OrderId(0)).await, 1);
        assert_eq!(poll(&next, order.id).await, 0);
        let ended = next.end(BOOT, order.id, OrderState::Done, "a\u{1b}[2Jb\n").await.unwrap();
        assert_eq!(ended.unwrap().answer, "a[2Jb\n");
        assert_eq!(poll(&next, OrderId(0)).await, 0);
        assert!(next.end(BootId(8), order.id, OrderState::Done, "").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn an_order_is_found_again_by_who_asks_after_a_failure() {
        let (dir, orders) = orders().await;
        orders.give(&reboot()).await.unwrap();
        let path = dir.path().join("inventory.db");
        let away = dir.path().join("away.db");
        std::fs::rename(&path, &away).unwrap();
        let now = Duration::ZERO;
        orders.poll(MACHINE, BOOT, OrderId(0), now).await.unwrap_err();
        std::fs::rename(&away, &path).unwrap();
        assert_eq!(orders.poll(MACHINE, BOOT, OrderId(0), now).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn who_waits_for_the_end_of_an_order_is_told_at_once() {
        let (_dir, orders) = orders().await;
        let order = orders.give(&reboot()).await.unwrap();
        orders.poll(MACHINE, BOOT, OrderId(0), Duration::ZERO).await.unwrap();
        let show = orders.show(order.id, LONGEST_WAIT);
        let end = orders.end(BOOT, order.id, OrderState::Failed, "no");
        let (shown, _) = tokio::join!(show, end);
        assert_eq!(shown.unwrap().unwrap().state, OrderState::Failed);
        assert!(orders.show(OrderId(99), LONGEST_WAIT).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn polls_without_end_are_refused_and_all_end_with_the_server() {
        let (_dir, orders) = orders().await;
        let mut polls = tokio::task::JoinSet::new();
        for _ in 0..MOST_POLLS {
            let orders = orders.clone();
            polls.spawn(async move { orders.poll(MACHINE, BOOT, OrderId(0), LONGEST_WAIT).await });
        }
        while orders.machines().polls.get(&MACHINE).is_none_or(|p| p.count < MOST_POLLS) {
            tokio::task::yield_now().await;
        }
        let more = orders.poll(MACHINE, BOOT, OrderId(0), LONGEST_WAIT).await;
        assert!(matches!(more, Err(PollError::TooMany)), "{more:?}");
        orders.stop.cancel();
        while let Some(poll) = polls.join_next().await {
            assert!(matches!(poll.unwrap(), Err(PollError::Stopping)));
        }
        assert!(orders.machines().polls.is_empty());
    }

    #[tokio::test]
    async fn ten_thousand_machines_that_wait_ask_the_database_nothing() {
        let (_dir, orders) = orders().await;
        orders.store.close().await;
        let mut polls = tokio::task::JoinSet::new();
        for number in 0..10_000 {
            let orders = orders.clone();
            polls.spawn(async move {
                let patience = Duration::from_millis(200);
                orders.poll(MachineId(number), BOOT, OrderId(0), patience).await
            });
        }
        while let Some(poll) = polls.join_next().await {
            assert!(poll.unwrap().unwrap().is_empty());
        }
    }

    #[test]
    fn an_answer_is_cut_between_two_characters() {
        let long = "ä".repeat(200_000);
        assert_eq!(clean(&long).len(), LARGEST_ANSWER);
        assert_eq!(clean(&format!("x{long}")).len(), LARGEST_ANSWER - 1);
    }
}
