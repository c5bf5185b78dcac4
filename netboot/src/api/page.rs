//! Long lists: a part at a time, some of the fields, some of the machines.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Display;
use std::net::IpAddr;

use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use kiln_inventory::{Selector, Stored, expand_hostlist};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::problem::Fault;

/// The most fields that can be chosen.
const MOST_FIELDS: usize = 64;

/// The largest `limit`: what fits an `int32` of OpenAPI, and so every client that is made from the document.
const MOST_ITEMS: u32 = 0x7fff_ffff;

/// Reads a `limit`, from 1 on.
pub(super) fn limit<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<u32>, D::Error> {
    let text = String::deserialize(reader)?;
    let limit = text.parse().ok().filter(|limit| (1..=MOST_ITEMS).contains(limit));
    let wrong = || D::Error::custom(format!("`limit` is a number from 1 to {MOST_ITEMS}"));
    limit.map(Some).ok_or_else(wrong)
}

/// Which part of a list.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
pub(super) struct Page {
    /// The most items in the answer; all without it. Where there are more, `Link` says where they are.
    #[serde(default, deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 2_147_483_647)]
    limit: Option<u32>,
    /// Only items after the one with this id.
    after: Option<i64>,
    /// Only these fields, with commas between them; `labels.rack` is a field in a field.
    fields: Option<String>,
}

impl Page {
    /// Returns the id after which it begins.
    pub(super) fn after(&self) -> i64 {
        self.after.unwrap_or(i64::MIN)
    }

    /// Returns how many items it has, which are never more than so many.
    pub(super) fn most(&self, bound: usize) -> usize {
        most(self.limit).min(bound)
    }

    /// The same page with at most so many items.
    pub(super) fn at_most(&self, most: usize) -> Self {
        Self { limit: u32::try_from(self.most(most)).ok(), ..self.clone() }
    }

    /// Puts documents in the order of their list. That of a part is that of the ids, which stays when others come and go.
    pub(super) fn sort<T>(&self, all: &mut [Stored<T>], order: impl Fn(&T, &T) -> Ordering) {
        let is_part = self.limit.is_some() || self.after.is_some();
        all.sort_by(|a, b| match is_part {
            true => a.id.cmp(&b.id),
            false => order(&a.document, &b.document),
        });
    }
}

/// Which part of a list of what has a name and no id.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
pub(super) struct NamedPage {
    /// The most items in the answer; all without it. Where there are more, `Link` says where they are.
    #[serde(default, deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 2_147_483_647)]
    limit: Option<u32>,
    /// Only items whose names come after this one.
    after: Option<String>,
    /// Only these fields, with commas between them; `arches.x86_64` is a field in a field.
    fields: Option<String>,
}

/// Which part of a list of addresses.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
pub(super) struct AddressPage {
    /// The most items in the answer; all without it. Where there are more, `Link` says where they are.
    #[serde(default, deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 2_147_483_647)]
    limit: Option<u32>,
    /// Only items after the one with this address; those of IPv6 come after those of IPv4.
    #[param(value_type = Option<String>)]
    after: Option<IpAddr>,
    /// Only these fields, with commas between them.
    fields: Option<String>,
}

impl AddressPage {
    /// As [`answer`], of things whose addresses go up.
    pub(super) fn answer<Item: ToSchema, T: Serialize>(
        &self,
        uri: &Uri,
        items: impl Iterator<Item = (IpAddr, T)>,
    ) -> Result<Response, Fault> {
        let items = items.filter(|(address, _)| self.after.is_none_or(|after| *address > after));
        part::<Item, T>(most(self.limit), self.fields.as_deref(), uri, items)
    }
}

/// Which machines.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
pub(super) struct Which {
    /// Terms about labels: `rack=r1,role in (web,db),!broken`.
    selector: Option<String>,
    /// Names, also as ranges: `rack1-n[01-40],web`.
    name: Option<String>,
}

/// Which machines, after it was read.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    selector: Option<Selector>,
    names: Option<HashSet<String>>,
}

impl Which {
    pub(super) fn read(&self) -> Result<Wanted, Fault> {
        let selector = self.selector.as_deref().map(str::parse::<Selector>).transpose();
        let selector = selector.map_err(|error| Fault::invalid(error.to_string()))?;
        let names = self.name.as_deref().map(expand_hostlist).transpose();
        let names = names.map_err(|error| Fault::invalid(error.to_string()))?;
        Ok(Wanted { selector, names: names.map(|names| names.into_iter().collect()) })
    }
}

impl Wanted {
    /// Whether every machine is wanted.
    pub(super) fn is_all(&self) -> bool {
        self.names.is_none() && self.selector.is_none()
    }

    pub(super) fn is(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.names.as_ref().is_none_or(|names| names.contains(name))
            && self.selector.as_ref().is_none_or(|selector| selector.matches(labels))
    }
}

/// Returns the fields that things of a kind can have, those that are written into them too.
fn fields_of<T: ToSchema>() -> BTreeSet<String> {
    let mut named = Vec::new();
    T::schemas(&mut named);
    let (mut known, mut left) = (BTreeSet::new(), vec![serde_json::to_value(T::schema())]);
    while let Some(schema) = left.pop() {
        let schema = schema.unwrap_or_default();
        let part = |key: &str| schema.get(key);
        known.extend(
            part("properties")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .map(|it| it.0.clone()),
        );
        left.extend(part("allOf").and_then(Value::as_array).into_iter().flatten().cloned().map(Ok));
        let name = part("$ref").and_then(Value::as_str).and_then(|it| it.rsplit('/').next());
        let meant = named.iter().filter(|(it, _)| Some(it.as_str()) == name);
        left.extend(meant.map(|(_, schema)| serde_json::to_value(schema)));
    }
    known
}

/// Answers with a part of a list of such things whose ids go up.
pub(super) fn answer<Item: ToSchema, T: Serialize>(
    page: &Page,
    uri: &Uri,
    items: impl Iterator<Item = (i64, T)>,
) -> Result<Response, Fault> {
    let after = page.after();
    let items = items.filter(|(id, _)| *id > after);
    part::<Item, T>(most(page.limit), page.fields.as_deref(), uri, items)
}

fn most(limit: Option<u32>) -> usize {
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Answers with a part of a list of such things whose names go up.
pub(super) fn answer_named<Item: ToSchema, T: Serialize>(
    page: &NamedPage,
    uri: &Uri,
    items: impl Iterator<Item = (String, T)>,
) -> Result<Response, Fault> {
    let after = page.after.as_deref();
    let items = items.filter(|(name, _)| after.is_none_or(|after| name.as_str() > after));
    part::<Item, T>(most(page.limit), page.fields.as_deref(), uri, items)
}

/// Answers with so many of such things. Each comes with its place, after which the list goes on.
pub(super) fn part<Item: ToSchema, T: Serialize>(
    limit: usize,
    fields: Option<&str>,
    uri: &Uri,
    items: impl Iterator<Item = (impl Display, T)>,
) -> Result<Response, Fault> {
    let fields = chosen::<Item>(fields)?;
    let (mut body, mut count, mut last, mut more) = (vec![b'['], 0, None, false);
    for (place, item) in items {
        if count == limit {
            more = true;
            break;
        }
        if count > 0 {
            body.push(b',');
        }
        let written = if fields.is_empty() {
            serde_json::to_writer(&mut body, &item)
        } else {
            serde_json::to_value(&item)
                .and_then(|item| serde_json::to_writer(&mut body, &pick(&item, &fields)))
        };
        written.map_err(|error| Fault::internal(&error))?;
        (count, last) = (count + 1, Some(place));
    }
    body.push(b']');
    Ok(with_next(body, uri, last.filter(|_| more)))
}

/// Answers with a part of a thing that has parts with names, such as a map.
pub(super) fn answer_whole<Item: ToSchema + Serialize>(
    page: &NamedPage,
    uri: &Uri,
    item: &Item,
    next: Option<&str>,
) -> Result<Response, Fault> {
    let fields = chosen::<Item>(page.fields.as_deref())?;
    let item = serde_json::to_value(item).map_err(|error| Fault::internal(&error))?;
    let item = if fields.is_empty() { item } else { pick(&item, &fields) };
    Ok(with_next(item.to_string().into_bytes(), uri, next))
}

impl NamedPage {
    /// Leaves of a map what the page has, and returns the last name where there are more.
    pub(super) fn cut<T>(&self, all: &mut BTreeMap<String, T>) -> Option<String> {
        if let Some(after) = &self.after {
            *all = all.split_off(after);
            all.remove(after);
        }
        let first_left_out = all.keys().nth(most(Some(self.limit?)))?.clone();
        drop(all.split_off(&first_left_out));
        all.keys().next_back().cloned()
    }
}

/// Returns the fields that are wanted, which such things can have; all where there are none.
fn chosen<Item: ToSchema>(text: Option<&str>) -> Result<Vec<&str>, Fault> {
    let fields: Vec<&str> = text.map_or_else(Vec::new, |text| {
        text.split(',').map(str::trim).filter(|field| !field.is_empty()).collect()
    });
    if fields.len() > MOST_FIELDS {
        return Err(Fault::invalid(format!("at most {MOST_FIELDS} `fields` can be chosen")));
    }
    if !fields.is_empty() {
        let known = fields_of::<Item>();
        let first = |field: &str| field.split('.').next().unwrap_or_default().to_owned();
        if let Some(unknown) = fields.iter().find(|field| !known.contains(&first(field))) {
            let unknown: String = unknown.escape_debug().take(60).collect();
            let known = Vec::from_iter(known).join(", ");
            let text = format!("there is no field `{unknown}`; there are: {known}");
            return Err(Fault::invalid(text));
        }
    }
    Ok(fields)
}

fn with_next(body: Vec<u8>, uri: &Uri, last: Option<impl Display>) -> Response {
    let mut response = (StatusCode::OK, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(link) = last.and_then(|last| next(uri, &last.to_string())) {
        headers.insert(header::LINK, link);
    }
    response
}

/// Returns where the next part is.
fn next(uri: &Uri, last: &str) -> Option<HeaderValue> {
    let query = uri.query().unwrap_or_default();
    let kept = query.split('&').filter(|part| !part.is_empty() && !part.starts_with("after="));
    let after = format!("after={last}");
    let query: Vec<&str> = kept.chain([after.as_str()]).collect();
    // What came in a URI can stand in one; brackets would end the link.
    let query = query.join("&").replace(['<', '>', '"'], "");
    HeaderValue::from_str(&format!("<{}?{query}>; rel=\"next\"", uri.path())).ok()
}

/// Returns the chosen fields of an object, in their places.
fn pick(item: &Value, fields: &[&str]) -> Value {
    let mut picked = Map::new();
    for field in fields {
        let found = field.split('.').try_fold(item, |value, part| value.get(part));
        let Some(found) = found else { continue };
        put(&mut picked, field, found);
    }
    Value::Object(picked)
}

/// Puts a value in its place; the parts of the path are objects where it was found, too.
fn put(into: &mut Map<String, Value>, path: &str, value: &Value) {
    let Some((first, rest)) = path.split_once('.') else {
        into.insert(path.to_owned(), value.clone());
        return;
    };
    let inner = into.entry(first).or_insert_with(|| Value::Object(Map::new()));
    if let Some(inner) = inner.as_object_mut() {
        put(inner, rest, value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_stay_where_they_are() {
        let item = json!({"id": 1, "labels": {"rack": "r1", "a": "b"}, "name": "n1"});
        assert_eq!(
            pick(&item, &["name", "labels.rack"]),
            json!({"name": "n1", "labels": {"rack": "r1"}})
        );
        assert_eq!(pick(&item, &["nothing", "name.x", "id"]), json!({"id": 1}));
        assert_eq!(
            pick(&item, &["labels.x.y", "labels"]),
            json!({"labels": {"rack": "r1", "a": "b"}})
        );
    }

    #[test]
    fn a_field_that_nothing_has_is_refused_with_those_that_there_are() {
        use kiln_inventory::{Machine, NewMachine};

        let machine = NewMachine::new("n1", ["52:54:00:00:00:01".parse().unwrap()]);
        let machine = Machine { id: kiln_inventory::MachineId(1), revision: 1, spec: machine };
        let uri: Uri = "/api/v1/machines".parse().unwrap();
        let ask = |fields: &str| {
            let page = Page { limit: None, after: None, fields: Some(fields.to_owned()) };
            answer::<Machine, _>(&page, &uri, [(1, &machine)].into_iter())
        };
        for known in ["id", "revision, name", "labels.rack", "asset-tag,maintenance-image", ""] {
            assert!(ask(known).is_ok(), "{known}");
        }
        for unknown in ["nme", "name,Labels", "spec.name", ".name"] {
            let fault = ask(unknown).unwrap_err();
            assert_eq!(fault.status(), StatusCode::BAD_REQUEST);
            let text = fault.detail();
            assert!(
                text.contains("there is no field `")
                    && text.contains("macs, maintenance-image, metadata, name"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_part_of_a_list_names_the_next_one() {
        let uri: Uri = "/api/v1/machines?limit=2&after=1&name=n%5B1-9%5D".parse().unwrap();
        let page = Page { limit: Some(2), after: Some(1), fields: None };
        let answer = answer::<i64, _>(&page, &uri, (1..=5).map(|id| (id, id))).unwrap();
        let link = answer.headers()[header::LINK].to_str().unwrap();
        assert_eq!(link, "</api/v1/machines?limit=2&name=n%5B1-9%5D&after=3>; rel=\"next\"");
        let page = Page { limit: Some(4), after: Some(1), fields: None };
        let all = super::answer::<i64, _>(&page, &uri, (1..=5).map(|id| (id, id))).unwrap();
        assert!(all.headers().get(header::LINK).is_none());
    }

    #[test]
    fn what_has_a_name_and_no_id_comes_in_parts_by_its_name() {
        let uri: Uri = "/api/v1/builds?limit=2".parse().unwrap();
        let page = |limit, after: Option<&str>| NamedPage {
            limit,
            after: after.map(str::to_owned),
            fields: None,
        };
        let names = ["a", "b-1", "c"].map(str::to_owned);
        let part = |page: NamedPage| {
            let items = names.iter().map(|name| (name.clone(), 1));
            let answer = answer_named::<i64, _>(&page, &uri, items).unwrap();
            answer.headers().get(header::LINK).map(|link| link.to_str().unwrap().to_owned())
        };
        let next = "</api/v1/builds?limit=2&after=b-1>; rel=\"next\"";
        assert_eq!(part(page(Some(2), None)).as_deref(), Some(next));
        assert_eq!(part(page(Some(2), Some("a"))), None);
        let cut = |page: NamedPage| {
            let mut all: BTreeMap<_, _> = names.iter().map(|name| (name.clone(), ())).collect();
            let next = page.cut(&mut all);
            (all.into_keys().collect::<String>(), next)
        };
        assert_eq!(cut(page(None, None)), ("ab-1c".to_owned(), None));
        assert_eq!(cut(page(Some(2), None)), ("ab-1".to_owned(), Some("b-1".to_owned())));
        assert_eq!(cut(page(Some(2), Some("a"))), ("b-1c".to_owned(), None));
        assert_eq!(cut(page(Some(2), Some("b"))), ("b-1c".to_owned(), None));
        assert_eq!(cut(page(Some(2), Some("c"))), (String::new(), None));
    }

    #[test]
    fn a_limit_is_between_the_bounds_that_the_document_states() {
        use utoipa::openapi::path::ParameterIn;

        let read = |limit: &str| {
            let uri: Uri = format!("/?limit={limit}").parse().unwrap();
            axum::extract::Query::<Page>::try_from_uri(&uri).map(|page| page.0.limit)
        };
        for (limit, number) in [("1", 1), ("1000", 1000), ("2147483647", MOST_ITEMS)] {
            assert_eq!(read(limit).unwrap(), Some(number));
        }
        for wrong in ["0", "-1", "2147483648", "4294967296", "99999999999999999999", "x", ""] {
            let text = read(wrong).unwrap_err().body_text();
            assert!(text.contains("`limit` is a number from 1 to 2147483647"), "{wrong}: {text}");
        }
        let all = Page::into_params(|| Some(ParameterIn::Query));
        let limit = serde_json::to_value(&all[0]).unwrap();
        assert_eq!(limit["name"], "limit");
        assert_eq!(
            (limit["schema"]["minimum"].as_f64(), limit["schema"]["maximum"].as_f64()),
            (Some(1.0), Some(f64::from(MOST_ITEMS))),
            "{limit}"
        );
    }
}
