//! Orders and the tokens of running boots.

use kiln_types::Digest;
use serde_json::json;

use super::test_stores::stores;
use super::tests::{machine, new_boot, open_boot};
use crate::{
    BootId, Change, Command, MachineId, NewBoot, NewOrder, Order, OrderId, OrderState, Outcome,
    TakenUp, Verb,
};

#[tokio::test]
async fn the_token_of_a_boot_outlives_the_server_and_its_boot_is_not_abandoned() {
    for (_home, store) in stores().await {
        let added = store.add_machine(&machine("n1", &[1])).await.unwrap();
        let known = NewBoot { machine: added.id, ..new_boot() };
        let old = open_boot(&store, &known).await;
        let token = Digest::from_bytes([9; 32]);
        store.keep_token(old.id, &token).await.unwrap();
        let new = open_boot(&store, &known).await;
        store.keep_token(new.id, &token).await.unwrap();
        store.keep_token(new.id, &Digest::from_bytes([8; 32])).await.unwrap();
        store.begins_anew(added.id, new.id, 1_000).await.unwrap();
        // A machine that is not in the inventory, and a boot that never had its token.
        let foreign = open_boot(&store, &NewBoot { machine: MachineId(77), ..new_boot() }).await;
        store.keep_token(foreign.id, &token).await.unwrap();
        let running = vec![(new.clone(), Digest::from_bytes([8; 32]))];
        for abandoned in [2, 0] {
            let taken = store.take_up_boots(5).await.unwrap();
            assert_eq!(taken, TakenUp { running: running.clone(), abandoned });
        }
        assert_eq!(store.boot(new.id).await.unwrap().unwrap().0.outcome, Outcome::Booting);
    }
}

fn order(boot: BootId, command: Command) -> NewOrder {
    NewOrder {
        machine: MachineId(3),
        machine_name: "n1".to_owned(),
        boot,
        command,
        asked: 100,
        asked_by: "uid 0".to_owned(),
        expires: 1000,
    }
}

#[tokio::test]
async fn an_order_is_in_the_log_of_changes_with_who_gave_it_and_all_that_it_says() {
    for (_home, store) in stores().await {
        let program = ["/bin/dd", "of=/dev/sda"].map(str::to_owned).to_vec();
        let run = Command::Run { service: None, program };
        let given = store.add_order(&order(BootId(7), run)).await.unwrap();
        let [row] = &store.changes_since(0, 9).await.unwrap()[..] else { panic!("one row") };
        let whose = (row.actor.as_str(), row.noun.as_str(), row.name.as_str(), row.subject);
        assert_eq!((whose, row.verb), (("uid 0", "order", "n1", 3), Verb::Add));
        let asked = Change::document(row.after.as_deref()).unwrap().unwrap();
        let command = json!({"kind": "run", "program": ["/bin/dd", "of=/dev/sda"]});
        assert_eq!(asked, json!({"id": given.id, "boot": 7, "command": command}));
        assert_eq!(
            (row.before.as_ref(), store.verify_changes().await.unwrap().broken),
            (None, None)
        );
    }
}

#[tokio::test]
async fn an_order_is_handed_out_until_the_machine_knows_it_and_ends_once() {
    for (_home, store) in stores().await {
        let boot = BootId(7);
        let logs = Command::Logs { name: "web".to_owned(), lines: 3 };
        let first = store.add_order(&order(boot, logs)).await.unwrap();
        let second = store.add_order(&order(boot, Command::Reboot)).await.unwrap();
        store.add_order(&order(BootId(8), Command::PowerOff)).await.unwrap();
        assert!(store.end_order(boot, first.id, OrderState::Done, "", 1).await.unwrap().is_none());
        let ids = |orders: &[Order]| orders.iter().map(|order| order.id).collect::<Vec<_>>();
        for after in [OrderId(0), OrderId(0)] {
            let taken = store.take_orders(boot, after, 200).await.unwrap();
            assert_eq!(ids(&taken), [first.id, second.id], "the answer may have been lost");
            assert_eq!(taken[0].sent, Some(200));
        }
        let taken = store.take_orders(boot, first.id, 300).await.unwrap();
        assert_eq!(ids(&taken), [second.id]);
        let end = async |state, text| {
            store.end_order(boot, first.id, state, text, 400).await.unwrap().unwrap()
        };
        assert_eq!(end(OrderState::Done, "line").await.answer, "line");
        let again = end(OrderState::Failed, "other").await;
        assert_eq!((again.state, again.answer.as_str()), (OrderState::Done, "line"));
        let other = store.end_order(BootId(8), second.id, OrderState::Done, "", 400).await.unwrap();
        assert!(other.is_none(), "an order of another boot");
        assert_eq!(ids(&store.orders(MachineId(3), None, 2).await.unwrap())[1], second.id);
        let before = store.orders(MachineId(3), Some(second.id), 2).await.unwrap();
        assert_eq!(ids(&before), [first.id]);
        assert_eq!(store.machines_with_orders().await.unwrap(), [MachineId(3)]);
    }
}

#[tokio::test]
async fn every_order_that_ends_a_boot_is_found_as_one() {
    for (_home, store) in stores().await {
        let version = Digest::from_bytes([7; 32]);
        let all = [
            Command::Reboot,
            Command::PowerOff,
            Command::Kexec { image: "web".parse().unwrap(), version },
            Command::Logs { name: "web".to_owned(), lines: 1 },
            Command::Run { service: None, program: vec!["/x".to_owned()] },
        ];
        for command in all {
            let boot = BootId(7);
            let given = store.add_order(&order(boot, command)).await.unwrap();
            assert!(
                store.orders_that_ended(boot).await.unwrap().iter().all(|it| it.id != given.id)
            );
            store.take_orders(boot, OrderId(0), 200).await.unwrap();
            store.end_order(boot, given.id, OrderState::Done, "", 300).await.unwrap();
            let found = store.orders_that_ended(boot).await.unwrap();
            let found = found.iter().any(|order| order.id == given.id);
            assert_eq!(found, given.command.ends_the_boot(), "{given:?}");
        }
    }
}

#[tokio::test]
async fn orders_that_nobody_asks_for_expire_and_those_of_earlier_boots_are_closed() {
    for (_home, store) in stores().await {
        let boot = BootId(7);
        let reboot = store.add_order(&order(boot, Command::Reboot)).await.unwrap();
        let run = Command::Run { service: None, program: vec!["/x".to_owned()] };
        let run = store.add_order(&order(boot, run)).await.unwrap();
        store.take_orders(boot, OrderId(0), 200).await.unwrap();
        let late = store.add_order(&order(boot, Command::PowerOff)).await.unwrap();
        assert_eq!(store.expire_orders(999).await.unwrap(), 0);
        assert!(store.take_orders(boot, run.id, 1000).await.unwrap().is_empty());
        assert_eq!(store.expire_orders(1000).await.unwrap(), 1);
        let queued = store.add_order(&order(boot, Command::PowerOff)).await.unwrap();
        store.begins_anew(MachineId(3), BootId(8), 500).await.unwrap();
        for (id, state) in [
            (reboot.id, OrderState::Done),
            (run.id, OrderState::Failed),
            (late.id, OrderState::Expired),
            (queued.id, OrderState::Expired),
        ] {
            assert_eq!(store.order(id).await.unwrap().unwrap().state, state, "{id}");
        }
        let ended: Vec<_> = store.orders_that_ended(boot).await.unwrap();
        assert_eq!(ended.iter().map(|order| order.id).collect::<Vec<_>>(), [reboot.id]);
        assert!(store.orders_that_ended(BootId(8)).await.unwrap().is_empty());
    }
}
