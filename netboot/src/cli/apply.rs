//! `kiln apply` and `kiln diff`.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::Args;
use kiln_inventory::Wanted;

use super::client::{Client, Refusal};
use super::confirm::{Sure, named};
use super::print::{self, How};
use super::table::plain;
use super::{ClientArgs, Failure, Output};
use crate::api::{AppliedChange, Apply, ApplyAnswer, FieldChange};
use crate::files::{Described, Format, gather, gather_text, source_of};

pub(super) const APPLY: &str = "/api/v1/apply";
pub(super) const TRY: &str = "/api/v1/apply?dry_run=true";

/// Make the inventory what files say, all of it or nothing
///
/// Reads machines and groups from YAML or TOML files (see docs/files.md), shows what changes, and changes it in one step.
/// Where anything is wrong, nothing is changed, and the place is named.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    files: FilesArgs,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    sure: Sure,
    #[command(flatten)]
    client: ClientArgs,
}

/// Show what `kiln apply` would change
///
/// The exit code is 0 when nothing would, 1 when something would, and another one where that cannot be told: 2, 5 for what
/// is taken already, 64 for files that are wrong.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 nothing differs, 1 something differs, 2 trouble, 5 taken already, 64 wrong files")]
pub struct DiffArgs {
    #[command(flatten)]
    files: FilesArgs,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
struct FilesArgs {
    /// Directory with .yaml, .yml and .toml files, one such file, or - for YAML or JSON from the standard input
    #[arg(short, long, value_name = "PATH")]
    file: PathBuf,
    /// Remove what an earlier apply of the same source described and these files do not
    #[arg(long)]
    prune: bool,
    /// Name under which it is remembered what these files describe; without one, the name of the directory or file
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

impl FilesArgs {
    fn read(&self) -> Result<Described, Failure> {
        let files = if self.file.as_os_str() == "-" {
            gather_text("standard input", Format::Yaml, std::io::stdin().lock()).map(|it| vec![it])
        } else {
            gather(&self.file)
        };
        let described = files.and_then(|files| Described::of(&files));
        described.map_err(|error| Failure::new(Failure::CONFIG, error))
    }

    fn body(&self, wanted: Wanted) -> Result<Apply, Failure> {
        let source = match &self.source {
            Some(name) => name.clone(),
            None => source_of(&self.file).context("give the files a name with --source")?,
        };
        Ok(Apply { source: Some(source), prune: self.prune, unless_after: None, files: wanted })
    }
}

pub(super) async fn apply(args: ApplyArgs) -> Result<(), Failure> {
    let described = args.files.read()?;
    let mut body = args.files.body(described.wanted.clone())?;
    let client = Client::new(&args.client);
    if args.dry_run {
        return report(&args.client, &send(&client, TRY, &body, &described).await?);
    }
    if body.prune && !args.sure.yes {
        let trial = send(&client, TRY, &body, &described).await?;
        confirm(&trial, args.sure)?;
        // Nothing but what was shown is done.
        body.unless_after = Some(trial.after);
    }
    report(&args.client, &send(&client, APPLY, &body, &described).await?)
}

pub(super) async fn diff(args: DiffArgs) -> Result<(), Failure> {
    let shown = async {
        let described = args.files.read()?;
        let body = args.files.body(described.wanted.clone())?;
        let answer = send(&Client::new(&args.client), TRY, &body, &described).await?;
        report(&args.client, &answer)?;
        Ok(answer.changes.len())
    };
    match shown.await.map_err(trouble)? {
        0 => Ok(()),
        1 => Err(anyhow!("one thing differs").into()),
        many => Err(anyhow!("{many} things differ").into()),
    }
}

/// Tells trouble from a difference, which has the code of other errors here, as with `diff`.
fn trouble(failure: Failure) -> Failure {
    match failure.code {
        1 => Failure { code: Failure::USAGE, ..failure },
        _ => failure,
    }
}

/// Sends what files say. What the server finds wrong is told by its place in the files.
pub(super) async fn send(
    client: &Client,
    path: &str,
    body: &Apply,
    described: &Described,
) -> Result<ApplyAnswer, Failure> {
    client.post(path, serde_json::to_vec(body)?).await.map_err(|failure| {
        let placed = match failure.refusal() {
            Some(Refusal(problem)) => {
                let place = problem.pointer.as_deref().and_then(|pointer| described.place(pointer));
                place.map(|place| anyhow!("{place}: {}", problem.detail))
            }
            None => None,
        };
        match placed {
            Some(error) => Failure::new(failure.code(), error),
            None => failure,
        }
    })
}

/// Asks whether to remove what would be removed.
fn confirm(trial: &ApplyAnswer, sure: Sure) -> Result<(), Failure> {
    let gone = trial.changes.iter().filter(|change| change.verb == "remove");
    let names: Vec<String> = gone.map(|it| format!("{} {}", it.noun, it.name)).collect();
    if names.is_empty() {
        return Ok(());
    }
    eprintln!("{}", text(trial, print::coloured()));
    sure.ask(&format!("This removes {}.", named(&names, "things")))
}

/// Prints what was done, or would be.
pub(super) fn report(how: impl Into<How>, answer: &ApplyAnswer) -> Result<(), Failure> {
    let how = how.into();
    if how.output == Output::Name {
        let names = answer.changes.iter().map(|it| format!("{}/{}", it.noun, plain(&it.name)));
        return print::say(&names.collect::<Vec<_>>().join("\n"));
    }
    print::one(how, "", answer, || text(answer, print::coloured()))
}

/// Writes for people what was done: what comes in green, what goes in red.
fn text(answer: &ApplyAnswer, coloured: bool) -> String {
    let paint = |colour: &str, text: String| {
        if coloured { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text }
    };
    let mut lines = Vec::new();
    let (mut added, mut changed, mut removed) = (0, 0, 0);
    for AppliedChange { noun, name, verb, diff } in &answer.changes {
        let (count, mark, colour) = match verb.as_str() {
            "add" => (&mut added, '+', "32"),
            "remove" => (&mut removed, '-', "31"),
            _ => (&mut changed, '~', "33"),
        };
        *count += 1;
        lines.push(paint(colour, format!("{mark} {noun} {}", plain(name))));
        for FieldChange { field, before, after } in diff {
            let field = plain(&field.trim_start_matches('/').replace('/', ".").replace("~1", "/"));
            if before.is_none() && after.is_none() {
                lines.push(paint("33", format!("    ~ {field} (secret)")));
            }
            for (mark, colour, value) in [('-', "31", before), ('+', "32", after)] {
                let Some(value) = value else { continue };
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                lines.push(paint(colour, format!("    {mark} {field}: {}", plain(&value))));
            }
        }
    }
    let would = if answer.dry_run { " would be" } else { "" };
    let summary = match (answer.changes.len(), answer.unchanged) {
        (0, same) => format!("nothing to change, {same} as they were"),
        (_, same) => {
            format!(
                "{added}{would} added, {changed} changed, {removed} removed, {same} as they were"
            )
        }
    };
    lines.push(summary);
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_changes_is_shown_field_by_field_and_summed_up() {
        let change = |verb: &str, diff| AppliedChange {
            noun: "machine".to_owned(),
            name: "n\u{1b}1".to_owned(),
            verb: verb.to_owned(),
            diff,
        };
        let fields = vec![
            FieldChange {
                field: "/image".into(),
                before: Some(json!("a")),
                after: Some(json!("b")),
            },
            FieldChange { field: "/labels/a~1b".into(), before: None, after: Some(json!(["x"])) },
            FieldChange { field: "/metadata/secrets".into(), before: None, after: None },
        ];
        let changes =
            vec![change("add", vec![]), change("change", fields), change("remove", vec![])];
        let mut answer = ApplyAnswer { dry_run: false, after: 1, unchanged: 40, changes };
        let plain = "\
+ machine n1
~ machine n1
    - image: a
    + image: b
    + labels.a/b: [\"x\"]
    ~ metadata.secrets (secret)
- machine n1
1 added, 1 changed, 1 removed, 40 as they were";
        assert_eq!(text(&answer, false), plain);
        assert!(text(&answer, true).contains("\u{1b}[31m- machine n1\u{1b}[0m"));
        answer.changes.clear();
        assert_eq!(text(&answer, false), "nothing to change, 40 as they were");
    }
}
