//! Applies rules and lists to entries of which something is new.

use std::collections::HashSet;
use std::sync::Arc;

use kiln_inventory::{
    Becomes, Discovered, DiscoveryRule, DiscoveryState, Expected, Recogniser, Settled, Store,
    StoreError, Stored, Traits, World, settle,
};

use super::Vendors;
use crate::view::View;

/// Who applies the rules.
#[derive(Debug)]
pub(crate) struct Judge {
    view: Arc<View>,
    vendors: Vendors,
}

/// What the inventory says at one moment, and what was made of entries since.
struct Site {
    rules: Vec<DiscoveryRule>,
    expected: Vec<Stored<Expected>>,
    entries: Vec<Stored<Discovered>>,
    recogniser: Arc<Recogniser>,
    names: HashSet<String>,
    added: Vec<(String, Traits)>,
}

/// What settles entries.
type Says = (Vec<DiscoveryRule>, Vec<Stored<Expected>>);

impl Judge {
    pub(crate) const fn new(view: Arc<View>, vendors: Vendors) -> Self {
        Self { view, vendors }
    }

    pub(super) fn store(&self) -> &Store {
        self.view.inventory()
    }

    /// Returns the entries of which nothing is said yet, where there is something by which it could be said.
    pub(super) async fn unsettled(&self) -> Result<Vec<i64>, StoreError> {
        if self.says().await?.is_none() {
            return Ok(Vec::new());
        }
        let all = self.store().discovered().await?.into_iter();
        Ok(all.filter(|it| !it.document.is_marked()).map(|it| it.id).collect())
    }

    /// Returns the rules, the strongest first, and what is expected; nothing where there is neither.
    async fn says(&self) -> Result<Option<Says>, StoreError> {
        let rules = self.store().all().await?.into_iter();
        let mut rules: Vec<DiscoveryRule> = rules.map(|rule| rule.document).collect();
        rules.sort_by(DiscoveryRule::by_strength);
        let expected = self.store().all::<Expected>().await?;
        let says_nothing = rules.is_empty() && expected.is_empty();
        Ok((!says_nothing).then_some((rules, expected)))
    }

    /// Returns what matters to entries; nothing where nothing is said of any.
    async fn site(&self) -> Result<Option<Site>, StoreError> {
        let Some((rules, expected)) = self.says().await? else { return Ok(None) };
        let snapshot = self.view.snapshot();
        let names = snapshot.machines().iter().map(|machine| machine.spec.name.clone()).collect();
        let entries = self.store().discovered().await?;
        let recogniser = self.view.recogniser().await?;
        Ok(Some(Site { rules, expected, entries, recogniser, names, added: Vec::new() }))
    }

    /// Returns what would become of an entry now.
    pub(crate) async fn would(&self, entry: &Stored<Discovered>) -> Result<Settled, StoreError> {
        let site = self.site().await?;
        Ok(site.map_or(Settled::Wait, |site| self.look(&site, entry)))
    }

    /// Settles what becomes of one entry, and returns the machine where it becomes one. Fails where that cannot be kept.
    pub(crate) async fn settle_now(&self, id: i64) -> Result<Option<Becomes>, StoreError> {
        let Some(mut site) = self.site().await? else { return Ok(None) };
        let (changed, became) = self.settle_one(&mut site, id).await?;
        if changed {
            self.view.refresh_inventory().await?;
        }
        Ok(became)
    }

    /// Settles what becomes of some entries. Each is looked at once: where nothing is said of it, it waits for a person.
    pub(super) async fn settle(&self, entries: &[i64]) -> Result<(), StoreError> {
        let Some(mut site) = self.site().await? else { return Ok(()) };
        let mut changed = false;
        for id in entries {
            match self.settle_one(&mut site, *id).await {
                Ok((settled, _)) => changed |= settled,
                Err(error) if error.is_unavailable() => return Err(error),
                // One that cannot be settled does not hold up the others.
                Err(error) => {
                    let error = crate::cli::chain(&error);
                    tracing::error!(entry = id, error, "what becomes of a machine cannot be kept");
                }
            }
        }
        if changed && let Err(error) = self.view.refresh_inventory().await {
            let error = crate::cli::chain(&error);
            tracing::warn!(error, "the inventory cannot be read; what was known stays in use");
        }
        Ok(())
    }

    /// Returns whether that changes what machines get, and the machine that the entry becomes.
    async fn settle_one(
        &self,
        site: &mut Site,
        id: i64,
    ) -> Result<(bool, Option<Becomes>), StoreError> {
        let nothing = (false, None);
        let Some(place) = site.entries.iter().position(|entry| entry.id == id) else {
            return Ok(nothing);
        };
        let Some(now) = site.entries.get(place).cloned() else { return Ok(nothing) };
        let entry = &now.document;
        if entry.is_marked() {
            return Ok(nothing);
        }
        match self.look(site, &now) {
            Settled::Wait => Ok(nothing),
            Settled::Ignore { rule } => {
                let state = DiscoveryState::Ignored;
                let ignored = Discovered { state, rule: Some(rule), note: None, ..entry.clone() };
                Ok((self.keep(&now, ignored).await?, None))
            }
            Settled::Hold { rule, why } => {
                let state = DiscoveryState::Held;
                let held = Discovered { state, rule, note: why, ..entry.clone() };
                Ok((self.keep(&now, held).await?, None))
            }
            Settled::Machine(becomes) => {
                let rule = becomes.rule.clone();
                match self.approve(&now, &becomes, &site.expected).await {
                    Ok(false) => Ok(nothing),
                    Ok(true) => {
                        site.entries.remove(place);
                        let name = becomes.machine.name.clone();
                        site.expected
                            .retain(|e| Some(&e.document.name) != becomes.expected.as_ref());
                        site.added.push((name.clone(), Traits::known(&becomes.machine)));
                        site.names.insert(name);
                        Ok((true, Some(*becomes)))
                    }
                    Err(error) if error.is_conflict() || error.is_invalid() => {
                        let (state, note) = (DiscoveryState::Held, Some(error.to_string()));
                        let held = Discovered { state, rule, note, ..entry.clone() };
                        Ok((self.keep(&now, held).await?, None))
                    }
                    Err(error) => Err(error),
                }
            }
        }
    }

    fn look(&self, site: &Site, now: &Stored<Discovered>) -> Settled {
        let entry = &now.document;
        let mut looks_like = site.recogniser.recognise(&entry.traits());
        looks_like.extend(Recogniser::new(site.added.iter().cloned()).recognise(&entry.traits()));
        let others = site.entries.iter().filter(|other| other.id != now.id);
        let twin = others.map(|other| &other.document).find(|other| entry.is_twin_of(other));
        let expected: Vec<Expected> =
            site.expected.iter().map(|expected| expected.document.clone()).collect();
        let world = World {
            rules: &site.rules,
            expected: &expected,
            looks_like: &looks_like,
            twin,
            is_taken: &|name| site.names.contains(name),
        };
        let vendor = entry.macs.first().and_then(|mac| self.vendors.of(*mac)).unwrap_or_default();
        settle(entry, vendor, &world)
    }

    async fn keep(&self, now: &Stored<Discovered>, entry: Discovered) -> Result<bool, StoreError> {
        if now.document == entry {
            return Ok(false);
        }
        let was = now.document.state == DiscoveryState::Ignored;
        let ignores = was != (entry.state == DiscoveryState::Ignored);
        let mac = entry.macs.first().map(ToString::to_string);
        let kept = self.store().judge_discovered(now.id, now.revision, &entry).await?;
        if kept {
            let Discovered { rule, note, .. } = &entry;
            tracing::debug!(mac, ?rule, ?note, state = ?entry.state, "discovered machine");
        }
        Ok(kept && ignores)
    }

    async fn approve(
        &self,
        now: &Stored<Discovered>,
        becomes: &Becomes,
        expected: &[Stored<Expected>],
    ) -> Result<bool, StoreError> {
        let Becomes { machine, rule, expected: name } = becomes;
        let by = match (rule, name) {
            (Some(rule), _) => format!("discovery rule {rule}"),
            (None, Some(name)) => format!("expected machine {name}"),
            (None, None) => "discovery".to_owned(),
        };
        let store = self.store().acting(&by);
        let mut edit = store.edit().await?;
        let there = edit.discovered(now.id, None).await?;
        let Some(there) = there.filter(|there| there.revision == now.revision) else {
            return Ok(false);
        };
        if let Some(expected) = expected.iter().find(|e| Some(&e.document.name) == name.as_ref()) {
            edit.remove::<Expected>(expected.id, Some(expected.revision)).await?;
        }
        let added = edit.approve(&there, machine).await?;
        edit.commit().await?;
        let mac = machine.macs.first().map(ToString::to_string);
        tracing::info!(
            machine = added.spec.name,
            machine_id = added.id.0,
            mac,
            by,
            "machine approved"
        );
        Ok(true)
    }
}
