//! The settings of apt (apt.conf(5)), as `apt-config dump` would list them: `A { B { C "x"; }; };` is `A::B::C "x";`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Files are small; this bounds what a wrong one costs.
const MAX_FILE: u64 = 1 << 20;
const MAX_DEPTH: usize = 32;

/// The settings of this host: the last one of a name counts.
#[derive(Debug, Default)]
pub(crate) struct AptSettings(Vec<(String, String)>);

impl AptSettings {
    /// Reads `apt.conf.d` and `apt.conf` of a directory such as `/etc/apt`, in apt's order.
    ///
    /// # Errors
    ///
    /// Fails with the file that is there and cannot be read.
    pub(crate) fn read(dir: &Path) -> Result<Self, (PathBuf, io::Error)> {
        let mut files = Vec::new();
        let parts = dir.join("apt.conf.d");
        match fs::read_dir(&parts) {
            Ok(entries) => {
                for entry in entries {
                    let path = entry.map_err(|error| (parts.clone(), error))?.path();
                    if is_part(&path) {
                        files.push(path);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err((parts, error)),
        }
        files.sort();
        files.push(dir.join("apt.conf"));
        let mut settings = Self::default();
        for path in files {
            match fs::metadata(&path).and_then(|meta| match meta.len() > MAX_FILE {
                true => Err(io::Error::other("it is larger than 1 MiB")),
                false => fs::read(&path),
            }) {
                Ok(bytes) => settings.add(&String::from_utf8_lossy(&bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err((path, error)),
            }
        }
        Ok(settings)
    }

    /// Returns a setting, such as `Acquire::http::Proxy`. Names match in any case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Returns the settings directly below a name, with the rest of their own.
    pub(crate) fn below(&self, name: &str) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(move |(known, value)| {
            let (scope, rest) = (known.get(..name.len())?, known.get(name.len()..)?);
            let rest = rest.strip_prefix("::").filter(|rest| !rest.is_empty())?;
            scope.eq_ignore_ascii_case(name).then_some((rest, value.as_str()))
        })
    }

    /// Adds the settings of one file. What apt would refuse is skipped to the next `;`.
    fn add(&mut self, text: &str) {
        let mut scopes: Vec<String> = Vec::new();
        let mut words: Vec<String> = Vec::new();
        for token in Tokens(text) {
            match token {
                Token::Word(word) => words.push(word),
                Token::Open => {
                    // Far deeper than any real file: its braces still have to pair.
                    let name = words.first().filter(|_| scopes.len() < MAX_DEPTH);
                    let scope = join(&scopes, name.map_or("", String::as_str));
                    scopes.push(scope);
                    words.clear();
                }
                Token::Close => {
                    self.set(&scopes, &mut words);
                    scopes.pop();
                }
                Token::End => self.set(&scopes, &mut words),
            }
        }
    }

    fn set(&mut self, scopes: &[String], words: &mut Vec<String>) {
        match words.as_slice() {
            [directive, name] if directive == "#clear" => {
                let name = join(scopes, name);
                self.0.retain(|(known, _)| {
                    let rest = known.get(name.len()..).unwrap_or("x");
                    let below = rest.is_empty() || rest.starts_with("::");
                    !(below && known[..name.len()].eq_ignore_ascii_case(&name))
                });
            }
            [name, value] => self.0.push((join(scopes, name), value.clone())),
            _ => {}
        }
        words.clear();
    }
}

fn join(scopes: &[String], name: &str) -> String {
    match scopes.last().filter(|scope| !scope.is_empty()) {
        Some(scope) if name.is_empty() => scope.clone(),
        Some(scope) => format!("{scope}::{name}"),
        None => name.to_owned(),
    }
}

/// Returns whether apt reads a file of `apt.conf.d`: only certain characters, and no extension but `conf`.
fn is_part(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let extension = path.extension();
    name.chars().all(plain)
        && !name.starts_with('.')
        && extension.is_none_or(|extension| extension == "conf")
        && path.is_file()
}

enum Token {
    Word(String),
    Open,
    Close,
    End,
}

/// Cuts a text into words, braces and semicolons, without comments.
struct Tokens<'a>(&'a str);

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            self.0 = self.0.trim_start();
            let text = self.0;
            let directive = ["#clear", "#include"].iter().any(|it| text.starts_with(it));
            if text.starts_with("//") || (text.starts_with('#') && !directive) {
                self.0 = text.find('\n').map_or("", |end| &text[end..]);
            } else if let Some(rest) = text.strip_prefix("/*") {
                self.0 = rest.find("*/").map_or("", |end| &rest[end + 2..]);
            } else {
                break;
            }
        }
        let text = self.0;
        let mut chars = text.chars();
        let (token, used) = match chars.next()? {
            '{' => (Token::Open, 1),
            '}' => (Token::Close, 1),
            ';' => (Token::End, 1),
            '"' => {
                let inside = &text[1..];
                let end = inside.find('"').unwrap_or(inside.len());
                (Token::Word(inside[..end].to_owned()), (end + 2).min(text.len()))
            }
            _ => {
                let ends = |c: char| c.is_whitespace() || matches!(c, '{' | '}' | ';' | '"');
                let end = text.find(ends).unwrap_or(text.len());
                (Token::Word(text[..end].to_owned()), end)
            }
        };
        self.0 = &text[used..];
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> AptSettings {
        let mut settings = AptSettings::default();
        settings.add(text);
        settings
    }

    #[test]
    fn nested_and_flat_forms_are_the_same() {
        for text in [
            "Acquire::http::Proxy \"http://p:1/\";",
            "Acquire { http { Proxy \"http://p:1/\"; }; };",
            "acquire{HTTP::proxy http://p:1/}",
            "// Acquire::http::Proxy \"no\";\n/* ; { */ Acquire::http {\n# x\nTimeout 5;\nProxy \"http://p:1/\"\n}",
            "Acquire::http::Proxy \"old\"; Acquire::http::Proxy \"http://p:1/\";",
            "#clear Acquire;\n{};};Acquire::http::Proxy \"http://p:1/\"; APT { x",
        ] {
            assert_eq!(settings(text).get("Acquire::http::Proxy"), Some("http://p:1/"), "{text}");
        }
        let cleared =
            "Acquire { http { Proxy \"x\"; }; https { Proxy \"y\"; }; };\n#clear Acquire::http;";
        assert_eq!(settings(cleared).get("Acquire::http::Proxy"), None);
        assert_eq!(settings(cleared).get("Acquire::https::Proxy"), Some("y"));
    }

    #[test]
    fn what_is_said_for_one_host_is_below_the_setting() {
        let text = "Acquire::http { Proxy \"p\"; Proxy::mirror.example \"DIRECT\"; Proxy-Auto-Detect \"x\"; };";
        let found = settings(text);
        let below: Vec<_> = found.below("Acquire::http::Proxy").collect();
        assert_eq!(below, [("mirror.example", "DIRECT")]);
        assert_eq!(found.get("Acquire::http::Proxy"), Some("p"));
    }

    #[test]
    fn broken_files_end_and_backups_are_not_read() {
        for text in ["\"", "/*", "{{{{", "}}}}", "a \"b", "#include /x;", "é\"é{é;é}", "#clear é;"]
        {
            settings(text);
        }
        settings(&"a{".repeat(100_000));
        let dir = tempfile::tempdir().unwrap();
        let parts = dir.path().join("apt.conf.d");
        fs::create_dir(&parts).unwrap();
        for (name, value) in [("10x", "a"), ("20x.conf", "b"), ("30x.bak", "c"), ("40x~", "d")] {
            fs::write(parts.join(name), format!("X::Y \"{value}\";")).unwrap();
        }
        assert_eq!(AptSettings::read(dir.path()).unwrap().get("X::Y"), Some("b"));
        fs::write(dir.path().join("apt.conf"), "X { Y \"e\"; };").unwrap();
        assert_eq!(AptSettings::read(dir.path()).unwrap().get("X::Y"), Some("e"));
    }
}
