//! Applies what files say: all of it in one transaction, or nothing.

use std::borrow::Cow;
use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use kiln_types::Mac;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::changes::Verb;
use super::db::{Query, query, query_made};
use super::documents::shown as shown_document;
use super::edit::{Edit, Step};
use super::machines::{Row, check, check_numbers, read, shown};
use super::row::{json, text};
use super::{Document, StoreError, Stored};
use crate::apply::{MACHINES, MachinePlan, Owners, Wrong, plan_machines};
use crate::{DiscoveryRule, Group, Machine, NewMachine, Wanted};

/// Rows that are written by one statement.
const ROWS: usize = 250;

/// Where what was applied came from, so that a later apply of the same files knows what it may remove.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its name: mostly that of a directory.
    pub name: String,
    /// The ids of what it describes, by noun.
    #[serde(default)]
    pub described: BTreeMap<String, BTreeSet<i64>>,
}

impl Document for Source {
    const NOUN: &'static str = "source";

    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Result<(), String> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let Self { name, .. } = self;
        if name.len() <= 63
            && name.bytes().next().is_some_and(plain)
            && name.bytes().all(|b| plain(b) || matches!(b, b'-' | b'_' | b'.'))
        {
            return Ok(());
        }
        let shown: String = name.escape_debug().take(80).collect();
        Err(format!(
            "`{shown}` cannot be the name of a source; use at most 63 lower-case letters, digits, `-`, `_` and `.`, \
             with a letter or digit first"
        ))
    }

    fn hide(document: &mut Value) {
        let described = document.get_mut("described").and_then(Value::as_object_mut);
        for ids in described.into_iter().flat_map(serde_json::Map::values_mut) {
            // How many is enough for the log; which ones is in the changes of each.
            *ids = ids.as_array().map_or(0, Vec::len).into();
        }
    }
}

/// One noun that an apply has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What kind of noun.
    pub noun: &'static str,
    /// Its name afterwards, or what it was called.
    pub name: String,
    /// What was done.
    pub verb: Verb,
    /// What it was and what it is, where it changed; without secrets.
    pub documents: Option<(Value, Value)>,
}

/// All that an apply has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// What has changed.
    pub changes: Vec<Applied>,
    /// How much is as it should be.
    pub unchanged: usize,
}

/// The machines that there are, to find by what files say: by the name, else by one of the interfaces.
struct ByName<'n> {
    by_name: HashMap<&'n str, &'n NewMachine>,
    by_mac: HashMap<Mac, &'n NewMachine>,
}

impl<'n> ByName<'n> {
    fn of(now: &'n [Machine]) -> Self {
        let specs = || now.iter().map(|machine| &machine.spec);
        Self {
            by_name: specs().map(|spec| (spec.name.as_str(), spec)).collect(),
            by_mac: specs()
                .flat_map(|spec| spec.macs.iter().map(move |mac| (*mac, spec)))
                .collect(),
        }
    }

    fn find(&self, wanted: &NewMachine) -> Option<&'n NewMachine> {
        let by_mac = || wanted.macs.iter().find_map(|mac| self.by_mac.get(mac));
        self.by_name.get(wanted.name.as_str()).or_else(by_mac).copied()
    }
}

impl Edit<'_> {
    /// Makes the inventory what files say. With the name of a source, that is remembered, and with `prune` what the same
    /// source described before and does not describe any more is removed.
    ///
    /// # Errors
    ///
    /// Says what cannot be. The edit is of no more use then.
    pub async fn apply(
        &mut self,
        wanted: &Wanted,
        source: Option<&str>,
        prune: bool,
    ) -> Result<Outline, Wrong> {
        for (index, machine) in wanted.machines.iter().enumerate() {
            check(machine).map_err(|error| Wrong::machine(index, error))?;
        }
        let sources: Vec<Stored<Source>> = match source {
            Some(_) => self.all().await?,
            None => Vec::new(),
        };
        let own = sources.iter().find(|stored| Some(stored.document.name.as_str()) == source);
        let before = own.map(|stored| stored.document.clone()).unwrap_or_default();
        let mut described = BTreeMap::new();
        let mut outline = Outline::default();

        let owners = owners(&sources, source, "machine", prune);
        let ids = self.apply_machines(&wanted.machines, &owners, &mut outline).await?;
        described.insert("machine".to_owned(), ids);
        let ids = self
            .apply_documents::<Group>(
                "groups",
                &wanted.groups,
                &sources,
                (source, prune),
                &mut outline,
            )
            .await?;
        described.insert(Group::NOUN.to_owned(), ids);
        let ids = self
            .apply_documents::<DiscoveryRule>(
                "discovery-rules",
                &wanted.discovery_rules,
                &sources,
                (source, prune),
                &mut outline,
            )
            .await?;
        described.insert(DiscoveryRule::NOUN.to_owned(), ids);

        if let Some(name) = source {
            let after = Source { name: name.to_owned(), described };
            match own {
                Some(own) if before != after => drop(self.change(own.id, &after, None).await?),
                Some(_) => {}
                None => drop(self.add(&after).await?),
            }
        }
        Ok(outline)
    }

    /// Returns the ids of what the source describes now.
    async fn apply_machines(
        &mut self,
        wanted: &[NewMachine],
        owners: &Owners<'_>,
        outline: &mut Outline,
    ) -> Result<BTreeSet<i64>, Wrong> {
        let rows: Vec<Row> = query("SELECT id, revision, spec FROM machines ORDER BY id")
            .fetch_all(&mut self.tx)
            .await
            .map_err(StoreError::reading(MACHINES))?;
        let now: Vec<Machine> = rows.into_iter().map(read).collect::<Result<_, _>>()?;
        let wanted = self.checked(wanted, &now)?;
        let plan = plan_machines(&now, &wanted, owners)?;
        let added = self.write_machines(&plan, outline).await?;
        outline.unchanged += plan.same;
        let removed: BTreeSet<i64> = plan.remove.iter().map(|machine| machine.id.0).collect();
        let mut described: BTreeSet<i64> = now
            .iter()
            .map(|machine| machine.id.0)
            .filter(|id| owners.ours.contains(id) && !removed.contains(id))
            .collect();
        described.extend(plan.named.iter().map(|id| id.0));
        described.extend(added);
        Ok(described)
    }

    /// Checks machines against what they are now, and seals their secrets, those that are the same as before as they are.
    fn checked<'a>(
        &self,
        wanted: &'a [NewMachine],
        now: &[Machine],
    ) -> Result<Cow<'a, [NewMachine]>, Wrong> {
        let now = LazyCell::new(|| ByName::of(now));
        for (index, spec) in wanted.iter().enumerate() {
            if check_numbers(spec, None).is_err() {
                let checked = check_numbers(spec, now.find(spec));
                checked.map_err(|error| Wrong::machine(index, error))?;
            }
        }
        if self.store.seal.is_none() || !wanted.iter().any(|it| it.metadata.contains_key("secrets"))
        {
            return Ok(Cow::Borrowed(wanted));
        }
        let sealed = wanted.iter().enumerate().map(|(index, spec)| {
            let sealed = self.sealed(spec, now.find(spec)).map(Cow::into_owned);
            sealed.map_err(|error| Wrong::machine(index, error))
        });
        sealed.collect::<Result<Vec<_>, _>>().map(Cow::Owned)
    }

    async fn write_machines(
        &mut self,
        plan: &MachinePlan<'_>,
        outline: &mut Outline,
    ) -> Result<Vec<i64>, StoreError> {
        let mut steps = Vec::new();
        // What is unique is let go of first, so that machines can exchange it.
        let removed: Vec<i64> = plan.remove.iter().map(|machine| machine.id.0).collect();
        self.with_ids("DELETE FROM machines WHERE id IN", &removed).await?;
        let address = |spec: &NewMachine| (spec.address, spec.address6);
        let moved = plan.change.iter().filter(|(now, new)| address(&now.spec) != address(new));
        let moved: Vec<i64> = moved.map(|(now, _)| now.id.0).collect();
        let clear = "UPDATE machines SET address = NULL, address6 = NULL WHERE id IN";
        self.with_ids(clear, &moved).await?;
        let rewired = || plan.change.iter().filter(|(now, new)| now.spec.macs != new.macs);
        let unplugged: Vec<i64> = rewired().map(|(now, _)| now.id.0).collect();
        self.with_ids("DELETE FROM machine_macs WHERE machine IN", &unplugged).await?;
        for machine in &plan.remove {
            self.forget_secrets("machine", machine.id.0).await?;
            let name = machine.spec.name.as_str();
            let before = Some(shown(&machine.spec));
            steps.push(Step { noun: "machine", subject: machine.id.0, name, before, after: None });
            outline.changes.push(applied("machine", name, Verb::Remove, None));
        }
        for (now, spec) in &plan.change {
            query(
                "UPDATE machines SET name = $1, address = $2, address6 = $3, spec = $4, revision = $5 \
                 WHERE id = $6",
            )
            .bind(&spec.name)
            .bind(text(spec.address.as_ref()))
            .bind(text(spec.address6.as_ref()))
            .bind(json(&**spec))
            .bind(now.revision + 1)
            .bind(now.id.0)
            .execute(&mut self.tx)
            .await
            .map_err(failed)?;
            let (before, after) = (shown(&now.spec), shown(spec));
            let documents = Some((before.clone(), after.clone()));
            outline.changes.push(applied("machine", &spec.name, Verb::Change, documents));
            let (name, subject) = (spec.name.as_str(), now.id.0);
            let (before, after) = (Some(before), Some(after));
            steps.push(Step { noun: "machine", subject, name, before, after });
        }
        let ids = self.insert_machines(&plan.add).await?;
        let mut added = Vec::with_capacity(plan.add.len());
        let mut macs = Vec::new();
        for spec in &plan.add {
            // A row of this statement for every row of that one.
            let id = ids.get(spec.name.as_str()).copied().unwrap_or_default();
            added.push(id);
            macs.extend(spec.macs.iter().map(|mac| (id, *mac)));
            let after = Some(shown(spec));
            steps.push(Step {
                noun: "machine",
                subject: id,
                name: &spec.name,
                before: None,
                after,
            });
            outline.changes.push(applied("machine", &spec.name, Verb::Add, None));
        }
        macs.extend(rewired().flat_map(|(now, spec)| spec.macs.iter().map(|mac| (now.id.0, *mac))));
        for rows in macs.chunks(ROWS) {
            let sql =
                format!("INSERT INTO machine_macs (mac, machine) VALUES {}", places(rows.len(), 2));
            let insert = rows.iter().fold(query_made(sql), |query, (machine, mac)| {
                query.bind(mac.to_string()).bind(*machine)
            });
            insert.execute(&mut self.tx).await.map_err(failed)?;
            // As one by one: what waited to be told what it is has been told now.
            let sql = format!(
                "DELETE FROM discovered WHERE id IN \
                 (SELECT entry FROM discovered_macs WHERE mac IN {})",
                places(1, rows.len())
            );
            let forget =
                rows.iter().fold(query_made(sql), |query, (_, mac)| query.bind(mac.to_string()));
            forget.execute(&mut self.tx).await.map_err(failed)?;
        }
        self.log_all(steps).await?;
        Ok(added)
    }

    /// Adds machines and returns their ids by name.
    async fn insert_machines(
        &mut self,
        new: &[&NewMachine],
    ) -> Result<HashMap<String, i64>, StoreError> {
        let mut ids = HashMap::with_capacity(new.len());
        for rows in new.chunks(ROWS) {
            let sql = format!(
                "INSERT INTO machines (name, address, address6, spec) VALUES {} RETURNING name, id",
                places(rows.len(), 4)
            );
            let insert = rows.iter().fold(query_made(sql), |query, spec| {
                let query = query.bind(&spec.name).bind(text(spec.address.as_ref()));
                query.bind(text(spec.address6.as_ref())).bind(json(spec))
            });
            let rows: Vec<(String, i64)> = insert.fetch_all(&mut self.tx).await.map_err(failed)?;
            ids.extend(rows);
        }
        Ok(ids)
    }

    /// Runs a statement that ends with a list of ids.
    async fn with_ids(&mut self, sql: &str, ids: &[i64]) -> Result<(), StoreError> {
        for ids in ids.chunks(ROWS) {
            let statement = query_made(format!("{sql} {}", places(1, ids.len())));
            let statement = ids.iter().fold(statement, |query: Query, id| query.bind(*id));
            statement.execute(&mut self.tx).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Does the same for documents of one noun, of which there are few. Returns the ids of what the source describes now.
    async fn apply_documents<T: Document>(
        &mut self,
        list: &'static str,
        wanted: &[T],
        sources: &[Stored<Source>],
        (source, prune): (Option<&str>, bool),
        outline: &mut Outline,
    ) -> Result<BTreeSet<i64>, Wrong> {
        let owners = owners(sources, source, T::NOUN, prune);
        let now: Vec<Stored<T>> = self.all().await?;
        let mut described = BTreeSet::new();
        let mut names = BTreeSet::new();
        for (index, document) in wanted.iter().enumerate() {
            let wrong = |error| Wrong { at: Some((list, index)), error };
            document.check().map_err(|text| wrong(StoreError::Invalid(text)))?;
            let name = document.name();
            if !names.insert(name) {
                let name = name.to_owned();
                return Err(wrong(StoreError::Taken { noun: T::NOUN, name }));
            }
            let Some(there) = now.iter().find(|stored| stored.document.name() == name) else {
                let added = self.add(document).await.map_err(wrong)?;
                described.insert(added.id);
                outline.changes.push(applied(T::NOUN, name, Verb::Add, None));
                continue;
            };
            owners.may_take(T::NOUN, there.id, name).map_err(wrong)?;
            described.insert(there.id);
            let mut document = document.clone();
            document.keep(&there.document);
            let sealed = self.sealed_document(&document, Some(&there.document)).map_err(wrong)?;
            if sealed == there.document {
                outline.unchanged += 1;
                continue;
            }
            self.change(there.id, &document, None).await.map_err(wrong)?;
            let documents = Some((shown_document(&there.document), shown_document(&document)));
            outline.changes.push(applied(T::NOUN, name, Verb::Change, documents));
        }
        for stored in now.iter().filter(|stored| owners.ours.contains(&stored.id)) {
            if names.contains(stored.document.name()) {
                continue;
            }
            if prune {
                self.remove::<T>(stored.id, None).await?;
                outline.changes.push(applied(T::NOUN, stored.document.name(), Verb::Remove, None));
            } else {
                described.insert(stored.id);
            }
        }
        Ok(described)
    }
}

fn owners<'a>(
    sources: &'a [Stored<Source>],
    source: Option<&str>,
    noun: &str,
    prune: bool,
) -> Owners<'a> {
    let mut owners = Owners { prune, ..Owners::default() };
    for stored in sources {
        let Source { name, described } = &stored.document;
        let ids = described.get(noun).into_iter().flatten().copied();
        if Some(name.as_str()) == source {
            owners.ours = ids.collect();
        } else {
            owners.theirs.extend(ids.map(|id| (id, name.as_str())));
        }
    }
    owners
}

fn applied(
    noun: &'static str,
    name: &str,
    verb: Verb,
    documents: Option<(Value, Value)>,
) -> Applied {
    Applied { noun, name: name.to_owned(), verb, documents }
}

/// Writes the places of values, as many rows of so many: `($1, $2), ($3, $4)`.
pub(super) fn places(rows: usize, columns: usize) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(rows * columns * 6);
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ", (" });
        for column in 1..=columns {
            let comma = if column == 1 { "" } else { ", " };
            let _ = write!(text, "{comma}${}", row * columns + column);
        }
        text.push(')');
    }
    text
}

fn failed(source: sqlx::Error) -> StoreError {
    StoreError::writing(MACHINES, source)
}
