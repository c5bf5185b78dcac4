use serde_json::json;
use sqlx::FromRow;

use super::db::query;
use super::edit::Step;
use super::row::{damaged, parse_word, word};
use super::{Store, StoreError};
use crate::{BootId, Command, MachineId, NewOrder, Order, OrderId, OrderState};

const ORDERS: &str = "orders";

macro_rules! columns {
    () => {
        "id, machine, machine_name, boot, kind, arguments, asked, asked_by, expires, state, sent, \
         ended, answer"
    };
}

/// Orders that are kept as history, of all machines together.
const KEPT: i64 = 100_000;

#[derive(FromRow)]
struct OrderRow {
    id: i64,
    machine: i64,
    machine_name: String,
    boot: i64,
    kind: String,
    arguments: String,
    asked: i64,
    asked_by: String,
    expires: i64,
    state: String,
    sent: Option<i64>,
    ended: Option<i64>,
    answer: String,
}

impl OrderRow {
    fn read(self) -> Result<Order, StoreError> {
        let command: Command = serde_json::from_str(&self.arguments)
            .map_err(|_| damaged("an order", &self.arguments))?;
        if command.kind() != self.kind {
            return Err(damaged("a kind of order", &self.kind));
        }
        Ok(Order {
            id: OrderId(self.id),
            machine: MachineId(self.machine),
            machine_name: self.machine_name,
            boot: BootId(self.boot),
            command,
            asked: self.asked,
            asked_by: self.asked_by,
            expires: self.expires,
            state: parse_word("the state of an order", &self.state)?,
            sent: self.sent,
            ended: self.ended,
            answer: self.answer,
        })
    }
}

impl Store {
    /// Numbers and writes an order, with its row in the log of changes under the name of who asks.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn add_order(&self, new: &NewOrder) -> Result<Order, StoreError> {
        let failed = |source| StoreError::writing(ORDERS, source);
        let arguments = serde_json::to_string(&new.command).unwrap_or_default();
        let store = self.acting(&new.asked_by);
        let mut edit = store.edit().await?;
        let (id,): (i64,) = query(
            "INSERT INTO orders (machine, machine_name, boot, kind, arguments, asked, asked_by, \
             expires, state, answer) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, '') RETURNING id",
        )
        .bind(new.machine.0)
        .bind(&new.machine_name)
        .bind(new.boot.0)
        .bind(new.command.kind())
        .bind(arguments)
        .bind(new.asked)
        .bind(&new.asked_by)
        .bind(new.expires)
        .bind(word(&OrderState::Queued))
        .fetch_one(&mut edit.tx)
        .await
        .map_err(failed)?;
        query("DELETE FROM orders WHERE id <= $1")
            .bind(id - KEPT)
            .execute(&mut edit.tx)
            .await
            .map_err(failed)?;
        let (subject, name) = (new.machine.0, new.machine_name.as_str());
        let after = Some(json!({"id": id, "boot": new.boot, "command": new.command}));
        edit.log(Step { noun: "order", subject, name, before: None, after }).await?;
        edit.commit().await?;
        Ok(Order {
            id: OrderId(id),
            machine: new.machine,
            machine_name: new.machine_name.clone(),
            boot: new.boot,
            command: new.command.clone(),
            asked: new.asked,
            asked_by: new.asked_by.clone(),
            expires: new.expires,
            state: OrderState::Queued,
            sent: None,
            ended: None,
            answer: String::new(),
        })
    }

    /// Hands out the orders of a boot that come after the last one that its system knows, oldest first. Those that
    /// were handed out before and have no end are among them: the answer may have been lost on its way.
    ///
    /// # Errors
    ///
    /// When the database cannot be read or written.
    pub async fn take_orders(
        &self,
        boot: BootId,
        after: OrderId,
        now_ms: i64,
    ) -> Result<Vec<Order>, StoreError> {
        let failed = |source| StoreError::writing(ORDERS, source);
        let mut tx = self.write(ORDERS).await?;
        let rows: Vec<OrderRow> = query(concat!(
            "UPDATE orders SET state = $1, sent = COALESCE(sent, $2) WHERE boot = $3 AND id > $4 \
             AND (state = $1 OR (state = $5 AND expires > $2)) RETURNING ",
            columns!()
        ))
        .bind(word(&OrderState::Sent))
        .bind(now_ms)
        .bind(boot.0)
        .bind(after.0)
        .bind(word(&OrderState::Queued))
        .fetch_all(&mut tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        let mut orders: Vec<Order> =
            rows.into_iter().map(OrderRow::read).collect::<Result<_, _>>()?;
        orders.sort_by_key(|order| order.id);
        Ok(orders)
    }

    /// Ends an order of a boot that was handed out. Returns nothing when there is no such one; one that has ended
    /// stays as it is, and is returned.
    ///
    /// # Errors
    ///
    /// When the database cannot be read or written.
    pub async fn end_order(
        &self,
        boot: BootId,
        id: OrderId,
        state: OrderState,
        answer: &str,
        now_ms: i64,
    ) -> Result<Option<Order>, StoreError> {
        query(
            "UPDATE orders SET state = $1, answer = $2, ended = $3 WHERE id = $4 AND boot = $5 AND state = $6",
        )
        .bind(word(&state))
        .bind(answer)
        .bind(now_ms)
        .bind(id.0)
        .bind(boot.0)
        .bind(word(&OrderState::Sent))
        .execute(&self.db)
        .await
        .map_err(|source| StoreError::writing(ORDERS, source))?;
        let order = self.order(id).await?;
        Ok(order.filter(|order| order.boot == boot && order.state.has_ended()))
    }

    /// Ends what no machine has asked for in time.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn expire_orders(&self, now_ms: i64) -> Result<u64, StoreError> {
        let done = query(
            "UPDATE orders SET state = $1, answer = $2, ended = $3 WHERE state = $4 AND expires <= $3",
        )
        .bind(word(&OrderState::Expired))
        .bind("the machine did not ask for it in time")
        .bind(now_ms)
        .bind(word(&OrderState::Queued))
        .execute(&self.db)
        .await
        .map_err(|source| StoreError::writing(ORDERS, source))?;
        Ok(done)
    }

    /// Returns one order.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn order(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        let row: Option<OrderRow> =
            query(concat!("SELECT ", columns!(), " FROM orders WHERE id = $1"))
                .bind(id.0)
                .fetch_optional(&self.db)
                .await
                .map_err(StoreError::reading(ORDERS))?;
        row.map(OrderRow::read).transpose()
    }

    /// Returns the orders of a machine, newest first, at most as many as asked for; with another order, those before it.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn orders(
        &self,
        machine: MachineId,
        before: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<Order>, StoreError> {
        let rows: Vec<OrderRow> = query(concat!(
            "SELECT ",
            columns!(),
            " FROM orders WHERE machine = $1 AND id < $2 ORDER BY id DESC LIMIT $3"
        ))
        .bind(machine.0)
        .bind(before.map_or(i64::MAX, |order| order.0))
        .bind(i64::from(limit))
        .fetch_all(&self.db)
        .await
        .map_err(StoreError::reading(ORDERS))?;
        rows.into_iter().map(OrderRow::read).collect()
    }

    /// Returns the orders that a boot carried out and ended by, newest first.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn orders_that_ended(&self, boot: BootId) -> Result<Vec<Order>, StoreError> {
        let rows: Vec<OrderRow> = query(concat!(
            "SELECT ",
            columns!(),
            " FROM orders WHERE boot = $1 AND state = $2 AND kind IN ('reboot', 'power-off', 'kexec') \
             ORDER BY id DESC"
        ))
        .bind(boot.0)
        .bind(word(&OrderState::Done))
        .fetch_all(&self.db)
        .await
        .map_err(StoreError::reading(ORDERS))?;
        rows.into_iter().map(OrderRow::read).collect()
    }

    /// Returns the machines that have orders without an end.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn machines_with_orders(&self) -> Result<Vec<MachineId>, StoreError> {
        let rows: Vec<(i64,)> =
            query("SELECT DISTINCT machine FROM orders WHERE state IN ('queued', 'sent')")
                .fetch_all(&self.db)
                .await
                .map_err(StoreError::reading(ORDERS))?;
        Ok(rows.into_iter().map(|(id,)| MachineId(id)).collect())
    }
}
