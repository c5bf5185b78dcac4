use std::net::Ipv4Addr;

use kiln_inventory::{Asker, NewMachine, Sighting, Snapshot, Store, UnknownMachines, decide};
use kiln_types::Mac;
use tokio::net::UdpSocket;

use super::*;

const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 1]);

/// A tracker that knows of a refused boot at 127.0.0.1.
async fn boots(dir: &std::path::Path) -> (Store, Boots) {
    let store = Store::open(&dir.join("inventory.db")).await.unwrap();
    let machine =
        NewMachine { image: Some("web".parse().unwrap()), ..NewMachine::new("n1", [MAC]) };
    let machine = store.add_machine(&machine).await.unwrap();
    let (boots, _) = Boots::start(store.clone());
    let version = std::sync::Arc::new(kiln_inventory::ImageVersion {
        version: kiln_types::Digest::from_bytes([1; 32]),
        kernel: kiln_inventory::Artifact {
            name: "kernel".to_owned(),
            digest: kiln_types::Digest::from_bytes([2; 32]),
            size: 1,
        },
        efi_stub: true,
        segments: Vec::new(),
        cmdline: String::new(),
    });
    let by_arch = std::collections::BTreeMap::from([(kiln_types::Arch::X86_64, version)]);
    let images = std::collections::BTreeMap::from([("web".parse().unwrap(), by_arch)]);
    let snapshot =
        Snapshot::new(vec![std::sync::Arc::new(machine)], images, UnknownMachines::Ignore);
    let firmware = Some(kiln_inventory::Firmware::UefiX64);
    let sighting = Sighting { mac: MAC, asker: Asker::Firmware, firmware, uuid: None };
    let decision = decide(&snapshot, &sighting);
    boots.seen(&sighting, Some(&decision), true, Some(Ipv4Addr::LOCALHOST.into()));
    (store, boots)
}

#[tokio::test]
async fn lines_count_for_the_boot_of_the_address_that_they_come_from() {
    let dir = tempfile::tempdir().unwrap();
    let (store, boots) = boots(dir.path()).await;
    assert!(boots.answers().await);
    let boot = store.boots(1).await.unwrap().remove(0).id;
    let book = Book::new(dir.path().join("heard"));
    let stop = CancellationToken::new();
    let mut ports = Vec::new();
    for source in [Source::Syslog, Source::Netconsole] {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        ports.push(socket.local_addr().unwrap());
        tokio::spawn(listen(socket, source, book.clone(), boots.clone(), stop.clone()));
    }
    let machine = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let other = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 9), 0)).await.unwrap();
    other.send_to(b"<13>not of this machine", ports[0]).await.unwrap();
    machine.send_to(b"<11>web: \x1b[2Jgone", ports[0]).await.unwrap();
    machine.send_to(b"Kernel panic - not syncing: x\n", ports[1]).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while book.lines(boot).len() < 2 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut texts: Vec<String> = book.lines(boot).into_iter().map(|line| line.text).collect();
    texts.sort();
    assert_eq!(texts, ["Kernel panic - not syncing: x", "err: web: \\x1b[2Jgone"]);
    stop.cancel();
    keep(book, stop).await;
    assert_eq!(Book::new(dir.path().join("heard")).lines(boot).len(), 2);
}
