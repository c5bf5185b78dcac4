//! Machines that are one box, and those that are two.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use kiln_inventory::{Machine, NewMachine};
use kiln_types::Mac;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::access::{Access, Noun};
use super::change::{Dry, Preview};
use super::extract::{Body, Key, Params};
use super::machines::{find, refresh};
use super::peer::Caller;
use super::route::{Route, post};
use super::{Control, Fault};

type Shared = State<Arc<Control>>;

/// The machine that is the same box.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Merge {
    /// Its name or hardware address. It is gone afterwards.
    pub from: String,
}

/// One machine that was two.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Merged {
    /// The machine that is there.
    #[serde(flatten)]
    pub machine: Machine,
    /// What the other one had that is gone with it, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
}

/// What is to be a machine of its own.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Name of the new machine.
    pub name: String,
    /// Its interfaces.
    pub macs: BTreeSet<Mac>,
}

pub(super) fn routes() -> Vec<Route> {
    let write = Access::Write(Noun::Machine);
    vec![
        post("/api/v1/machines/{key}/merge", write, "Make one machine of two", merge)
            .tried()
            .takes::<Merge>()
            .gives::<Merged>(),
        post("/api/v1/machines/{key}/split", write, "Make two machines of one", split)
            .tried()
            .takes::<Split>()
            .lists::<Machine>(),
    ]
}

async fn merge(
    State(control): Shared,
    Key(key): Key,
    caller: Caller,
    Params(dry): Params<Dry>,
    Body(merge): Body<Merge>,
) -> Result<Response, Fault> {
    let (into, from) =
        (find(&control, &caller, &key).await?, find(&control, &caller, &merge.from).await?);
    let store = control.inventory.acting(&caller.name);
    let _sealed_with_a_key_that_stays = control.secrets.hold_keys().await;
    let mut edit = store.edit().await?;
    let boots = (edit.boots_of(into.id).await?, edit.boots_of(from.id).await?);
    let lost = control.secrets.take_over(&mut edit, from.id, into.id).await?;
    let merged = edit.merge_machines(into.id, from.id).await?;
    let merged = merged.ok_or_else(|| Fault::not_found("machine", &key))?;
    caller.may_make(&merged.spec)?;
    let mut dropped = lost_secrets(&caller, &from.spec.name, &lost);
    let gone = lost_metadata(&merged.spec, &from.spec);
    dropped
        .extend(gone.map(|name| format!("secret `{name}` of the metadata of {}", from.spec.name)));
    if dry.dry_run {
        let before = [(&into.spec, boots.0), (&from.spec, boots.1)];
        let before = by_name(&before);
        let mut after = by_name(&[(&merged.spec, edit.boots_of(into.id).await?)]);
        if !dropped.is_empty() {
            // No machine is called so.
            after["(dropped)"] = json!(dropped);
        }
        return Ok(Preview::of(Some(&before), Some(&after)).into_response());
    }
    edit.commit().await?;
    refresh(&control).await?;
    let (machine, from) = (&merged.spec.name, &from.spec.name);
    tracing::info!(machine, other = from, count = dropped.len(), "machines merged");
    Ok(Json(Merged { machine: merged, dropped }).into_response())
}

/// Returns the names of the secrets in the metadata of a machine of which the one that is both has another one.
fn lost_metadata<'m>(both: &'m NewMachine, from: &'m NewMachine) -> impl Iterator<Item = &'m str> {
    let secrets = |of: &'m NewMachine| of.metadata.get("secrets").and_then(Value::as_object);
    let kept = secrets(both);
    let others = secrets(from).into_iter().flatten();
    let lost = others.filter(move |(name, value)| kept.and_then(|it| it.get(*name)) != Some(value));
    lost.map(|(name, _)| name.as_str())
}

/// Says which secrets of a machine are gone with it. Who may not read their names learns how many.
fn lost_secrets(caller: &Caller, machine: &str, names: &[String]) -> Vec<String> {
    let may_read = caller.rights.check(Access::Read(Noun::Secret)).is_ok();
    match names {
        [] => Vec::new(),
        names if may_read => {
            names.iter().map(|name| format!("secret `{name}` of {machine}")).collect()
        }
        names => vec![format!("{} of the secrets of {machine}", names.len())],
    }
}

async fn split(
    State(control): Shared,
    Key(key): Key,
    caller: Caller,
    Params(dry): Params<Dry>,
    Body(split): Body<Split>,
) -> Result<Response, Fault> {
    let machine = find(&control, &caller, &key).await?;
    let store = control.inventory.acting(&caller.name);
    let mut edit = store.edit().await?;
    let both = edit.split_machine(machine.id, &split.name, &split.macs).await?;
    let (rest, new) = both.ok_or_else(|| Fault::not_found("machine", &key))?;
    caller.may_make(&rest.spec)?;
    caller.may_make(&new.spec)?;
    if dry.dry_run {
        let boots = edit.boots_of(machine.id).await?;
        let before = by_name(&[(&machine.spec, boots)]);
        let after = by_name(&[(&rest.spec, boots), (&new.spec, 0)]);
        return Ok(Preview::of(Some(&before), Some(&after)).into_response());
    }
    edit.commit().await?;
    refresh(&control).await?;
    tracing::info!(machine = rest.spec.name, other = new.spec.name, "machine split");
    Ok(Json(vec![rest, new]).into_response())
}

/// Writes machines under their names, with how many boots each has, so that a preview can be of two of them.
fn by_name(machines: &[(&NewMachine, i64)]) -> Value {
    let one = |(machine, boots): &(&NewMachine, i64)| {
        let mut value = serde_json::to_value(machine).unwrap_or_default();
        value["boots"] = json!(boots);
        (machine.name.clone(), value)
    };
    machines.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use hyper::Method;

    use super::super::tests::{MACHINES, Rig, machine};
    use super::*;

    #[tokio::test]
    async fn the_machine_that_stays_gets_the_secrets_that_it_has_not() {
        let rig = Rig::start().await;
        for (name, last) in [("n1", 1), ("n2", 2)] {
            let new = machine(name, &format!("52:54:00:00:00:0{last}"), None);
            assert_eq!(rig.send(Method::POST, MACHINES, &new).await.0, 201);
        }
        for place in ["n1/a", "n2/a", "n2/b"] {
            let path = format!("/api/v1/secrets/machine/{place}");
            let (status, answer) = rig.send(Method::PUT, &path, &json!({"value": place})).await;
            assert!(matches!(status, 200 | 204), "{status} {answer}");
        }
        let names = async || {
            let (_, all) = rig.get("/api/v1/secrets").await;
            let all = all.as_array().unwrap().clone();
            let place = |it: Value| format!("{} {}", it["owner"], it["name"]).replace('"', "");
            all.into_iter().map(place).collect::<BTreeSet<_>>()
        };
        let (path, body) = (format!("{MACHINES}/n1/merge"), json!({"from": "n2"}));
        let lost = json!(["secret `a` of n2"]);
        let dry = format!("{path}?dry_run=true");
        let (status, preview) = rig.send(Method::POST, &dry, &body).await;
        assert_eq!((status, &preview["after"]["(dropped)"]), (200, &lost), "{preview}");
        assert_eq!(names().await.len(), 3);
        let (status, merged) = rig.send(Method::POST, &path, &body).await;
        assert_eq!((status, &merged["name"], &merged["dropped"]), (200, &json!("n1"), &lost));
        assert_eq!(names().await, ["n1 a", "n1 b"].map(str::to_owned).into());
        // Which opens each of them in its place.
        let (status, rotated) = rig.send(Method::POST, "/api/v1/secrets/rotate", &json!({})).await;
        assert_eq!(status, 200, "{rotated}");
        rig.stop().await;
    }

    #[tokio::test]
    async fn machines_stay_two_where_the_key_of_a_secret_is_lost_and_the_answer_says_what_to_do() {
        for has_keys in [false, true] {
            let rig = Rig::start().await;
            for (name, last) in [("n1", 1), ("n2", 2)] {
                let new = machine(name, &format!("52:54:00:00:00:0{last}"), None);
                assert_eq!(rig.send(Method::POST, MACHINES, &new).await.0, 201);
            }
            if has_keys {
                let own = "/api/v1/secrets/machine/n1/own";
                let (status, answer) = rig.send(Method::PUT, own, &json!({"value": "x"})).await;
                assert_eq!(status, 204, "{answer}");
            }
            let n2 = rig.inventory.machines().await.unwrap().pop().unwrap();
            let kind = crate::secrets::OwnerKind::Machine;
            let secret = crate::secrets::SecretDoc {
                place: crate::secrets::place_of(kind, n2.id.0, "p"),
                kind,
                owner: n2.id.0,
                name: "p".to_owned(),
                sealed: crate::secrets::Sealed { key: "lost".to_owned(), text: "00".repeat(40) },
                changed: 1,
                changed_by: "another server".to_owned(),
            };
            rig.inventory.add(&secret).await.unwrap();
            // Which the server reads with the next change.
            let label = json!({"labels": {"rack": "r1"}});
            let (status, _) = rig.send(Method::PATCH, &format!("{MACHINES}/n1"), &label).await;
            assert_eq!(status, 200);
            let (path, body) = (format!("{MACHINES}/n1/merge"), json!({"from": "n2"}));
            for path in [format!("{path}?dry_run=true"), path] {
                let (status, problem) = rig.send(Method::POST, &path, &body).await;
                let text = problem["detail"].as_str().unwrap();
                let expected = if has_keys { "`lost`" } else { "is missing" };
                assert!(status == 409 && text.contains(expected), "{status} {text}");
                assert!(text.contains("copy"), "{text}");
            }
            assert_eq!(rig.inventory.machines().await.unwrap().len(), 2);
            rig.stop().await;
        }
    }

    #[test]
    fn secrets_of_the_metadata_that_are_gone_are_named() {
        let with = |secrets: Value| {
            let mut spec = NewMachine::new("n", [Mac::new([2, 0, 0, 0, 0, 1])]);
            spec.metadata.insert("secrets".to_owned(), secrets);
            spec
        };
        let (into, from) =
            (with(json!({"root": "sealed:1"})), with(json!({"root": "sealed:2", "wifi": "x"})));
        let both = into.merged(&from);
        assert_eq!(lost_metadata(&both, &from).collect::<Vec<_>>(), ["root"]);
        assert_eq!(lost_metadata(&both, &into).count(), 0);
    }

    #[test]
    fn who_may_not_read_the_names_of_secrets_learns_how_many_are_gone() {
        let names = ["a", "b"].map(str::to_owned);
        let rights = crate::api::scope::Rights::Some {
            scopes: ["machine:write".parse().unwrap()].as_slice().into(),
            machines: None,
        };
        let writer = Caller { rights, ..Caller::nobody() };
        assert_eq!(lost_secrets(&writer, "n2", &names), ["2 of the secrets of n2"]);
        let root = Caller::local("uid 0");
        let all = lost_secrets(&root, "n2", &names);
        assert_eq!(all, ["secret `a` of n2", "secret `b` of n2"]);
        assert!(lost_secrets(&root, "n2", &[]).is_empty());
    }
}
