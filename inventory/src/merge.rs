//! Two machines that are one box, and one machine that is two.

use std::collections::BTreeSet;

use kiln_types::Mac;
use serde_json::Value;

use crate::NewMachine;

impl NewMachine {
    /// Returns this machine with what another one has, which turned out to be the same box. What both say stays as this
    /// one says it.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        let mut all = self.clone();
        all.macs.extend(&other.macs);
        fn fill<T: Clone>(field: &mut Option<T>, other: &Option<T>) {
            if field.is_none() {
                field.clone_from(other);
            }
        }
        fill(&mut all.uuid, &other.uuid);
        fill(&mut all.serial, &other.serial);
        fill(&mut all.asset_tag, &other.asset_tag);
        fill(&mut all.arch, &other.arch);
        fill(&mut all.image, &other.image);
        fill(&mut all.maintenance_image, &other.maintenance_image);
        fill(&mut all.address, &other.address);
        fill(&mut all.address6, &other.address6);
        fill(&mut all.client_id, &other.client_id);
        fill(&mut all.circuit_id, &other.circuit_id);
        // No disk to write to: that it is the same disk is for someone to say.
        for (key, value) in &other.labels {
            all.labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
        for (key, value) in &other.metadata {
            match (all.metadata.get_mut(key), value) {
                (None, value) => drop(all.metadata.insert(key.clone(), value.clone())),
                // Each secret is a thing of its own.
                (Some(Value::Object(own)), Value::Object(others)) if key == "secrets" => {
                    for (name, secret) in others {
                        own.entry(name.clone()).or_insert_with(|| secret.clone());
                    }
                }
                (Some(_), _) => {}
            }
        }
        all
    }

    /// Takes interfaces out of this machine and returns it without them, and a new machine of them. The new one boots
    /// nothing until someone says what.
    ///
    /// # Errors
    ///
    /// Says which interface it does not have, or that none would be left.
    pub fn split(&self, name: &str, macs: &BTreeSet<Mac>) -> Result<(Self, Self), String> {
        let own = &self.name;
        if let Some(mac) = macs.iter().find(|mac| !self.macs.contains(mac)) {
            return Err(format!("{mac} is no interface of machine `{own}`"));
        }
        if macs.is_empty() {
            return Err("name at least one interface that is to go".to_owned());
        }
        if macs.len() == self.macs.len() {
            return Err(format!("machine `{own}` would have no interface left; rename it instead"));
        }
        let mut rest = self.clone();
        rest.macs.retain(|mac| !macs.contains(mac));
        Ok((rest, Self::new(name, macs.iter().copied())))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mac(last: u8) -> Mac {
        Mac::new([2, 0, 0, 0, 0, last])
    }

    #[test]
    fn what_is_split_off_and_merged_again_is_what_it_was() {
        let mut whole = NewMachine::new("n1", [mac(1), mac(2)]);
        whole.image = "web".parse().ok();
        whole.state_disk = "serial:A".parse().ok();
        let (rest, new) = whole.split("n2", &[mac(2)].into()).unwrap();
        assert_eq!((rest.macs.len(), new.name.as_str()), (1, "n2"));
        assert_eq!((&new.image, &new.state_disk), (&None, &None), "it boots nothing");
        assert_eq!(rest.merged(&new), whole);
        for (macs, part) in [
            (BTreeSet::new(), "at least one"),
            ([mac(1), mac(2)].into(), "no interface left"),
            ([mac(9)].into(), "02:00:00:00:00:09 is no interface"),
        ] {
            let error = whole.split("n2", &macs).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn what_both_machines_say_stays_as_the_first_says_it() {
        let mut a = NewMachine::new("a", [mac(1)]);
        a.image = "web".parse().ok();
        a.labels = [("rack".to_owned(), "r1".to_owned())].into();
        let mut b = NewMachine::new("b", [mac(2)]);
        b.image = "db".parse().ok();
        b.serial = Some("S-1".to_owned());
        b.state_disk = "serial:B".parse().ok();
        b.labels = ["rack", "slot"].map(|key| (key.to_owned(), "b".to_owned())).into();
        let metadata = |value: Value| value.as_object().cloned().unwrap();
        a.metadata = metadata(json!({"secrets": {"x": "a"}, "net": {"dns": "a"}}));
        b.metadata =
            metadata(json!({"secrets": {"x": "b", "y": "b"}, "net": {"ntp": "b"}, "site": "b"}));
        let all = a.merged(&b);
        let both = json!({"secrets": {"x": "a", "y": "b"}, "net": {"dns": "a"}, "site": "b"});
        assert_eq!(all.metadata, metadata(both));
        assert_eq!((all.name.as_str(), &all.image), ("a", &a.image));
        assert_eq!((all.serial.as_deref(), &all.state_disk), (Some("S-1"), &None));
        assert_eq!((all.labels["rack"].as_str(), all.labels["slot"].as_str()), ("r1", "b"));
        assert_eq!(all.macs, [mac(1), mac(2)].into());
    }
}
