//! Machines as a table of commas: `kiln machine import --csv` and `kiln export -o csv`.

use std::collections::{BTreeMap, BTreeSet};

use kiln_builder::spec::Place;
use kiln_inventory::NewMachine;
use serde_json::{Map, Value, json};

use super::Described;

/// Columns that hold one text each, as the fields of a machine are called.
const TEXTS: [&str; 14] = [
    "name",
    "uuid",
    "serial",
    "asset-tag",
    "arch",
    "image",
    "maintenance-image",
    "address",
    "address6",
    "client-id",
    "circuit-id",
    "cmdline",
    "loader",
    "boot",
];
/// Columns that hold several, with blanks between them.
const LISTS: [&str; 2] = ["macs", "flags"];
/// What labels begin with.
const LABELS: &str = "labels.";
/// The most machines of a table.
const MOST: usize = 100_000;

/// Reads a table over the machines that there are: its first line says what the columns are, and what has no column stays.
/// An empty cell takes away what was there.
///
/// # Errors
///
/// Names the line, and what is wrong there.
pub fn read_table(name: &str, text: &str, now: &[NewMachine]) -> Result<Described, String> {
    let mut all = Described::default();
    for (machine, line) in read(text, now)? {
        let lines_before = usize::try_from(line).unwrap_or(1).saturating_sub(1);
        all.machines.push(Place::behind(name, &"\n".repeat(lines_before)));
        all.wanted.machines.push(machine);
    }
    Ok(all)
}

/// Reads the machines of a table, and the line of each.
fn read(text: &str, now: &[NewMachine]) -> Result<Vec<(NewMachine, u64)>, String> {
    let known: BTreeMap<&str, &NewMachine> =
        now.iter().map(|machine| (machine.name.as_str(), machine)).collect();
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let headers = reader.headers().map_err(|error| said(&error))?.clone();
    let mut columns = BTreeSet::new();
    for header in &headers {
        let label = header.strip_prefix(LABELS).is_some_and(kiln_inventory::is_label);
        if !label && !TEXTS.contains(&header) && !LISTS.contains(&header) {
            let shown: String = header.escape_debug().take(60).collect();
            let hint = "use name, macs, image, address, labels.KEY and other fields of a machine";
            return Err(format!("line 1: no column is called `{shown}`; {hint}"));
        }
        if !columns.insert(header.to_owned()) {
            return Err(format!("line 1: the column `{header}` is there twice"));
        }
    }
    if !columns.contains("name") {
        return Err(
            "line 1: there is no column `name`; the first line names the columns".to_owned()
        );
    }
    let mut machines = Vec::new();
    for row in reader.records() {
        let row = row.map_err(|error| said(&error))?;
        let line = row.position().map_or(0, csv::Position::line);
        let wrong = |what: &str| format!("line {line}: {what}");
        if machines.len() >= MOST {
            return Err(wrong("there are too many machines"));
        }
        let at = headers.iter().position(|header| header == "name");
        let name = at.and_then(|at| row.get(at)).unwrap_or_default();
        if name.is_empty() {
            return Err(wrong("the machine has no name"));
        }
        let there = known.get(name).and_then(|machine| serde_json::to_value(machine).ok());
        let mut machine = match there {
            Some(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        for (header, cell) in headers.iter().zip(&row) {
            if cell.chars().any(char::is_control) {
                return Err(wrong(&format!("there is a control character in `{header}`")));
            }
            set(&mut machine, header, cell);
        }
        machine.entry("macs").or_insert_with(|| json!([]));
        let machine = serde_json::from_value(Value::Object(machine));
        machines.push((machine.map_err(|error| wrong(&error.to_string()))?, line));
    }
    Ok(machines)
}

fn set(machine: &mut Map<String, Value>, header: &str, cell: &str) {
    let (fields, key) = match header.strip_prefix(LABELS) {
        None => (machine, header),
        Some(key) => {
            let labels = machine.entry("labels").or_insert_with(|| json!({}));
            let Value::Object(labels) = labels else { return };
            (labels, key)
        }
    };
    if cell.is_empty() {
        fields.remove(key);
    } else if LISTS.contains(&header) {
        let all: Vec<&str> = cell.split_whitespace().collect();
        fields.insert(key.to_owned(), json!(all));
    } else {
        fields.insert(key.to_owned(), cell.into());
    }
}

fn said(error: &csv::Error) -> String {
    let line = error.position().map_or(0, csv::Position::line);
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!(
                "line {line}: there are {len} cells and not {expected_len}, as the first line has"
            )
        }
        csv::ErrorKind::Utf8 { .. } => format!("line {line}: it is not UTF-8"),
        _ => error.to_string(),
    }
}

/// Writes machines as a table that reads as the same ones, but for what has no column: metadata, DHCP options, the disk
/// for state and `unset`.
///
/// # Errors
///
/// When it cannot be written.
pub(super) fn write(machines: &[NewMachine]) -> anyhow::Result<String> {
    let rows: Vec<Map<String, Value>> = machines
        .iter()
        .filter_map(|machine| serde_json::to_value(machine).ok()?.as_object().cloned())
        .collect();
    let labels: BTreeSet<&String> = machines.iter().flat_map(|it| it.labels.keys()).collect();
    let used = |column: &&str| rows.iter().any(|row| row.contains_key(*column));
    let fields = ["name", "macs"].into_iter();
    let fields = fields.chain(TEXTS.into_iter().skip(1).filter(used));
    let fields: Vec<&str> = fields.chain(["flags"].into_iter().filter(used)).collect();
    let mut writer = csv::Writer::from_writer(Vec::new());
    let own = fields.iter().map(|field| (*field).to_owned());
    writer.write_record(own.chain(labels.iter().map(|key| format!("{LABELS}{key}"))))?;
    for (row, machine) in rows.iter().zip(machines) {
        let own = fields.iter().map(|field| match row.get(*field) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(list)) => {
                list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
            }
            _ => String::new(),
        });
        let labels = labels.iter().map(|key| machine.labels.get(*key).cloned().unwrap_or_default());
        writer.write_record(own.chain(labels))?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machines(text: &str, now: &[NewMachine]) -> Vec<NewMachine> {
        read_table("t.csv", text, now).unwrap().wanted.machines
    }

    const TABLE: &str = "\
name,macs,image,labels.rack,cmdline
n1,52:54:00:00:00:01 52:54:00:00:00:02,web:stable,r1,\"console=ttyS0,115200 quiet\"
n2, 52:54:00:00:00:03 ,,,
";

    #[test]
    fn a_table_is_read_and_written_alike() {
        let all = machines(TABLE, &[]);
        assert_eq!(all[0].macs.len(), 2);
        assert_eq!(all[0].cmdline, "console=ttyS0,115200 quiet");
        assert_eq!((all[0].labels["rack"].as_str(), all[1].labels.len()), ("r1", 0));
        let placed = read_table("t.csv", TABLE, &[]).unwrap();
        assert_eq!(placed.place("/files/machines/1").unwrap().to_string(), "t.csv:3:1");
        let text = write(&all).unwrap();
        assert!(text.starts_with("name,macs,image,cmdline,labels.rack\n"), "{text}");
        assert_eq!(machines(&text, &[]), all);
        assert_eq!(machines(&write(&[]).unwrap(), &[]), []);
    }

    #[test]
    fn what_has_no_column_stays_and_an_empty_cell_takes_away() {
        let mut now = machines(TABLE, &[]);
        now[0].metadata.insert("role".to_owned(), "db".into());
        let some = machines("name,image,labels.rack\nn1,,r2\n", &now);
        assert_eq!((some[0].macs.len(), &some[0].image), (2, &None));
        assert_eq!((some[0].labels["rack"].as_str(), some[0].metadata.len()), ("r2", 1));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, message) in [
            ("", "line 1: there is no column `name`"),
            ("mac,name\n", "no column is called `mac`"),
            ("name,name\n", "there twice"),
            ("name,labels.a b\n", "no column is called"),
            ("name,macs\nn1\n", "line 2: there are 1 cells and not 2"),
            ("name,macs\nn1,52:54:00:00:00:01\n,\n", "line 3: the machine has no name"),
            ("name,macs\nn1,x\n", "line 2: "),
            ("name,cmdline\nn1,a\u{1b}b\n", "line 2: there is a control character in `cmdline`"),
            ("name,cmdline\nn1,\"a\nb\"\n", "line 2: there is a control character"),
        ] {
            let error = read(text, &[]).unwrap_err();
            assert!(error.contains(message), "{text:?}: {error}");
        }
    }

    #[test]
    fn fuzzed_tables_are_read_or_refused() {
        kiln_fuzz::check("machines-csv", &[TABLE.as_bytes()], |bytes| {
            let _ = read_table("t.csv", &String::from_utf8_lossy(bytes), &[]);
        });
    }
}
