//! Asks before something is done that cannot be taken back.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::anyhow;
use clap::Args;

use super::Failure;
use super::table::plain;

/// So many names are said before it is only told how many more there are.
const NAMED: usize = 5;

/// Whether to ask first.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(super) struct Sure {
    /// Do not ask whether to do it
    #[arg(short, long)]
    pub(super) yes: bool,
}

impl Sure {
    /// Asks the person at the terminal; where there is none, only `--yes` counts.
    pub(super) fn ask(self, question: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            return Err(Failure::new(Failure::USAGE, anyhow!("{question} Say so with --yes")));
        }
        eprint!("{question} [y/N] ");
        std::io::stderr().flush()?;
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        confirmed(&line)
    }
}

/// Returns whether an answer is yes.
fn confirmed(answer: &str) -> Result<(), Failure> {
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::new(Failure::USAGE, anyhow!("nothing was done"))),
    }
}

/// Names several things: all of them where they are few, or how many there are, and the first.
pub(super) fn named(names: &[String], noun: &str) -> String {
    let some = |names: &[String]| names.iter().map(|it| plain(it)).collect::<Vec<_>>().join(", ");
    match names.get(..NAMED) {
        Some(first) if names.len() > NAMED => {
            let (all, rest) = (names.len(), names.len() - NAMED);
            format!("{all} {noun} ({} and {rest} more)", some(first))
        }
        _ => some(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_no_has_another_exit_code_than_an_error() {
        for yes in ["y\n", "Y", " yes \n"] {
            assert!(confirmed(yes).is_ok(), "{yes}");
        }
        for no in ["n\n", "", "yesterday"] {
            assert_eq!(confirmed(no).unwrap_err().code(), Failure::USAGE, "{no}");
        }
    }

    #[test]
    fn it_is_said_what_will_happen_to_how_many() {
        let names = |count: usize| (1..=count).map(|n| format!("n{n}")).collect::<Vec<_>>();
        assert_eq!(named(&names(1), "machines"), "n1");
        assert_eq!(named(&names(5), "machines"), "n1, n2, n3, n4, n5");
        assert_eq!(named(&names(40), "machines"), "40 machines (n1, n2, n3, n4, n5 and 35 more)");
        assert_eq!(named(&["a\u{1b}[2J".to_owned()], "tokens"), "a[2J");
    }
}
