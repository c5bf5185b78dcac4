//! The manual pages in docs/man are what `--help`, config/kiln.toml and the schemas in config/schema say. `KILN_UPDATE=1` writes them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::Cli;
use super::man_schema::FILES;

const CONFIG: &str = include_str!("../../../config/kiln.toml");
/// Options that every command has.
const EVERYWHERE: [&str; 1] = ["help"];

/// Returns every page by its name.
fn pages() -> BTreeMap<String, String> {
    let mut kiln = Cli::command();
    kiln.build();
    let mut pages = BTreeMap::new();
    pages.insert("kiln.1".to_owned(), first(&kiln));
    for noun in kiln.get_subcommands().filter(|it| it.get_name() != "help") {
        pages.insert(format!("kiln-{}.1", noun.get_name()), of_noun(noun));
    }
    pages.insert("kiln.toml.5".to_owned(), of_config(CONFIG));
    pages.extend(FILES.iter().map(|file| (format!("{}.5", file.name), file.page())));
    pages
}

fn rendered(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut text = Vec::new();
    write(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// A page has no version and no date, so that it changes only with what it says.
fn man(command: &Command, title: &str) -> Man {
    let command = command.clone().mut_args(|arg| {
        let everywhere = EVERYWHERE.contains(&arg.get_id().as_str());
        if everywhere { arg.hide(true) } else { arg }
    });
    Man::new(command).title(title).source("Kiln").manual("Kiln")
}

fn first(kiln: &Command) -> String {
    let man = man(kiln, "kiln");
    let mut page = rendered(|out| {
        man.render_title(out)?;
        man.render_name_section(out)?;
        man.render_synopsis_section(out)?;
        man.render_description_section(out)
    });
    page.push_str(".SH COMMANDS\n");
    for noun in kiln.get_subcommands().filter(|it| it.get_name() != "help") {
        let about = noun.get_about().map(ToString::to_string).unwrap_or_default();
        let name = noun.get_name().replace('-', "\\-");
        let _ = writeln!(page, ".TP\n\\fBkiln\\-{name}\\fR(1)\n{}", escaped(&about));
    }
    page.push_str(&notes(kiln, &man));
    page.push_str(".SH \"SEE ALSO\"\n\\fBkiln.toml\\fR(5), \\fBkiln\\-image\\fR(5), \\fBkiln\\-inventory\\fR(5)\n");
    page
}

/// Returns what stands below the help, where there is something.
fn notes(command: &Command, man: &Man) -> String {
    if command.get_after_help().or_else(|| command.get_after_long_help()).is_none() {
        return String::new();
    }
    rendered(|out| man.render_extra_section(out)).replace(".SH EXTRA", ".SH NOTES")
}

fn of_noun(noun: &Command) -> String {
    let name = format!("kiln-{}", noun.get_name());
    let man = man(&noun.clone().name(&*name.clone().leak()), &name);
    let mut page = rendered(|out| {
        man.render_title(out)?;
        man.render_name_section(out)?;
        man.render_synopsis_section(out)?;
        man.render_description_section(out)?;
        if noun.get_arguments().any(|arg| !EVERYWHERE.contains(&arg.get_id().as_str())) {
            man.render_options_section(out)?;
        }
        Ok(())
    });
    page.push_str(&notes(noun, &man));
    verbs(noun, &format!("kiln {}", noun.get_name()), &mut page);
    page.push_str(".SH \"SEE ALSO\"\n\\fBkiln\\fR(1)\n");
    page
}

/// Puts a section for each verb, and for what is below it.
fn verbs(noun: &Command, path: &str, page: &mut String) {
    for verb in noun.get_subcommands().filter(|it| it.get_name() != "help") {
        let path = format!("{path} {}", verb.get_name());
        let man = man(verb, &path);
        let _ = writeln!(page, ".SH \"{}\"", path.to_uppercase());
        let body = rendered(|out| {
            man.render_synopsis_section(out)?;
            man.render_description_section(out)?;
            man.render_options_section(out)
        }) + &notes(verb, &man);
        for line in body.lines() {
            // What is a section of a page of its own is a paragraph here.
            let begins = line.starts_with(".SH ");
            page.push_str(if begins { ".PP" } else { line });
            page.push('\n');
        }
        verbs(verb, &path, page);
    }
}

pub(super) fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('-', "\\-");
    let line = |line: &str| match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}"),
        false => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Returns the key of a line that sets one, or shows how.
fn key(line: &str) -> Option<(&str, &str)> {
    let line = line.strip_prefix("# ").unwrap_or(line);
    let (key, value) = line.split_once(" = ")?;
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (!key.is_empty() && key.chars().all(word)).then_some((key, value))
}

/// Returns the section that a line begins, or shows how to.
fn section(line: &str) -> Option<&str> {
    let line = line.strip_prefix("# ").unwrap_or(line);
    (line.starts_with('[') && line.ends_with(']') && !line.contains(' ')).then_some(line)
}

/// Makes the page of the settings of what explains them.
fn of_config(config: &str) -> String {
    let mut page = ".TH kiln.toml 5 \"\" \"Kiln\" \"Kiln\"\n.SH NAME\nkiln.toml \\- settings of kiln serve\n.SH DESCRIPTION\n".to_owned();
    let mut said: Vec<&str> = Vec::new();
    let mut begun = false;
    for line in config.lines() {
        if let Some(section) = section(line) {
            let _ = writeln!(page, ".SH \"{}\"", escaped(section));
            begun = true;
            flush(&mut said, &mut page);
        } else if let Some((key, value)) = key(line) {
            let _ = writeln!(page, ".TP\n\\fB{}\\fR = {}", escaped(key), escaped(value));
            flush(&mut said, &mut page);
        } else if let Some(text) = line.strip_prefix('#') {
            said.push(text.trim());
        } else if line.is_empty() && !begun {
            flush(&mut said, &mut page);
        }
    }
    if !said.is_empty() {
        page.push_str(".PP\n");
        flush(&mut said, &mut page);
    }
    page.push_str(".SH \"SEE ALSO\"\n\\fBkiln\\-serve\\fR(1), \\fBkiln\\-config\\fR(1)\n");
    page
}

fn flush(said: &mut Vec<&str>, page: &mut String) {
    for line in said.drain(..) {
        page.push_str(&escaped(line));
        page.push('\n');
    }
}

#[test]
fn the_manual_pages_say_what_the_command_line_and_the_settings_say() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/man");
    let pages = pages();
    if std::env::var_os("KILN_UPDATE").is_some() {
        std::fs::create_dir_all(&dir).unwrap();
        for entry in std::fs::read_dir(&dir).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        for (name, page) in &pages {
            std::fs::write(dir.join(name), page).unwrap();
        }
    }
    let update = "run `KILN_UPDATE=1 cargo test -p kiln --lib cli::man_tests` and commit docs/man";
    for (name, page) in &pages {
        let kept = std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        assert!(kept == *page, "docs/man/{name} says something else; {update}");
    }
    let kept = std::fs::read_dir(&dir).unwrap().count();
    assert_eq!(kept, pages.len(), "docs/man has pages of nothing; {update}");
}

#[test]
fn every_key_of_the_settings_is_in_their_page() {
    let page = of_config(CONFIG);
    let mut keys = 0;
    for line in CONFIG.lines() {
        if let Some((key, _)) = key(line) {
            assert!(page.contains(&format!("\\fB{}\\fR = ", escaped(key))), "{key}");
            keys += 1;
        }
        if let Some(section) = section(line) {
            assert!(page.contains(&format!(".SH \"{}\"", escaped(section))), "{section}");
        }
    }
    assert!(keys > 60, "{keys}");
}

#[test]
fn no_page_names_a_version() {
    for (name, page) in pages() {
        assert!(!page.contains(env!("CARGO_PKG_VERSION")), "{name}");
    }
}
