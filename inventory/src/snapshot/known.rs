//! The machines of the inventory with what holds for them and by what they are found. They stay what they are when only
//! images change, and where one machine changes, the rest is taken over.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use kiln_types::Mac;

use crate::effective::Resolver;
use crate::identity::telling_number;
use crate::{Effective, Group, Machine, MachineId, NewMachine};

/// How many machines before and behind one that changes are asked whether it can share what they have: machines that are
/// alike were mostly added one after another.
const NEAR: usize = 64;

/// The machines, oldest first.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) machines: Arc<[Arc<Machine>]>,
    /// What holds for each of them, in the same order.
    pub(super) settings: Box<[Arc<Effective>]>,
    pub(super) index: Arc<Index>,
    pub(super) groups: Arc<[Group]>,
}

/// Where a machine is among all: half of what it would take to have more than any inventory has.
pub(super) type Place = u32;

/// By what machines are found.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) by_mac: HashMap<Mac, Place>,
    pub(super) by_uuid: HashMap<u128, Place>,
    pub(super) by_client_id: HashMap<Box<[u8]>, Place>,
    pub(super) by_circuit_id: HashMap<Box<[u8]>, Place>,
    pub(super) reserved: HashSet<Ipv4Addr>,
    pub(super) reserved6: HashSet<Ipv6Addr>,
}

impl Known {
    pub(super) fn new(mut machines: Vec<Arc<Machine>>, groups: Vec<Group>) -> Self {
        machines.sort_by_key(|machine| machine.id);
        let index = Arc::new(Index::new(&machines));
        Self::resolved(machines, index, groups.into())
    }

    fn resolved(machines: Vec<Arc<Machine>>, index: Arc<Index>, groups: Arc<[Group]>) -> Self {
        let mut resolver = Resolver::new(&groups);
        let settings = machines.iter().map(|machine| resolver.resolve(machine)).collect();
        drop(resolver);
        Self { machines: machines.into(), settings, index, groups }
    }

    /// Returns the same with some machines as they are now, or without them, and with other groups where there are some.
    pub(super) fn changed(
        &self,
        changes: Vec<(MachineId, Option<Machine>)>,
        groups: Option<Vec<Group>>,
    ) -> Self {
        let (mut machines, mut settings) = (self.machines.to_vec(), self.settings.to_vec());
        let mut found_alike = true;
        let mut others = Vec::with_capacity(changes.len());
        for (id, now) in changes {
            match (machines.binary_search_by_key(&id, |machine| machine.id), now) {
                (Ok(place), Some(mut now)) => {
                    let before = &machines[place].spec;
                    found_alike &= is_found_alike(before, &now.spec);
                    share_labels(&mut now.spec, &machines, place);
                    machines[place] = Arc::new(now);
                    others.push(id);
                }
                (Err(place), Some(mut now)) => {
                    found_alike = false;
                    share_labels(&mut now.spec, &machines, place);
                    machines.insert(place, Arc::new(now));
                    settings.insert(place, Arc::default());
                    others.push(id);
                }
                (Ok(place), None) => {
                    found_alike = false;
                    machines.remove(place);
                    settings.remove(place);
                }
                (Err(_), None) => {}
            }
        }
        let index = match found_alike {
            true => self.index.clone(),
            false => Arc::new(Index::new(&machines)),
        };
        if let Some(groups) = groups {
            return Self::resolved(machines, index, groups.into());
        }
        let groups = self.groups.clone();
        let mut resolver = Resolver::new(&groups);
        for id in others {
            if let Ok(place) = machines.binary_search_by_key(&id, |machine| machine.id) {
                let made = resolver.resolve(&machines[place]);
                let alike = near(&settings, place).find(|other| **other == made).cloned();
                settings[place] = alike.unwrap_or(made);
            }
        }
        drop(resolver);
        Self { machines: machines.into(), settings: settings.into(), index, groups }
    }

    pub(super) fn machine(&self, place: Place) -> Option<&Arc<Machine>> {
        self.machines.get(usize::try_from(place).ok()?)
    }

    pub(super) fn settings(&self, place: Place) -> Option<&Arc<Effective>> {
        self.settings.get(usize::try_from(place).ok()?)
    }
}

/// Returns what is around a place.
fn near<T>(all: &[T], place: usize) -> impl Iterator<Item = &T> {
    let end = all.len().min(place.saturating_add(NEAR));
    all.get(place.saturating_sub(NEAR)..end).into_iter().flatten()
}

/// Takes the labels of a machine nearby, where they are the same.
fn share_labels(spec: &mut NewMachine, machines: &[Arc<Machine>], place: usize) {
    let alike = near(machines, place).find(|other| other.spec.labels == spec.labels);
    if let Some(alike) = alike {
        spec.labels = alike.spec.labels.clone();
    }
}

/// Returns whether a machine is found by the same as before.
fn is_found_alike(before: &NewMachine, now: &NewMachine) -> bool {
    before.macs == now.macs
        && before.uuid == now.uuid
        && before.client_id == now.client_id
        && before.circuit_id == now.circuit_id
        && (before.address, before.address6) == (now.address, now.address6)
}

impl Index {
    fn new(machines: &[Arc<Machine>]) -> Self {
        let count = machines.len();
        let mut all = Self {
            by_mac: HashMap::with_capacity(count),
            by_uuid: HashMap::with_capacity(count),
            reserved: HashSet::with_capacity(count),
            ..Self::default()
        };
        let mut shared = HashSet::new();
        for (place, machine) in (0..).zip(machines) {
            let spec = &machine.spec;
            for mac in &spec.macs {
                all.by_mac.entry(*mac).or_insert(place);
            }
            if let Some(uuid) = spec.uuid.as_deref().and_then(telling_number)
                && all.by_uuid.insert(uuid, place).is_some()
            {
                shared.insert(uuid);
            }
            if let Some(id) = &spec.client_id {
                all.by_client_id.entry(id.bytes().into()).or_insert(place);
            }
            if let Some(id) = &spec.circuit_id {
                all.by_circuit_id.entry(id.bytes().into()).or_insert(place);
            }
            all.reserved.extend(spec.address);
            all.reserved6.extend(spec.address6);
        }
        // One that two machines have names neither.
        all.by_uuid.retain(|uuid, _| !shared.contains(uuid));
        all.by_uuid.shrink_to_fit();
        all.reserved.shrink_to_fit();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    fn machine(id: u8, image: &str, rack: &str) -> Machine {
        let mut spec = NewMachine::new(format!("n{id}"), [Mac::new([2, 0, 0, 0, 0, id])]);
        spec.image = image.parse().ok();
        spec.labels = [("rack".to_owned(), rack.to_owned())].into();
        spec.uuid = Some(format!("4c4c4544-0000-1000-8000-0000000000{id:02x}"));
        spec.address = Some([10, 0, 0, id].into());
        Machine { id: MachineId(id.into()), revision: 1, spec }
    }

    fn group(name: &str, selector: &str, cmdline: &str) -> Group {
        Group {
            name: name.to_owned(),
            selector: selector.parse().unwrap(),
            priority: 0,
            settings: Settings { cmdline: cmdline.to_owned(), ..Settings::default() },
        }
    }

    fn shown(known: &Known) -> String {
        let Index { by_mac, by_uuid, by_client_id, by_circuit_id, reserved, reserved6 } =
            &*known.index;
        let mut maps = [
            by_mac.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>(),
            by_uuid.iter().map(|it| format!("{it:?}")).collect(),
            by_client_id.iter().map(|it| format!("{it:?}")).collect(),
            by_circuit_id.iter().map(|it| format!("{it:?}")).collect(),
            reserved.iter().map(|it| format!("{it:?}")).collect(),
            reserved6.iter().map(|it| format!("{it:?}")).collect(),
        ];
        maps.iter_mut().for_each(|map| map.sort());
        format!("{:?} {:?} {maps:?}", known.machines, known.settings)
    }

    #[test]
    fn what_changes_step_by_step_is_what_would_be_made_at_once() {
        let first = vec![group("r1", "rack=r1", "one"), group("all", "*", "all")];
        let other = vec![group("r2", "rack=r2", "two")];
        let mut now: Vec<Machine> = (1..=5).map(|id| machine(id, "web", "r1")).collect();
        let arcs = |machines: &[Machine]| machines.iter().cloned().map(Arc::new).collect();
        let mut known = Known::new(arcs(&now), first.clone());
        let mut groups = first;
        let renamed = |id, name: &str| {
            let mut machine = machine(id, "web", "r1");
            machine.spec.name = name.to_owned();
            machine
        };
        let mut moved = machine(3, "web", "r2");
        moved.spec.macs = [Mac::new([2, 0, 0, 0, 9, 9])].into();
        moved.spec.address = None;
        // The same UUID as another one: it names neither from then on.
        let mut twin = machine(6, "db", "r2");
        twin.spec.uuid = machine(4, "", "").spec.uuid;
        type Step = (Vec<(MachineId, Option<Machine>)>, Option<Vec<Group>>);
        let steps: Vec<Step> = vec![
            (vec![(MachineId(2), Some(machine(2, "db", "r1")))], None),
            (vec![(MachineId(2), Some(machine(2, "db", "r2")))], None),
            (vec![(MachineId(5), Some(renamed(5, "m5")))], Some(other)),
            (vec![(MachineId(3), Some(moved)), (MachineId(6), Some(twin))], None),
            (vec![(MachineId(1), None), (MachineId(77), None)], None),
            (vec![(MachineId(4), None), (MachineId(6), Some(machine(6, "db", "r2")))], None),
            (vec![], Some(vec![])),
            (vec![], None),
        ];
        for (changes, new_groups) in steps {
            for (id, machine) in &changes {
                now.retain(|other| other.id != *id);
                now.extend(machine.clone());
            }
            if let Some(new) = &new_groups {
                groups.clone_from(new);
            }
            known = known.changed(changes, new_groups);
            assert_eq!(shown(&known), shown(&Known::new(arcs(&now), groups.clone())));
        }
    }

    #[test]
    fn one_that_changes_leaves_the_others_as_they_are_and_shares_with_them() {
        let all = (1..=40).map(|id| Arc::new(machine(id, "web", "r1"))).collect();
        let before = Known::new(all, vec![group("r1", "rack=r1", "one")]);
        let now = before.changed(vec![(MachineId(7), Some(machine(7, "db", "r1")))], None);
        for (place, (old, new)) in before.machines.iter().zip(&*now.machines).enumerate() {
            assert_eq!(Arc::ptr_eq(old, new), place != 6, "{place}");
        }
        assert!(Arc::ptr_eq(&before.index, &now.index), "it is found as before");
        assert!(std::ptr::eq(&*now.machines[6].spec.labels, &*now.machines[0].spec.labels));
        let again = now.changed(vec![(MachineId(8), Some(machine(8, "db", "r1")))], None);
        assert!(Arc::ptr_eq(&again.settings[6], &again.settings[7]), "the same holds for both");
        assert!(!Arc::ptr_eq(&again.settings[7], &again.settings[8]));
    }
}
