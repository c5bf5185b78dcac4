//! Lists of what was, the newest first: boots and orders.

use hyper::Method;
use kiln_inventory::{Boot, BootId, Command, MachineId, NewBoot, NewOrder, Outcome};
use serde_json::{Value, json};

use super::access_tests::{Stranger, token};
use super::tests::{MACHINES, Rig, machine};

const BOOTS: &str = "/api/v1/boots";
/// Boots of another machine.
const OTHERS: i64 = 1_100;

async fn add(rig: &Rig, name: &str, mac: &str, rack: &str) -> MachineId {
    let mut new = machine(name, mac, None);
    new["labels"] = json!({"rack": rack});
    let (status, added) = rig.send(Method::POST, MACHINES, &new).await;
    assert_eq!(status, 201, "{added}");
    serde_json::from_value(added["id"].clone()).unwrap()
}

async fn boot(rig: &Rig, machine: MachineId, id: i64, started: i64) -> Boot {
    let mac = "52:54:00:00:00:01".parse().unwrap();
    let boot = NewBoot::new(machine, "n", mac, started).numbered(BootId(id));
    rig.inventory.begin_boot(&boot).await.unwrap();
    boot
}

/// One whose first machine booted twice, and then the second one more often than a list is long.
async fn with_many_boots() -> Rig {
    let rig = Rig::start().await;
    let first = add(&rig, "n1", "52:54:00:00:00:01", "r1").await;
    let second = add(&rig, "n2", "52:54:00:00:00:02", "r2").await;
    let mut given_up = boot(&rig, first, 1, 1_000).await;
    (given_up.outcome, given_up.ended) = (Outcome::Abandoned, Some(2_000));
    rig.inventory.update_boot(&given_up).await.unwrap();
    boot(&rig, first, 2, 2_000).await;
    for number in 0..OTHERS {
        let mut other = boot(&rig, second, 10 + number, 10_000 + number).await;
        (other.outcome, other.ended) = (Outcome::Healthy, Some(20_000));
        rig.inventory.update_boot(&other).await.unwrap();
    }
    rig
}

fn ids(list: &Value) -> Vec<i64> {
    list.as_array().unwrap().iter().map(|one| one["id"].as_i64().unwrap()).collect()
}

/// Gets a list, and where it goes on.
async fn part(rig: &Rig, path: &str) -> (Value, Option<String>) {
    let (status, list, headers) = rig.full(Method::GET, path, &[], &Value::Null).await;
    assert_eq!(status, 200, "{path}: {list}");
    let link = headers.get("link").map(|link| link.to_str().unwrap());
    (list, link.map(|link| link[1..link.find('>').unwrap()].to_owned()))
}

#[tokio::test]
async fn boots_of_one_machine_are_listed_and_judged_however_often_others_boot() {
    let rig = with_many_boots().await;
    for query in ["name=n1", "selector=rack%3Dr1", "name=n%5B1-2%5D&selector=rack!%3Dr2"] {
        let (list, next) = part(&rig, &format!("{BOOTS}?{query}")).await;
        assert_eq!((ids(&list), next), (vec![2, 1], None), "{query}");
        assert_eq!(list[1]["verdict"]["cause"], "replaced", "{list}");
    }
    let (_, shown) = rig.get(&format!("{BOOTS}/1")).await;
    assert_eq!(shown["verdict"]["cause"], "replaced", "{shown}");
    // A token for some machines sees as far back.
    let own = token(&rig, "own", &["boot:read"], json!({"selector": "rack=r1"})).await;
    let stranger = Stranger::of(&rig, 1);
    for (query, expected) in [("", vec![2, 1]), ("?limit=1", vec![2]), ("?name=n2", vec![])] {
        let (_, list) =
            stranger.with(&own, ("get", &format!("{BOOTS}{query}")), &Value::Null).await;
        assert_eq!(ids(&list), expected, "{query}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn the_list_of_boots_comes_in_parts_with_the_fields_that_are_wanted() {
    let rig = with_many_boots().await;
    let (mut all, mut next) =
        (Vec::new(), Some(format!("{BOOTS}?limit=5000&verdict=false&fields=id")));
    let mut parts = Vec::new();
    while let Some(path) = next {
        let (list, more) = part(&rig, &path).await;
        assert_eq!(list[0], json!({"id": list[0]["id"]}));
        parts.push(ids(&list).len());
        all.extend(ids(&list));
        next = more;
    }
    assert_eq!(parts, [1_000, 102]);
    let expected: Vec<i64> = (10..10 + OTHERS).rev().chain([2, 1]).collect();
    assert_eq!(all, expected);
    let (list, next) =
        part(&rig, &format!("{BOOTS}?name=n1&limit=1&fields=id,verdict.cause")).await;
    assert_eq!(list, json!([{"id": 2, "verdict": {"cause": "no-loader"}}]));
    let next = next.unwrap();
    assert!(next.ends_with("&after=2000.2"), "{next}");
    let (list, next) = part(&rig, &next).await;
    assert_eq!((list, next), (json!([{"id": 1, "verdict": {"cause": "replaced"}}]), None));
    assert_eq!(ids(&part(&rig, &format!("{BOOTS}?outcome=booting")).await.0), [2]);
    for (wrong, why) in [
        ("after=12", "two numbers with a dot between them"),
        ("fields=nme", "there is no field `nme`"),
        ("outcome=never", "never"),
        ("limit=0", "1 to 2147483647"),
    ] {
        let (status, problem) = rig.get(&format!("{BOOTS}?{wrong}")).await;
        let text = problem["detail"].as_str().unwrap();
        assert!(status == 400 && text.contains(why), "{wrong}: {status} {text}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn what_was_heard_of_a_boot_comes_with_it_where_it_is_asked_for() {
    let rig = Rig::start().await;
    let first = add(&rig, "n1", "52:54:00:00:00:01", "r1").await;
    boot(&rig, first, 1, 1_000).await;
    rig.inventory.add_kernel_log(BootId(1), 2_000, "[    1.500000] eth0: up").await.unwrap();
    let (_, shown) = rig.get(&format!("{BOOTS}/1?log=true")).await;
    let heard = json!([{"at": 1_000, "source": "kernel", "text": "[    1.500000] eth0: up"}]);
    assert_eq!(shown["heard"], heard, "{shown}");
    for path in [format!("{BOOTS}/1"), format!("{BOOTS}/1?log=false")] {
        let (status, shown) = rig.get(&path).await;
        assert_eq!((status, shown.get("heard")), (200, None), "{path}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn the_list_of_orders_comes_in_parts_with_the_fields_that_are_wanted() {
    let rig = Rig::start().await;
    let machine = add(&rig, "n1", "52:54:00:00:00:01", "r1").await;
    for _ in 0..5 {
        let order = NewOrder {
            machine,
            machine_name: "n1".to_owned(),
            boot: BootId(1),
            command: Command::Reboot,
            asked: 1,
            asked_by: "uid 0".to_owned(),
            expires: i64::MAX,
        };
        rig.inventory.add_order(&order).await.unwrap();
    }
    let orders = format!("{MACHINES}/n1/orders");
    let (mut parts, mut next) =
        (Vec::new(), Some(format!("{orders}?limit=2&fields=id,command.kind")));
    while let Some(path) = next {
        let (list, more) = part(&rig, &path).await;
        assert_eq!(list[0], json!({"id": list[0]["id"], "command": {"kind": "reboot"}}));
        parts.push(ids(&list));
        next = more;
    }
    assert_eq!(parts, [vec![5, 4], vec![3, 2], vec![1]]);
    for wrong in ["fields=nme", "after=x", "limit=0"] {
        assert_eq!(rig.get(&format!("{orders}?{wrong}")).await.0, 400, "{wrong}");
    }
    rig.stop().await;
}
