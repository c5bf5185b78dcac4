//! Which partition holds the state, or on which disk one is made.

use super::disks::{Disk, Partition};
use super::error::StateError;

/// More are not listed.
const LISTED: usize = 8;

/// What is to be done with the disks that are here.
#[derive(Debug)]
pub(super) enum Choice<'a> {
    /// There is one.
    Use(&'a Disk, &'a Partition),
    /// There is none, and it may be made on this disk if that is empty.
    Make(&'a Disk),
    /// The disk may still come; when it does not, this is why there is none.
    Wait(StateError),
}

/// Looks at all disks. The server names one only for a machine that it knows: no other is ever written to.
pub(super) fn choose<'a>(
    disks: &'a [Disk],
    label: &str,
    named: Option<&str>,
) -> Result<Choice<'a>, StateError> {
    let all = disks.iter().flat_map(|disk| disk.partitions.iter().map(move |it| (disk, it)));
    let labelled: Vec<_> = all.filter(|(_, partition)| partition.label == label).collect();
    let label = || label.to_owned();
    match (labelled.as_slice(), named) {
        ([(disk, partition)], None) => return Ok(Choice::Use(disk, partition)),
        ([(disk, partition)], Some(named)) if disk.is(named) => {
            return Ok(Choice::Use(disk, partition));
        }
        ([(disk, _)], Some(named)) => {
            let named = named.to_owned();
            return Err(StateError::Elsewhere { label: label(), at: disk.called(), named });
        }
        ([], None) => {
            return Ok(Choice::Wait(StateError::NoPartition {
                label: label(),
                have: list(disks.iter()),
            }));
        }
        ([], Some(_)) => {}
        (several, _) => {
            let names = several
                .iter()
                .map(|(disk, partition)| format!("{} of {}", partition.name, disk.called()));
            return Err(StateError::Twice { label: label(), have: joined(names) });
        }
    }
    let named = named.unwrap_or_default();
    let matching: Vec<_> = disks.iter().filter(|disk| disk.is(named)).collect();
    let name = named.to_owned();
    match matching.as_slice() {
        [] => Ok(Choice::Wait(StateError::NoDisk { named: name, have: list(disks.iter()) })),
        [disk] => Ok(Choice::Make(disk)),
        several => Err(StateError::Ambiguous { named: name, have: list(several.iter().copied()) }),
    }
}

fn list<'a>(disks: impl Iterator<Item = &'a Disk>) -> String {
    joined(disks.map(Disk::called))
}

fn joined(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.take(LISTED).collect();
    if names.is_empty() { "no disk".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, labels: &[&str]) -> Disk {
        let partition = |label: &&str| Partition {
            name: format!("{name}1"),
            label: (*label).to_owned(),
            ..Partition::default()
        };
        Disk {
            name: name.to_owned(),
            serials: vec![name.to_uppercase()],
            partitions: labels.iter().map(partition).collect(),
            ..Disk::default()
        }
    }

    /// Returns what happens, in short.
    fn chosen(disks: &[Disk], named: Option<&str>) -> String {
        match choose(disks, "kiln-state", named) {
            Ok(Choice::Use(_, partition)) => format!("use {}", partition.name),
            Ok(Choice::Make(disk)) => format!("make {}", disk.name),
            Ok(Choice::Wait(error)) => format!("wait: {error}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_partition_with_the_label_is_used_and_none_is_made_unless_the_server_names_the_disk() {
        let (state, other) = (disk("sda", &["kiln-state"]), disk("sdb", &["data"]));
        let both = [state.clone(), other.clone()];
        assert_eq!(chosen(&both, None), "use sda1");
        assert_eq!(chosen(&both, Some("serial:SDA")), "use sda1");
        assert_eq!(chosen(std::slice::from_ref(&other), Some("serial:SDB")), "make sdb");
        assert!(chosen(&[other], None).starts_with("wait: no disk has a partition called"));
        assert_eq!(
            chosen(&[state], Some("serial:SDB")),
            "kiln-state is a partition of sda (serial SDA), and the server names serial:SDB; name that disk, or take \
             it out"
        );
    }

    #[test]
    fn a_label_that_is_there_twice_and_a_name_of_two_disks_are_refused_with_both_named() {
        let twice = [disk("sda", &["kiln-state"]), disk("sdb", &["kiln-state"])];
        for named in [None, Some("serial:SDA")] {
            let said = chosen(&twice, named);
            assert!(said.contains("sda1 of sda (serial SDA), sdb1 of sdb (serial SDB)"), "{said}");
        }
        let mut same = [disk("sda", &[]), disk("sdb", &[])];
        same[1].serials = vec!["SDA".to_owned()];
        let said = chosen(&same, Some("serial:SDA"));
        assert!(said.contains("sda (serial SDA), sdb (serial SDA)"), "{said}");
    }

    #[test]
    fn a_disk_that_is_not_there_yet_is_waited_for() {
        let said = chosen(&[disk("sda", &[])], Some("serial:X"));
        assert_eq!(
            said,
            "wait: the disk serial:X that the server names is not here; here: sda (serial SDA)"
        );
        assert!(chosen(&[], None).ends_with("here: no disk"));
    }
}
