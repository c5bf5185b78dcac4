//! `kiln discovery` on several entries, from what is typed to what becomes of them.

use hyper::Method;
use kiln_inventory::{Asker, Firmware, Glimpse, Place, Sighting};
use serde_json::{Value, json};

use super::Failure;
use super::end_tests::run;
use crate::api::tests::Rig;

/// A rig in whose queue are machines of two kinds: 1 to 3 of qemu, 4 and 5 of nobody.
async fn rig() -> Rig {
    let rig = Rig::start().await;
    for last in 1..=5 {
        let maker = if last < 4 { "52:54:00" } else { "02:00:00" };
        let mac = format!("{maker}:00:00:0{last}").parse().unwrap();
        let firmware = Some(Firmware::UefiX64);
        let sighting = Sighting { mac, asker: Asker::Firmware, firmware, uuid: None };
        let glimpse = Glimpse { at: last, times: 1, sighting, place: Place::default() };
        rig.inventory.take_glimpses(&[glimpse], 100).await.unwrap();
    }
    rig
}

/// Returns the names of the machines, and of each entry that is left its number and what becomes of it.
async fn state(rig: &Rig) -> (Vec<String>, String) {
    let get = async |path: &str| rig.send(Method::GET, path, &Value::Null).await.1;
    let (machines, entries) = (get("/api/v1/machines").await, get("/api/v1/discovery").await);
    let names = machines.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap());
    let letter = |it: &Value| it["state"].as_str().unwrap()[..1].to_owned();
    let left = entries.as_array().unwrap().iter().map(|it| format!("{}{}", it["id"], letter(it)));
    (names.map(str::to_owned).collect(), left.collect::<Vec<_>>().join(" "))
}

fn machines(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn several_entries_are_approved_ignored_and_removed_at_once() {
    let rig = rig().await;
    let approve = "discovery approve --selector vendor=qemu --template r1-{n:02} --label rack=r1";
    for line in [
        format!("{approve} --dry-run").as_str(),
        "discovery ignore 1 [2-3] --dry-run",
        "discovery remove -s arch=x86_64 --dry-run",
    ] {
        run(&rig, line).await.unwrap();
        assert_eq!(state(&rig).await, (Vec::new(), "1w 2w 3w 4w 5w".to_owned()), "{line}");
    }
    run(&rig, "discovery ignore 4 5 --yes").await.unwrap();
    run(&rig, "discovery ignore 3").await.unwrap();
    assert_eq!(state(&rig).await.1, "1w 2w 3i 4i 5i");
    // What is ignored is not found by what is to be approved.
    run(&rig, &format!("{approve} --yes")).await.unwrap();
    assert_eq!(state(&rig).await, (machines(&["r1-01", "r1-02"]), "3i 4i 5i".to_owned()));
    assert_eq!(run(&rig, approve).await.unwrap_err().code(), Failure::NOT_FOUND);
    run(&rig, "discovery unignore -s vendor=qemu -y").await.unwrap();
    run(&rig, "discovery approve 3 web").await.unwrap();
    run(&rig, "discovery remove [4-5] -y").await.unwrap();
    assert_eq!(state(&rig).await, (machines(&["r1-01", "r1-02", "web"]), String::new()));
    for (line, code) in [
        ("discovery approve 1", Failure::USAGE),
        ("discovery approve 1 2 web", Failure::USAGE),
        ("discovery approve 1 web", Failure::NOT_FOUND),
        ("discovery approve [1-2] web", Failure::NOT_FOUND),
        ("discovery ignore -s colour=red", Failure::USAGE),
    ] {
        assert_eq!(run(&rig, line).await.unwrap_err().code(), code, "{line}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn what_cannot_be_done_to_one_entry_is_done_to_the_others() {
    let rig = rig().await;
    // Only the first gets a name that is free.
    let line = "discovery approve [1-3] --template only-{vendor} -y";
    assert_eq!(run(&rig, line).await.unwrap_err().code(), Failure::PARTIAL);
    assert_eq!(state(&rig).await, (machines(&["only-qemu"]), "2w 3w 4w 5w".to_owned()));
    rig.stop().await;
}

#[tokio::test]
async fn a_rule_decides_on_what_waits_where_somebody_says_so() {
    let rig = rig().await;
    run(&rig, "discovery ignore 3").await.unwrap();
    let add = "discovery rule add qemu --selector vendor=qemu --action approve --name q-{n}";
    run(&rig, &format!("{add} --waiting --dry-run")).await.unwrap();
    assert_eq!(state(&rig).await, (Vec::new(), "1w 2w 3i 4w 5w".to_owned()));
    run(&rig, &format!("{add} --waiting --yes")).await.unwrap();
    assert_eq!(state(&rig).await, (machines(&["q-1", "q-2"]), "3i 4w 5w".to_owned()));
    let hold = "discovery rule add others --selector arch=x86_64 --action hold";
    run(&rig, hold).await.unwrap();
    assert_eq!(state(&rig).await.1, "3i 4w 5w", "what waits is not looked at because it is new");
    run(&rig, "discovery rule apply others --dry-run").await.unwrap();
    assert_eq!(state(&rig).await.1, "3i 4w 5w");
    run(&rig, "discovery rule apply others --yes").await.unwrap();
    assert_eq!(state(&rig).await.1, "3i 4h 5h");
    run(&rig, "discovery rule apply qemu").await.unwrap();
    assert_eq!(state(&rig).await.1, "3i 4h 5h", "a person has ignored the one that is left");
    let settle = rig.send(Method::POST, "/api/v1/discovery/3/settle", &json!({})).await;
    assert_eq!(settle.0, 409, "{}", settle.1);
    let dry = "/api/v1/discovery/4/settle?dry_run=true";
    let (status, preview) = rig.send(Method::POST, dry, &json!({})).await;
    assert_eq!((status, &preview["would"]), (200, &json!("nothing")), "{preview}");
    let (_, list) = rig
        .send(Method::GET, "/api/v1/discovery?selector=vendor%3Dqemu&fields=id", &Value::Null)
        .await;
    assert_eq!(list, json!([{"id": 3}]));
    rig.stop().await;
}
