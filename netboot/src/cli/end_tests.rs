//! Commands against a server, from what is typed to what becomes of it.

use std::time::Duration;

use clap::Parser as _;
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::client::Client;
use super::watch::News;
use super::{Cli, Failure, support};
use crate::api::tests::Rig;

const PASSWORD: &str = "PASSWORDpassword";
const SECRET: &str = "metadata-SECRETsecret";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIKEYkey";

pub(super) async fn run(rig: &Rig, line: &str) -> Result<(), Failure> {
    let socket = rig.socket.display().to_string();
    let words = ["kiln"].into_iter().chain(line.split_whitespace()).chain(["--socket", &socket]);
    super::run(Cli::try_parse_from(words).unwrap()).await
}

async fn machines(rig: &Rig) -> Value {
    rig.send(Method::GET, "/api/v1/machines", &Value::Null).await.1
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_the_same_without_it_does() {
    let rig = Rig::start().await;
    for line in [
        "machine add n1 --mac 52:54:00:00:00:01",
        "machine add n2 --mac 52:54:00:00:00:02 --label rack=r1",
        "group add racks --selector rack=r1 --image web",
    ] {
        run(&rig, &format!("{line} --dry-run")).await.unwrap();
    }
    assert_eq!(machines(&rig).await, json!([]));
    run(&rig, "machine add n1 --mac 52:54:00:00:00:01").await.unwrap();
    run(&rig, "machine add n2 --mac 52:54:00:00:00:02 --label rack=r1").await.unwrap();
    let before = machines(&rig).await;
    for line in [
        "machine set n[1-2] --image web",
        "machine remove n[1-2] --yes",
        "machine retire -l rack=r1",
    ] {
        run(&rig, &format!("{line} --dry-run")).await.unwrap();
        assert_eq!(machines(&rig).await, before, "{line}");
    }
    run(&rig, "machine set --selector rack=r1 --image web:edge -o jsonl").await.unwrap();
    run(&rig, "machine cordon n[1-2] -o name").await.unwrap();
    let after = machines(&rig).await;
    assert_eq!((&after[0]["image"], &after[1]["image"]), (&Value::Null, &json!("web:edge")));
    assert_eq!(after[0]["flags"], json!(["cordoned"]));
    run(&rig, "machine remove n[1-2] -y").await.unwrap();
    assert_eq!(machines(&rig).await, json!([]));
    rig.stop().await;
}

#[tokio::test]
async fn of_a_list_in_parts_as_much_is_read_as_is_wanted() {
    let rig = Rig::start().await;
    for number in 1..=5 {
        run(&rig, &format!("machine add n{number} --mac 52:54:00:00:00:0{number}")).await.unwrap();
    }
    let client = Client::Here(rig.socket.clone());
    let path = "/api/v1/machines?limit=2&fields=name";
    let names = |list: Vec<Value>| -> Vec<String> {
        list.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(client.first(path, 3).await.unwrap()), ["n1", "n2", "n3"]);
    assert_eq!(names(client.first(path, 2).await.unwrap()), ["n1", "n2"]);
    assert_eq!(names(client.all(path).await.unwrap()), ["n1", "n2", "n3", "n4", "n5"]);
    assert!(client.first::<Value>(path, 0).await.unwrap().is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn what_is_done_for_some_machines_only_has_an_exit_code_of_its_own() {
    let rig = Rig::start().await;
    run(&rig, "machine add n1 --mac 52:54:00:00:00:01").await.unwrap();
    let code = async |line: &str| run(&rig, line).await.err().map(|failure| failure.code());
    assert_eq!(code("machine show n1").await, None);
    assert_eq!(code("machine show n[1-2]").await, Some(Failure::PARTIAL));
    assert_eq!(code("machine show n[2-3]").await, Some(Failure::NOT_FOUND));
    assert_eq!(code("machine lock n[1-2]").await, Some(Failure::PARTIAL));
    assert_eq!(code("machine show -l rack=r9").await, Some(Failure::NOT_FOUND));
    assert_eq!(code("machine set n1 --image x").await, Some(Failure::CONFLICT), "it is locked");
    for verb in ["reboot", "power-off", "kexec"] {
        let line = format!("machine {verb} n[2-3] --yes");
        let failure = run(&rig, &line).await.unwrap_err();
        let expected = (Failure::NOT_FOUND, "2 of 2 machines did not do it".to_owned());
        assert_eq!((failure.code(), failure.to_string()), expected);
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_difference_has_another_exit_code_than_trouble() {
    let rig = Rig::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lab.yaml");
    let line = format!("diff -f {}", file.display());
    let code = async |line: &str| run(&rig, line).await.err().map(|failure| failure.code());
    std::fs::write(&file, "machines: []\n").unwrap();
    assert_eq!(code(&line).await, None);
    std::fs::write(&file, "machines: [{name: n1, macs: ['52:54:00:00:00:01']}]\n").unwrap();
    assert_eq!(code(&line).await, Some(1));
    std::fs::write(&file, "machines: [\n").unwrap();
    assert_eq!(code(&line).await, Some(Failure::CONFIG));
    std::fs::write(&file, "machines: []\n").unwrap();
    rig.stop().await;
    let away = Cli::try_parse_from(
        ["kiln"].into_iter().chain(line.split_whitespace()).chain(["--socket", "/nowhere.sock"]),
    );
    assert_eq!(super::run(away.unwrap()).await.unwrap_err().code(), Failure::USAGE);
}

#[tokio::test]
async fn every_list_is_there_in_every_form() {
    let rig = Rig::start().await;
    run(&rig, "machine add n1 --mac 52:54:00:00:00:07 --label rack=r1").await.unwrap();
    for list in [
        "machine list -l rack=r1",
        "machine list n[1-9]",
        "machine show n1",
        "group list",
        "boot list -l rack=r1",
        "lease list n1 --all",
        "image list",
        "image builds",
        "token list",
        "user list",
        "audit list",
        "events",
        "events --since 0",
        "top --once",
    ] {
        for form in ["table", "wide", "json", "yaml", "jsonl", "name"] {
            let line = format!("{list} -o {form}");
            run(&rig, &line).await.unwrap_or_else(|failure| panic!("{line}: {failure}"));
        }
    }
    let leases = async |query: &str| {
        let (_, all) =
            rig.send(Method::GET, &format!("/api/v1/leases?{query}"), &Value::Null).await;
        all.as_array().unwrap().len()
    };
    assert_eq!((leases("").await, leases("name=n1").await, leases("name=n2").await), (1, 1, 0));
    assert_eq!((leases("selector=rack%3Dr1").await, leases("selector=!rack").await), (1, 0));
    rig.stop().await;
}

#[tokio::test]
async fn news_come_when_something_happens_and_not_before() {
    let rig = Rig::start().await;
    let client = Client::Here(rig.socket.clone());
    let mut news = News::new(&client, Some("machine"));
    news.connect().await;
    let nothing = tokio::time::timeout(Duration::from_millis(300), news.wait(None)).await;
    assert!(nothing.is_err(), "nothing happened");
    let change = async {
        run(&rig, "machine add n1 --mac 52:54:00:00:00:01").await.unwrap();
    };
    let heard = async { tokio::time::timeout(Duration::from_secs(60), news.wait(None)).await };
    let ((), heard) = tokio::join!(change, heard);
    heard.unwrap();
    let mut past = client.events("since=0&follow=false").await.unwrap();
    let first = past.next().await.unwrap().unwrap();
    assert_eq!((first.id.as_str(), first.event.as_str()), ("1.0", "machine"));
    assert_eq!(past.next().await.unwrap(), None, "it ends with what has happened");
    rig.stop().await;
}

/// Answers every request with a refusal, and tells of each.
fn refusing(socket: &std::path::Path, status: u16) -> tokio::sync::mpsc::UnboundedReceiver<()> {
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    let problem = json!({"type": "t", "title": "t", "status": status, "detail": "no"}).to_string();
    let answer = format!(
        "HTTP/1.1 {status} No\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{problem}",
        problem.len()
    );
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).await;
            tell.send(()).unwrap();
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    told
}

#[tokio::test]
async fn who_may_not_follow_events_asks_for_them_once_and_ends_where_nothing_may_be_read() {
    let dir = tempfile::tempdir().unwrap();
    for (status, times) in [(403, 1), (503, 2)] {
        let socket = dir.path().join(status.to_string());
        let mut told = refusing(&socket, status);
        let client = Client::Here(socket);
        let mut news = News::new(&client, Some("machine"));
        news.connect().await;
        news.found();
        news.connect().await;
        let mut asked = 0;
        while told.try_recv().is_ok() {
            asked += 1;
        }
        assert_eq!(asked, times, "{status}");
        let failure = client.get::<Value>("/api/v1/machines").await.unwrap_err();
        assert_eq!(news.fatal(&failure), status == 403, "{failure}");
    }
}

#[tokio::test]
async fn a_support_bundle_of_a_server_has_none_of_its_secrets() {
    let rig = Rig::start().await;
    let token = json!({"name": "ci", "scopes": ["admin"]});
    let (_, made) = rig.send(Method::POST, "/api/v1/tokens", &token).await;
    let token = made["token"].as_str().unwrap().to_owned();
    let user = json!({"name": "eve", "scopes": ["read"], "password": PASSWORD});
    assert_eq!(rig.send(Method::POST, "/api/v1/users", &user).await.0, 201);
    let machine = json!({"name": "n1", "macs": ["52:54:00:00:00:01"], "cmdline": format!("pw={PASSWORD}"),
        "metadata": {"secrets": {"a": SECRET}, "key": KEY}});
    assert_eq!(rig.send(Method::POST, "/api/v1/machines", &machine).await.0, 201);
    run(&rig, "machine set n1 --image web").await.unwrap();

    let dir = tempfile::tempdir().unwrap();
    let client = Client::Here(rig.socket.clone());
    let parts = support::gather(&dir.path().join("no.toml"), &client).await.unwrap();
    let path = dir.path().join("out.tar.gz");
    support::write(&path, &parts).unwrap();
    let mut text = String::new();
    for (name, bytes) in &parts {
        text.push_str(name);
        text.push_str(&String::from_utf8_lossy(bytes));
    }
    for secret in [token.as_str(), PASSWORD, SECRET, "KEYkey", "argon2", "PRIVATE KEY"] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
    for there in ["changes.jsonl", "\"fields\":[\"image\"]", "\"machines\": 1", "boots.json"] {
        assert!(text.contains(there), "{there} is not in {text}");
    }
    rig.stop().await;
}
