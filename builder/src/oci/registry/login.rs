//! Who to log in as: what the settings say, else what `docker login` and `podman login` have left.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;

use super::{RegistryError, RegistrySettings};

/// The largest file with logins.
const MAX_FILE: u64 = 1 << 20;
/// A helper is looked after so often, and may take so many looks: 10 s.
const LOOK: Duration = Duration::from_millis(20);
const LOOKS: u32 = 500;

/// Docker's `config.json`, and `auth.json` of Podman and Skopeo.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Logins {
    auths: HashMap<String, Login>,
    cred_helpers: HashMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Login {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    registrytoken: Option<String>,
}

/// The answer of a helper (docker-credential-helpers, `get`).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Secret {
    username: String,
    secret: String,
}

/// Finds who to log in as for a repository of a host.
pub(super) fn find(
    settings: Option<&RegistrySettings>,
    host: &str,
    repository: &str,
) -> Result<RegistryAuth, RegistryError> {
    if let Some((name, file)) =
        settings.and_then(|it| it.username.as_ref().zip(it.password_file.as_ref()))
    {
        let password = read(file)?;
        return Ok(RegistryAuth::Basic(
            name.clone(),
            password.trim_end_matches(['\r', '\n']).to_owned(),
        ));
    }
    for path in files(|name| std::env::var_os(name).map(PathBuf::from)) {
        if !path.is_file() {
            continue;
        }
        let text = read(&path)?;
        let logins: Logins = serde_json::from_str(&text).map_err(|error| RegistryError::File {
            path: path.clone(),
            problem: error.to_string(),
        })?;
        if let Some(auth) = logins.find(host, repository, &path)? {
            return Ok(auth);
        }
    }
    Ok(RegistryAuth::Anonymous)
}

fn read(path: &Path) -> Result<String, RegistryError> {
    let mut text = String::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
    read.map_err(|error| RegistryError::File {
        path: path.to_owned(),
        problem: error.to_string(),
    })?;
    Ok(text)
}

/// Returns where logins are kept: containers-auth.json(5), then Docker.
fn files(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    if let Some(file) = variable("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let home = variable("HOME");
    [
        variable("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
        home.as_ref().map(|home| home.join(".config/containers/auth.json")),
        variable("DOCKER_CONFIG")
            .or_else(|| home.map(|home| home.join(".docker")))
            .map(|dir| dir.join("config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl Logins {
    fn find(
        &self,
        host: &str,
        repository: &str,
        file: &Path,
    ) -> Result<Option<RegistryAuth>, RegistryError> {
        let helper =
            self.cred_helpers.iter().find(|(key, _)| same_host(key, host)).map(|(_, it)| it);
        if let Some(helper) = helper.or(self.creds_store.as_ref())
            && let Some(auth) = ask(helper, host, file)?
        {
            return Ok(Some(auth));
        }
        // Podman may keep one for each namespace: the longest that fits counts.
        let whole = format!("{host}/{repository}");
        let fits = |key: &str| {
            same_host(key, host) || whole.starts_with(&format!("{key}/")) || whole == key
        };
        let best = self.auths.iter().filter(|(key, _)| fits(key)).max_by_key(|(key, _)| key.len());
        let Some((_, login)) = best else { return Ok(None) };
        let wrong = |problem: &str| RegistryError::File {
            path: file.to_owned(),
            problem: problem.to_owned(),
        };
        if let Some(token) = &login.registrytoken {
            return Ok(Some(RegistryAuth::Bearer(token.clone())));
        }
        if let Some((name, password)) = login.username.clone().zip(login.password.clone()) {
            return Ok(Some(RegistryAuth::Basic(name, password)));
        }
        let Some(auth) = login.auth.as_deref().filter(|auth| !auth.is_empty()) else {
            return Ok(None);
        };
        let bytes =
            STANDARD.decode(auth.trim()).map_err(|_| wrong("an `auth` in it is not base64"))?;
        let text = String::from_utf8(bytes).map_err(|_| wrong("an `auth` in it is not UTF-8"))?;
        let (name, password) =
            text.split_once(':').ok_or_else(|| wrong("an `auth` in it has no `:`"))?;
        Ok(Some(RegistryAuth::Basic(name.to_owned(), password.trim_end_matches('\0').to_owned())))
    }
}

/// Docker writes some keys as addresses of its old interface, with `index.` in front of the host.
fn same_host(key: &str, host: &str) -> bool {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
    key == host || key.strip_prefix("index.") == Some(host)
}

/// Asks a helper. One that is missing or knows nothing is no obstacle: the registry may need no login.
fn ask(helper: &str, host: &str, file: &Path) -> Result<Option<RegistryAuth>, RegistryError> {
    let wrong = |problem: String| RegistryError::File { path: file.to_owned(), problem };
    if helper.is_empty() || helper.contains('/') {
        return Err(wrong(format!("`{helper}` is not the name of a credential helper")));
    }
    let program = format!("docker-credential-{helper}");
    let child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            tracing::warn!(program, %error, "credential helper cannot be run");
            return Ok(None);
        }
    };
    if let Some(mut input) = child.stdin.take() {
        let _ = input.write_all(host.as_bytes());
    }
    let mut looks = 0;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if looks < LOOKS => std::thread::sleep(LOOK),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(wrong(format!("{program} does not answer within 10 s")));
            }
        }
        looks += 1;
    };
    let mut text = String::new();
    if let Some(output) = child.stdout.take() {
        let _ = output.take(MAX_FILE).read_to_string(&mut text);
    }
    if !status.success() {
        return Ok(None);
    }
    let secret: Secret =
        serde_json::from_str(&text).map_err(|_| wrong(format!("{program} answers no JSON")))?;
    Ok(Some(match secret.username.as_str() {
        "<token>" => RegistryAuth::Bearer(secret.secret),
        _ => RegistryAuth::Basic(secret.username, secret.secret),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logins(text: &str) -> Logins {
        serde_json::from_str(text).unwrap()
    }

    fn basic(name: &str, password: &str) -> Option<RegistryAuth> {
        Some(RegistryAuth::Basic(name.to_owned(), password.to_owned()))
    }

    #[test]
    fn a_login_is_found_by_host_or_by_the_longest_namespace() {
        let a = STANDARD.encode("a:secret:with:colons");
        let logins = logins(&format!(
            r#"{{"auths":{{"registry.example":{{"auth":"{a}"}},"registry.example/team":{{"username":"b","password":"p"}},
               "https://index.other.example/v1/":{{"registrytoken":"t"}},"empty.example":{{}}}}}}"#
        ));
        let find = |host, repository| logins.find(host, repository, Path::new("x")).unwrap();
        assert_eq!(find("registry.example", "x/y"), basic("a", "secret:with:colons"));
        assert_eq!(find("registry.example", "team/y"), basic("b", "p"));
        assert_eq!(find("registry.example", "teams/y"), basic("a", "secret:with:colons"));
        assert_eq!(find("other.example", "y"), Some(RegistryAuth::Bearer("t".to_owned())));
        assert_eq!(find("empty.example", "y"), None);
        assert_eq!(find("nowhere.example", "y"), None);
    }

    #[test]
    fn a_broken_login_is_told_with_its_file_and_never_with_its_contents() {
        for auth in ["!!", "aGVsbG8="] {
            let logins = logins(&format!(r#"{{"auths":{{"h.example":{{"auth":"{auth}"}}}}}}"#));
            let error =
                logins.find("h.example", "y", Path::new("/x/config.json")).unwrap_err().to_string();
            assert!(error.starts_with("cannot use /x/config.json: an `auth` in it"), "{error}");
            assert!(!error.contains(auth), "{error}");
        }
        let logins = logins(r#"{"credsStore":"../bin/sh"}"#);
        assert!(logins.find("h.example", "y", Path::new("x")).is_err());
    }

    #[test]
    fn the_file_that_is_named_is_the_only_one_that_is_read() {
        let variable = |known: &'static [(&str, &str)]| {
            move |name: &str| {
                known.iter().find(|(key, _)| *key == name).map(|(_, it)| PathBuf::from(it))
            }
        };
        let named = variable(&[("REGISTRY_AUTH_FILE", "/a"), ("HOME", "/h")]);
        assert_eq!(files(named), [PathBuf::from("/a")]);
        let home = variable(&[("HOME", "/h"), ("DOCKER_CONFIG", "/d")]);
        let expected = ["/h/.config/containers/auth.json", "/d/config.json"].map(PathBuf::from);
        assert_eq!(files(home), expected);
    }
}
