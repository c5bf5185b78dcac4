//! What files say there should be, compared with what there is. Pure: the store reads before and writes afterwards.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use kiln_types::Mac;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{DiscoveryRule, Flag, Group, Locked, Machine, MachineId, NewMachine, StoreError};

/// What files say there should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// Machines, each found again by its name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<NewMachine>,
    /// Groups, each found again by its name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// Rules about machines that nobody has added, each found again by its name.
    #[serde(rename = "discovery-rules", skip_serializing_if = "Vec::is_empty")]
    pub discovery_rules: Vec<DiscoveryRule>,
}

/// Something that files say cannot be.
#[derive(Debug)]
pub struct Wrong {
    /// In which list, and how many are before it there; nothing where it is in none of them.
    pub at: Option<(&'static str, usize)>,
    /// What is wrong.
    pub error: StoreError,
}

/// The name of the list of machines.
pub(crate) const MACHINES: &str = "machines";

impl Wrong {
    pub(crate) fn machine(index: usize, error: StoreError) -> Self {
        Self { at: Some((MACHINES, index)), error }
    }
}

impl From<StoreError> for Wrong {
    fn from(error: StoreError) -> Self {
        Self { at: None, error }
    }
}

/// What has to be done with machines.
#[derive(Debug, Default)]
pub(crate) struct MachinePlan<'a> {
    pub(crate) add: Vec<&'a NewMachine>,
    pub(crate) change: Vec<(&'a Machine, Cow<'a, NewMachine>)>,
    pub(crate) remove: Vec<&'a Machine>,
    /// Machines that are as they should be.
    pub(crate) same: usize,
    /// Machines that there are already and that the files name.
    pub(crate) named: Vec<MachineId>,
}

/// Who applies, and what was applied before.
#[derive(Debug, Default)]
pub(crate) struct Owners<'a> {
    /// What an earlier apply of the same source described.
    pub(crate) ours: BTreeSet<i64>,
    /// What another source described, and its name.
    pub(crate) theirs: HashMap<i64, &'a str>,
    /// Whether to remove what is ours and not described any more.
    pub(crate) prune: bool,
}

impl Owners<'_> {
    pub(crate) fn may_take(&self, noun: &str, id: i64, name: &str) -> Result<(), StoreError> {
        let Some(source) = self.theirs.get(&id) else { return Ok(()) };
        Err(StoreError::Owned(format!(
            "{noun} `{name}` is described by the source `{source}` already; take it out of one of them"
        )))
    }
}

/// Compares machines. What one of them cannot be by itself was checked before.
pub(crate) fn plan_machines<'a>(
    now: &'a [Machine],
    wanted: &'a [NewMachine],
    owners: &Owners<'_>,
) -> Result<MachinePlan<'a>, Wrong> {
    let by_name: HashMap<&str, &Machine> =
        now.iter().map(|machine| (machine.spec.name.as_str(), machine)).collect();
    let names: HashSet<&str> = wanted.iter().map(|machine| machine.name.as_str()).collect();
    // Ours that no file names: one with an interface of a new machine has got another name.
    let nameless = now.iter().filter(|machine| {
        owners.ours.contains(&machine.id.0) && !names.contains(machine.spec.name.as_str())
    });
    let by_mac: HashMap<Mac, &Machine> = nameless
        .clone()
        .flat_map(|machine| machine.spec.macs.iter().map(move |mac| (*mac, machine)))
        .collect();
    let mut plan = MachinePlan::default();
    let mut used = HashSet::new();
    let mut touched = HashSet::new();
    for (index, spec) in wanted.iter().enumerate() {
        let renamed = || spec.macs.iter().find_map(|mac| by_mac.get(mac));
        let found = by_name.get(spec.name.as_str()).or_else(renamed).copied();
        let Some(machine) = found.filter(|machine| !used.contains(&machine.id)) else {
            plan.add.push(spec);
            continue;
        };
        used.insert(machine.id);
        let wrong = |error| Wrong::machine(index, error);
        owners.may_take("machine", machine.id.0, &machine.spec.name).map_err(wrong)?;
        plan.named.push(machine.id);
        let spec = settled(spec, &machine.spec);
        if *spec == machine.spec {
            plan.same += 1;
            continue;
        }
        let name = || machine.spec.name.clone();
        machine.spec.may_become(&spec).map_err(|Locked| wrong(StoreError::Locked(name())))?;
        touched.insert(machine.id);
        plan.change.push((machine, spec));
    }
    if owners.prune {
        for machine in nameless.filter(|machine| !used.contains(&machine.id)) {
            if machine.spec.is(Flag::Locked) {
                return Err(StoreError::Locked(machine.spec.name.clone()).into());
            }
            touched.insert(machine.id);
            plan.remove.push(machine);
        }
    }
    let rest = now.iter().filter(|machine| !touched.contains(&machine.id));
    unique(rest.map(|machine| &machine.spec), wanted)?;
    Ok(plan)
}

/// Returns what a machine becomes. What files need not say stays: its secrets, and the states an operator put it in.
fn settled<'a>(wanted: &'a NewMachine, now: &NewMachine) -> Cow<'a, NewMachine> {
    let mut settled = Cow::Borrowed(wanted);
    if wanted.flags.is_empty() && !now.flags.is_empty() {
        settled.to_mut().flags.clone_from(&now.flags);
    }
    if !wanted.metadata.contains_key(SECRETS) && now.metadata.contains_key(SECRETS) {
        keep_secrets(&mut settled.to_mut().metadata, &now.metadata);
    }
    settled
}

const SECRETS: &str = "secrets";

/// Takes over the secrets, where the new metadata says none.
pub(crate) fn keep_secrets(new: &mut Map<String, Value>, old: &Map<String, Value>) {
    if let (false, Some(secrets)) = (new.contains_key(SECRETS), old.get(SECRETS)) {
        new.insert(SECRETS.to_owned(), secrets.clone());
    }
}

/// Refuses what would be of two machines.
fn unique<'a>(
    rest: impl Iterator<Item = &'a NewMachine>,
    wanted: &'a [NewMachine],
) -> Result<(), Wrong> {
    let mut names = HashSet::new();
    let mut macs: HashMap<Mac, &str> = HashMap::new();
    let mut addresses: HashMap<IpAddr, &str> = HashMap::new();
    let wanted_names: HashSet<&str> = wanted.iter().map(|spec| spec.name.as_str()).collect();
    let rest = rest.filter(|spec| !wanted_names.contains(spec.name.as_str()));
    let all = rest.map(|spec| (None, spec));
    let all = all.chain(wanted.iter().enumerate().map(|(index, spec)| (Some(index), spec)));
    for (index, spec) in all {
        let name = spec.name.as_str();
        let wrong = |error| Wrong { at: index.map(|index| (MACHINES, index)), error };
        if !names.insert(name) {
            return Err(wrong(StoreError::NameTaken(name.to_owned())));
        }
        for mac in &spec.macs {
            if let Some(other) = macs.insert(*mac, name) {
                let machine = other.to_owned();
                return Err(wrong(StoreError::MacTaken { mac: *mac, machine }));
            }
        }
        let four = spec.address.map(IpAddr::from);
        for address in four.into_iter().chain(spec.address6.map(IpAddr::from)) {
            if let Some(other) = addresses.insert(address, name) {
                let machine = other.to_owned();
                return Err(wrong(StoreError::AddressTaken { address, machine }));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, macs: &[u8]) -> NewMachine {
        NewMachine::new(name, macs.iter().map(|last| Mac::new([2, 0, 0, 0, 0, *last])))
    }

    fn all(specs: Vec<NewMachine>) -> Vec<Machine> {
        let numbered = (1..).zip(specs);
        numbered.map(|(id, spec)| Machine { id: MachineId(id), revision: 1, spec }).collect()
    }

    fn owners(ours: &[i64], prune: bool) -> Owners<'static> {
        Owners { ours: ours.iter().copied().collect(), prune, ..Owners::default() }
    }

    fn counts(plan: &MachinePlan<'_>) -> (usize, usize, usize, usize) {
        (plan.add.len(), plan.change.len(), plan.remove.len(), plan.same)
    }

    #[test]
    fn what_is_as_it_should_be_stays_and_only_ours_is_removed() {
        let now = all(vec![spec("a", &[1]), spec("b", &[2]), spec("by-hand", &[3])]);
        let wanted = [spec("a", &[1]), spec("c", &[4])];
        let plan = plan_machines(&now, &wanted, &owners(&[1, 2], true)).unwrap();
        assert_eq!(counts(&plan), (1, 0, 1, 1));
        assert_eq!(plan.remove[0].spec.name, "b");
        let plan = plan_machines(&now, &wanted, &owners(&[1, 2], false)).unwrap();
        assert_eq!(counts(&plan), (1, 0, 0, 1));
    }

    #[test]
    fn a_machine_of_ours_that_has_another_name_now_keeps_its_id() {
        let now = all(vec![spec("old", &[1]), spec("by-hand", &[2])]);
        let plan_of = |wanted: &[NewMachine]| {
            let plan = plan_machines(&now, wanted, &owners(&[1], true));
            plan.map(|plan| (counts(&plan), plan.change.first().map(|(machine, _)| machine.id)))
        };
        assert_eq!(plan_of(&[spec("new", &[1])]).unwrap(), ((0, 1, 0, 0), Some(MachineId(1))));
        let taken = plan_of(&[spec("new", &[2])]).unwrap_err();
        assert_eq!(taken.at, Some((MACHINES, 0)));
        assert!(taken.error.to_string().contains("belongs to machine `by-hand`"), "{taken:?}");
    }

    #[test]
    fn interfaces_and_addresses_may_change_places_in_one_step() {
        let addressed = |name: &str, mac, last| {
            let mut spec = spec(name, &[mac]);
            spec.address = Some([10, 0, 0, last].into());
            spec
        };
        let now = all(vec![addressed("a", 1, 1), addressed("b", 2, 2)]);
        let swapped = [addressed("a", 2, 2), addressed("b", 1, 1)];
        let plan = plan_machines(&now, &swapped, &owners(&[], false)).unwrap();
        assert_eq!(counts(&plan), (0, 2, 0, 0));
        let same = [addressed("c", 3, 3), addressed("d", 4, 3)];
        let wrong = plan_machines(&now, &same, &owners(&[], false)).unwrap_err();
        assert_eq!(wrong.at, Some((MACHINES, 1)));
        assert!(wrong.error.to_string().contains("reserved for machine `c`"), "{wrong:?}");
        let twice = [spec("c", &[3]), spec("c", &[4])];
        let wrong = plan_machines(&now, &twice, &owners(&[], false)).unwrap_err();
        assert_eq!((wrong.at, wrong.error.is_conflict()), (Some((MACHINES, 1)), true));
    }

    #[test]
    fn states_and_secrets_that_files_do_not_say_stay_and_a_lock_holds() {
        let mut there = spec("a", &[1]);
        there.flags.insert(Flag::Cordoned);
        there.metadata.insert("secrets".to_owned(), "x".into());
        there.metadata.insert("old".to_owned(), "x".into());
        let now = all(vec![there.clone()]);
        let mut wanted = [spec("a", &[1])];
        let plan = plan_machines(&now, &wanted, &owners(&[], false)).unwrap();
        let (_, after) = &plan.change[0];
        assert_eq!((after.flags.len(), after.metadata.len()), (1, 1));
        assert!(after.metadata.contains_key("secrets"));
        wanted[0].metadata.insert("old".to_owned(), "x".into());
        let plan = plan_machines(&now, &wanted, &owners(&[], false)).unwrap();
        assert_eq!(counts(&plan), (0, 0, 0, 1));
        there.flags.insert(Flag::Locked);
        let now = all(vec![there]);
        assert!(plan_machines(&now, &wanted, &owners(&[], false)).is_ok());
        wanted[0].cmdline = "quiet".to_owned();
        let wrong = plan_machines(&now, &wanted, &owners(&[], false)).unwrap_err();
        assert!(wrong.error.to_string().contains("is locked"), "{wrong:?}");
        let wrong = plan_machines(&now, &[], &owners(&[1], true)).unwrap_err();
        assert!(wrong.at.is_none() && wrong.error.to_string().contains("is locked"), "{wrong:?}");
    }

    #[test]
    fn what_another_source_describes_is_left_to_it() {
        let now = all(vec![spec("a", &[1])]);
        let others = Owners { theirs: [(1, "lab")].into(), ..Owners::default() };
        let wrong = plan_machines(&now, &[spec("a", &[1])], &others).map(|_| ()).unwrap_err();
        assert!(wrong.error.to_string().contains("by the source `lab`"), "{wrong:?}");
        assert!(wrong.error.is_conflict());
    }
}
