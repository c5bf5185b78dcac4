//! The order in which services start.

use std::collections::BTreeMap;

use super::super::{ContainerSpec, SpecError};

/// How far a service has been followed.
#[derive(Clone, Copy, PartialEq)]
enum Met {
    Never,
    OnTheWay,
    Done,
}

/// Follows `after`: all must exist, and no service may wait for itself. Each is looked at once.
pub(super) fn check(services: &[ContainerSpec]) -> Result<(), SpecError> {
    let numbers: BTreeMap<&str, usize> =
        services.iter().enumerate().map(|(n, service)| (service.name.as_str(), n)).collect();
    let mut met = vec![Met::Never; services.len()];
    for start in 0..services.len() {
        if met[start] != Met::Never {
            continue;
        }
        // The way to the service that is looked at, and which entry of `after` comes next for each on it.
        let mut way = vec![(start, 0)];
        met[start] = Met::OnTheWay;
        while let Some((at, entry)) = way.last_mut() {
            let service = &services[*at];
            let Some(first) = service.after.get(*entry) else {
                met[*at] = Met::Done;
                way.pop();
                continue;
            };
            *entry += 1;
            let Some(&next) = numbers.get(first.as_str()) else {
                let problem = format!(
                    "service `{}` starts after `{}`, which is not a service",
                    service.name.as_str(),
                    first.as_str()
                );
                return Err(SpecError::wrong(first.place(), problem));
            };
            match met[next] {
                Met::Done => {}
                Met::Never => {
                    met[next] = Met::OnTheWay;
                    way.push((next, 0));
                }
                Met::OnTheWay => {
                    let circle = way.iter().map(|(n, _)| *n).skip_while(|n| *n != next);
                    let names: Vec<_> = circle
                        .chain([next])
                        .map(|n| format!("`{}`", services[n].name.as_str()))
                        .collect();
                    let names = names.join(" after ");
                    let problem = format!("services wait for each other: {names}");
                    return Err(SpecError::wrong(first.place(), problem));
                }
            }
        }
    }
    Ok(())
}
