//! How a registry says that it wants a login: `WWW-Authenticate` (RFC 9110 §11.6.1), and where tokens are then had
//! (distribution specification, "Token Authentication Specification").

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// Who gives tokens for a registry, as the registry says it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bearer {
    /// A URL.
    pub(super) realm: String,
    /// How the registry is called there.
    pub(super) service: Option<String>,
}

impl Bearer {
    /// Returns the first of the challenges of an answer that is about tokens and names a realm.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(WWW_AUTHENTICATE).into_iter();
        values.filter_map(|value| value.to_str().ok()).find_map(Self::read)
    }

    fn read(text: &str) -> Option<Self> {
        let mut found = None;
        let mut bearer = false;
        let (mut realm, mut service) = (None, None);
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            let (word, after) = token(rest);
            if word.is_empty() {
                break;
            }
            let behind = after.trim_start_matches([' ', '\t']);
            let Some(value) = behind.strip_prefix('=').filter(|_| !after.is_empty()) else {
                // A word without a value begins the next challenge.
                found = found.or_else(|| of(bearer, &mut realm, &mut service));
                (realm, service) = (None, None);
                bearer = word.eq_ignore_ascii_case("bearer");
                rest = after;
                continue;
            };
            let Some((value, after)) = value_of(value.trim_start_matches([' ', '\t'])) else {
                break;
            };
            match word.to_ascii_lowercase().as_str() {
                "realm" if bearer => realm = Some(value),
                "service" if bearer => service = Some(value),
                _ => {}
            }
            rest = after;
        }
        found.or_else(|| of(bearer, &mut realm, &mut service))
    }
}

fn of(bearer: bool, realm: &mut Option<String>, service: &mut Option<String>) -> Option<Bearer> {
    let realm = realm.take().filter(|_| bearer)?;
    Some(Bearer { realm, service: service.take() })
}

/// Splits off a token (RFC 9110 §5.6.2).
fn token(text: &str) -> (&str, &str) {
    let ends = |c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c));
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

/// Splits off a value: a token, or a text in quotes whose end has to be there.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = token(text);
        return (!value.is_empty()).then(|| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, quoted.get(at + 1..)?)),
            '\\' => value.push(letters.next()?.1),
            letter => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(String, Option<String>)> {
        Bearer::read(text).map(|bearer| (bearer.realm, bearer.service))
    }

    #[test]
    fn the_realm_and_the_service_of_tokens_are_found_among_other_challenges() {
        let expected = |service: Option<&str>| {
            Some(("https://auth.example/token".to_owned(), service.map(str::to_owned)))
        };
        for (text, service) in [
            (r#"Bearer realm="https://auth.example/token",service="registry""#, Some("registry")),
            (
                r#"bearer  Realm = "https://auth.example/token" , SERVICE=registry"#,
                Some("registry"),
            ),
            (r#"Bearer realm="https://auth.example/token",scope="repository:a:pull,push""#, None),
            (r#"Basic realm="x", Bearer realm="https://auth.example/token""#, None),
            (r#"Bearer realm="https:\/\/auth.example/token", Basic realm="y", service="z""#, None),
            (r#"Negotiate, Bearer realm="https://auth.example/token""#, None),
        ] {
            assert_eq!(read(text), expected(service), "{text}");
        }
    }

    #[test]
    fn what_names_no_realm_for_tokens_is_no_challenge_for_them() {
        for text in [
            "",
            "Bearer",
            r#"Basic realm="https://auth.example""#,
            r#"Bearer service="x""#,
            r#"Bearer realm="https://auth.example"#,
            r#"Bearer realm=""#,
            r#"Bearer realm="\"#,
            "Bearer realm=",
            "Bearer realm=,",
            "\"",
            ",,,",
            "é",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
