//! Fills templates in, within bounds.

use std::io::{self, Write};

use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde_json::Value;

use super::{SECRETS, TemplateError};

/// The longest text that a template may make.
pub(super) const MAX_OUTPUT: usize = 1 << 20;
/// Steps that a template may take.
const FUEL: u64 = 200_000;

/// Fills one in.
pub(super) fn render(
    name: &str,
    text: &str,
    context: &Value,
    proven: bool,
) -> Result<String, TemplateError> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    // Texts go into YAML, JSON and shell alike: the template says how (`| tojson`).
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.add_filter("tojson", minijinja::filters::tojson);
    environment.add_filter("default", minijinja::filters::default);
    environment.add_filter("join", minijinja::filters::join);
    environment.add_filter("lower", minijinja::filters::lower);
    environment.add_filter("upper", minijinja::filters::upper);
    environment.add_filter("length", minijinja::filters::length);
    environment.add_filter("first", minijinja::filters::first);
    environment.add_filter("indent", minijinja::filters::indent);
    environment.add_test("defined", minijinja::tests::is_defined);
    let failed = |error: &minijinja::Error| TemplateError::Render {
        name: name.to_owned(),
        line: error.line().unwrap_or(0),
        message: error.detail().map_or_else(|| error.kind().to_string(), str::to_owned),
    };
    let template = environment.template_from_named_str(name, text).map_err(|e| failed(&e))?;
    let asks = !proven && template.undeclared_variables(false).contains(SECRETS);
    if asks {
        return Err(TemplateError::Secret(name.to_owned()));
    }
    let mut out = Bounded(Vec::new());
    match template.render_captured_to(minijinja::value::Serde(context), &mut out) {
        Ok(_) => {
            let mut made = String::from_utf8_lossy(&out.0).into_owned();
            // The engine takes the last end of a line for one of the template.
            if text.ends_with('\n') {
                made.push('\n');
            }
            Ok(made)
        }
        Err(_) if out.0.len() >= MAX_OUTPUT => Err(TemplateError::TooLong(name.to_owned())),
        Err(error) => Err(failed(&error)),
    }
}

/// Takes no more than [`MAX_OUTPUT`].
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = MAX_OUTPUT - self.0.len();
        let part = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        if part.is_empty() && !bytes.is_empty() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.0.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
