//! Where templates are.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use kiln_types::ImageRef;

use super::Document;

/// The longest template that is read.
const MAX_TEMPLATE: u64 = 256 << 10;

/// A document cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The file cannot be read.
    #[error("cannot read the template {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// The file is no text, or too long for a template.
    #[error("the template {} is no UTF-8 text of at most {} KiB", .0.display(), MAX_TEMPLATE >> 10)]
    NoText(PathBuf),
    /// The template asks for secrets, and the asker has proved nothing.
    #[error(
        "template {0} has secrets of the machine, which are given for the token of its boot only"
    )]
    Secret(String),
    /// The template cannot be filled in.
    #[error("template {name}, line {line}: {message}")]
    Render {
        /// The template.
        name: String,
        /// Where in it.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// What was made is too long.
    #[error("template {0} makes more than {max} KiB", max = super::render::MAX_OUTPUT >> 10)]
    TooLong(String),
    /// Ignition reads JSON only.
    #[error("template {name} makes no JSON")]
    NotJson {
        /// The template.
        name: String,
        /// Where it is none.
        #[source]
        source: serde_json::Error,
    },
}

/// Returns the template for a machine and what it is called: its own, the one of its image, or the one of all.
pub(super) fn template(
    dir: &Path,
    document: Document,
    machine: &str,
    image: Option<&ImageRef>,
) -> Result<Option<(String, String)>, TemplateError> {
    let name = document.template();
    let own = Path::new("machines").join(machine).join(name);
    let image = image.map(|image| Path::new("images").join(image.name()).join(name));
    for path in [Some(own), image, Some(name.into())].into_iter().flatten() {
        if let Some(text) = read(&dir.join(&path))? {
            return Ok(Some((path.display().to_string(), text)));
        }
    }
    Ok(None)
}

fn read(path: &Path) -> Result<Option<String>, TemplateError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TemplateError::Read(path.to_owned(), error)),
    };
    let mut bytes = Vec::new();
    let mut limited = file.take(MAX_TEMPLATE + 1);
    limited.read_to_end(&mut bytes).map_err(|e| TemplateError::Read(path.to_owned(), e))?;
    let text = String::from_utf8(bytes).ok();
    match text.filter(|text| text.len() as u64 <= MAX_TEMPLATE) {
        Some(text) => Ok(Some(text)),
        None => Err(TemplateError::NoText(path.to_owned())),
    }
}
