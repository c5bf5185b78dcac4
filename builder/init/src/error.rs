//! What can stop the boot, and how errors are written on the console.

use std::error::Error;
use std::path::PathBuf;

/// A fault without which the machine cannot come up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error("mount {kind} on {}", target.display())]
    Mount { kind: String, target: PathBuf, source: nix::Error },
    #[error("make the directory {}", path.display())]
    MakeDirectory { path: PathBuf, source: std::io::Error },
    #[error("enter the new root directory")]
    EnterRoot(#[source] nix::Error),
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("understand {}", path.display())]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("start the {0} thread")]
    StartThread(&'static str, #[source] std::io::Error),
    #[error("arrange how signals arrive")]
    Signals(#[source] nix::Error),
}

/// Writes an error and its causes on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // Some libraries repeat the cause in their own text.
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_written_with_its_causes_on_one_line() {
        let error = BootError::EnterRoot(nix::Error::ENOENT);
        assert_eq!(
            chain(&error),
            "enter the new root directory: ENOENT: No such file or directory"
        );
    }
}
