//! Secrets that are put in everywhere do not come out.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::*;

const TOKEN: &str = "kiln_0123456789abcdefTOKENtoken";
const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$HASHhash";
const KEY: &str =
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIKEYkey\n-----END PRIVATE KEY-----";
const METADATA: &str = "metadata-SECRETsecret";
const PASSWORD: &str = "PASSWORDpassword";
const ALL: [&str; 5] = [TOKEN, HASH, "KEYkey", METADATA, PASSWORD];

fn config() -> String {
    format!(
        r#"
[server]
data-dir = "/var/lib/kiln"
[inventory]
database = "postgres://kiln:{PASSWORD}@db/kiln"
keep-boots = "9d"
[loaders]
sign-command = "sign --pin {PASSWORD}"
[debian]
mirror = "http://me:{PASSWORD}@mirror/debian"
[webhook]
secret = "{TOKEN}"
[[registry]]
host = "registry.example"
username = "{TOKEN}"
password-file = "{HASH}"
[[subnet]]
network = "10.0.0.0/24"
options = {{ 252 = "text:{METADATA}" }}
"#
    )
}

#[test]
fn nothing_that_is_not_listed_is_in_what_is_shown() {
    let boots = json!([{"id": 7, "machine_name": "n1", "token": TOKEN, "outcome": "failed",
        "verdict": {"cause": "onboot", "reason": METADATA, "log": [KEY]}, "events": [{"detail": HASH}]}]);
    let change = json!({"id": 3, "actor": "token ci", "noun": "machine", "name": "n1", "verb": "change", "hash": HASH,
        "before": {"metadata": {"secrets": {"a": METADATA}}, "cmdline": PASSWORD}, "after": {"metadata": {}, "key": KEY}});
    let finding = json!([{"check": "database", "found": format!("postgres://a:{PASSWORD}@b"), "extra": TOKEN}]);
    let steps = json!([{"name": "init", "from": 1, "detail": METADATA}]);
    let shown = [
        allow::settings(&config()).to_string(),
        allow::list(&boots, allow::BOOT).to_string(),
        allow::change(&change).to_string(),
        allow::list(&finding, allow::FINDING).to_string(),
        allow::list(&steps, allow::STEP).to_string(),
        allow::lines(&format!("ok\ndatabase postgres://a:{PASSWORD}@b\n")),
    ];
    for text in &shown {
        assert!(ALL.iter().all(|secret| !text.contains(secret)), "{text}");
    }
    assert!(
        shown[0].contains(r#""keep-boots":"9d""#) && shown[0].contains(r#""secret":"(left out)""#)
    );
    assert!(shown[1].contains(r#""cause":"onboot""#));
    assert!(shown[2].contains(r#""fields":["cmdline","key","metadata"]"#), "{}", shown[2]);
    assert_eq!(allow::settings("not = toml ="), Value::Null);
}

#[tokio::test]
async fn an_archive_is_whole_private_and_without_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let config_path = dir.path().join("kiln.toml");
    fs::write(&config_path, config()).unwrap();
    let client = Client::Here(dir.path().join("no.sock"));
    let parts = gather(&config_path, &client).await.unwrap();
    let path = dir.path().join("out.tar.gz");
    fs::write(&path, "what was there").unwrap();
    write(&path, &parts).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let packed = File::open(&path).unwrap();
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    for secret in ALL {
        assert!(!text.contains(secret), "{secret}");
    }
    for part in ["version.json", "settings.json", "inventory.json", "missing.txt"] {
        assert!(text.contains(&format!("{FOLDER}/{part}")), "{part}");
    }
    assert!(text.contains("boots: no server at"), "it says what is missing");
    let left = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 2, "no part of it is left behind");
    assert!(write(Path::new("/nowhere/at/all.tar.gz"), &parts).is_err());
}
