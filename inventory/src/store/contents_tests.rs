use kiln_types::Mac;

use super::test_stores::stores;
use crate::{Group, NewMachine, Settings};

fn machine(number: u16) -> NewMachine {
    let [high, low] = number.to_be_bytes();
    NewMachine::new(format!("n{number}"), [Mac::new([2, 0, 0, 0, high, low])])
}

#[tokio::test]
async fn machines_of_several_parts_are_all_there_oldest_first() {
    for (_home, store) in stores().await {
        assert_eq!(store.contents().await.unwrap().machines, []);
        let mut edit = store.edit().await.unwrap();
        let mut all = Vec::new();
        for number in 1..=1003 {
            all.push(edit.add_machine(&machine(number)).await.unwrap());
        }
        edit.remove_machine(all.remove(500).id, None).await.unwrap();
        edit.commit().await.unwrap();
        let read = store.contents().await.unwrap();
        assert_eq!(read.mark.change, store.last_change().await.unwrap());
        assert!(read.machines == all, "{} machines", read.machines.len());
        assert!(store.machines().await.unwrap() == all);
    }
}

#[tokio::test]
async fn no_text_of_a_machine_ends_it_early() {
    for (_home, store) in stores().await {
        let mut odd = machine(1);
        odd.labels = [("a".to_owned(), "\"}],[7,1,{\"name\":\"n7\" 'ü\\".to_owned())].into();
        let odd = store.add_machine(&odd).await.unwrap();
        let plain = store.add_machine(&machine(2)).await.unwrap();
        let group = Group {
            name: "g".to_owned(),
            selector: "a".parse().unwrap(),
            priority: 0,
            settings: Settings::default(),
        };
        let group = store.add(&group).await.unwrap();
        let read = store.contents().await.unwrap();
        assert_eq!(read.machines, [odd, plain]);
        assert_eq!(read.groups, [group]);
    }
}

#[tokio::test]
async fn machines_with_the_same_labels_share_them() {
    for (_home, store) in stores().await {
        let rack = |rack: &str| [("rack".to_owned(), rack.to_owned())].into();
        for (number, labels) in (1..).zip([rack("r1"), rack("r2"), rack("r1")]) {
            store.add_machine(&NewMachine { labels, ..machine(number) }).await.unwrap();
        }
        let read = store.contents().await.unwrap().machines;
        let [one, two, three] = &read[..] else { panic!("{read:?}") };
        assert!(std::ptr::eq(&*one.spec.labels, &*three.spec.labels));
        assert_ne!(one.spec.labels, two.spec.labels);
    }
}
