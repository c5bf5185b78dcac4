//! Who is told secrets: the system that a machine boots, and nobody who knows no more than a MAC.

use hyper::StatusCode;
use kiln_inventory::{NewMachine, Phase, Verb};

use super::tests::{Answer, Rig};
use crate::secrets::OwnerKind;

const SEALED: &str = "versiegeltes-geheimnis";
const OPEN: &str = "geheimnis-der-metadaten";

/// A machine with a secret of its own, and another one in its metadata that every template shows.
async fn rig() -> Rig {
    let rig = Rig::start().await;
    let machine = rig.inventory.machines().await.unwrap().remove(0);
    let metadata = serde_json::json!({"role": "db", "secrets": {"other": OPEN}});
    let spec = NewMachine { metadata: metadata.as_object().unwrap().clone(), ..machine.spec };
    let sealing = rig.inventory.sealing(rig.secrets.clone());
    let kept = sealing.change_machine(machine.id, &spec, None).await.unwrap().unwrap();
    assert!(!serde_json::to_string(&kept).unwrap().contains(OPEN), "{kept:?}");
    let owner = (OwnerKind::Machine, machine.id.0, "password");
    rig.secrets.set(&rig.inventory, owner, SEALED.as_bytes(), "uid 0").await.unwrap();
    rig.plane.view.refresh().await.unwrap();
    let dir = rig.plane.templates.clone().unwrap();
    std::fs::create_dir_all(&dir).unwrap();
    for name in ["user-data", "meta-data", "vendor-data", "network-config", "config.ign"] {
        let text = "{\"secrets\": {{ secrets | tojson }}}\n";
        std::fs::write(dir.join(name), text).unwrap();
    }
    rig
}

/// Looks for the secrets in everything that came back, in whatever form.
fn silent(what: &str, answer: &Answer) {
    let mut all = format!("{:?}", answer.headers()).into_bytes();
    all.extend_from_slice(answer.body());
    let text = String::from_utf8_lossy(&all).to_lowercase();
    for secret in [SEALED, OPEN] {
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(!text.contains(secret) && !text.contains(&hex), "{what}: {text}");
    }
}

#[tokio::test]
async fn no_route_tells_a_secret_to_who_knows_a_mac_and_follows_every_link() {
    let rig = rig().await;
    let mut paths = Vec::new();
    for mac in ["52-54-00-00-00-01", "52:54:00:00:00:01", "52540000000001", "01-52-54-00-00-00-01"]
    {
        for firmware in
            ["", "?firmware=bios", "?firmware=uefi-x64", "?firmware=uefi-arm64", "?firmware=kexec"]
        {
            paths.push(format!("/script/{mac}.ipxe{firmware}"));
        }
        for name in ["user-data", "meta-data", "vendor-data", "network-config", ""] {
            paths.push(format!("/nocloud/{mac}/{name}"));
        }
        paths.push(format!("/ignition/{mac}"));
        for name in ["", "secrets", "secrets/password", "secrets/other", "role", "password"] {
            paths.push(format!("/metadata/{mac}/{name}"));
        }
        for form in
            ["pxelinux.cfg", "grub", "extlinux", "uki", "machine", "agent", "loader", "secrets"]
        {
            paths.push(format!("/{form}/{mac}"));
            paths.push(format!("/{form}/{mac}/uefi-x64.efi"));
        }
    }
    paths.extend(
        ["/boot.img", "/config.txt", "/cmdline.txt", "/grub/grub.cfg", "/extlinux/extlinux.conf"]
            .map(str::to_owned),
    );
    let (mut scripts, mut asked) = (Vec::new(), 0);
    for path in &paths {
        for method in ["GET", "HEAD", "POST"] {
            let answer = rig.send(method, path, &[], "").await;
            silent(&format!("{method} {path}"), &answer);
            asked += 1;
            if path.starts_with("/script/") && answer.status() == StatusCode::OK {
                scripts.push(String::from_utf8_lossy(answer.body()).into_owned());
            }
        }
    }
    assert!(asked > 300 && !scripts.is_empty(), "{asked}");
    // The script names the segment of the boot; whoever takes it has a token, and still no secret.
    let mut machine = scripts.iter().flat_map(|script| script.split_whitespace());
    let machine = machine.rfind(|word| word.contains("/machine/")).unwrap();
    let segment = rig.get(&machine[machine.find("/machine/").unwrap()..]).await;
    assert_eq!(segment.status(), StatusCode::OK);
    silent("the segment", &segment);
    let told = super::metadata_tests::told(&rig).await;
    let (boot, token) = (told["boot"].as_i64().unwrap(), told["token"].as_str().unwrap());
    let bearer = format!("Bearer {token}");
    for path in ["secrets", "secrets/password", "secrets/other", "password"] {
        let path = format!("/metadata/boot/{boot}/{path}");
        let answer = rig.send("GET", &path, &[("authorization", &bearer)], "").await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        silent(&path, &answer);
    }
    for name in ["user-data", "vendor-data"] {
        let path = format!("/nocloud/boot/{boot}/{name}");
        let answer = rig.send("GET", &path, &[("authorization", &bearer)], "").await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path}");
        silent(&path, &answer);
    }
    let (store, dir) = rig.stop().await;
    let (_, events) = store.boot(kiln_inventory::BootId(boot)).await.unwrap().unwrap();
    let warned = events.iter().find(|event| event.phase == Phase::Warning).unwrap();
    assert!(warned.detail.contains("without its secrets"), "{warned:?}");
    store.close().await;
    // Nor does what lies on the disk, which backups are made of.
    for entry in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
        if entry.path().is_file() {
            let bytes = std::fs::read(entry.path()).unwrap();
            assert!(!String::from_utf8_lossy(&bytes).contains(SEALED), "{:?}", entry.path());
        }
    }
}

#[tokio::test]
async fn the_system_of_a_machine_has_its_secrets_in_files_and_for_its_token() {
    let rig = rig().await;
    rig.gives_the_address();
    let script = rig.get("/script/52-54-00-00-00-01.ipxe?firmware=uefi-x64").await;
    silent("script", &script);
    let script = String::from_utf8_lossy(script.body()).into_owned();
    let machine = script.split_whitespace().find(|word| word.contains("/machine/")).unwrap();
    let path = &machine[machine.find("/machine/").unwrap()..];
    // A fetch that broke off may be made again, until the system has reported.
    for _ in 0..2 {
        let segment = rig.get(path).await;
        let text = String::from_utf8_lossy(segment.body()).into_owned();
        assert!(text.contains("etc/kiln/secrets/password\0") && text.contains(SEALED), "{text}");
        assert_eq!(segment.headers()["cache-control"], "no-store");
    }
    let told = super::metadata_tests::told(&rig).await;
    let boot = told["boot"].as_i64().unwrap();
    let bearer = format!("Bearer {}", told["token"].as_str().unwrap());
    let get = async |path: &str| {
        let path = path.replace("BOOT", &boot.to_string());
        let answer = rig.send("GET", &path, &[("authorization", &bearer)], "").await;
        String::from_utf8_lossy(answer.body()).into_owned()
    };
    assert_eq!(get("/metadata/boot/BOOT/secrets/password").await, SEALED);
    assert_eq!(get("/metadata/boot/BOOT/secrets").await, "other\npassword\n");
    let text = get("/nocloud/boot/BOOT/user-data").await;
    assert!(text.contains(SEALED) && text.contains(OPEN), "{text}");
    // Once the system has reported, what the script named opens nothing, and whoever tries is told of.
    let path = path.to_owned();
    let home = format!("/phone-home/{boot}");
    let reports =
        rig.send("POST", &home, &[("authorization", &bearer)], "[{\"phase\":\"init\"}]").await;
    assert_eq!(reports.status(), StatusCode::NO_CONTENT);
    let replay = rig.get(&path).await;
    assert_eq!(replay.status(), StatusCode::FORBIDDEN);
    silent("replay", &replay);
    let wrong = [("authorization", "Bearer 00")];
    for _ in 0..9 {
        let stolen = rig.send("GET", &format!("/metadata/boot/{boot}/secrets"), &wrong, "").await;
        assert_eq!(stolen.status(), StatusCode::FORBIDDEN);
    }
    let (store, _dir) = rig.stop().await;
    let (_, events) = store.boot(kiln_inventory::BootId(boot)).await.unwrap().unwrap();
    let warned = events.iter().filter(|event| event.phase == Phase::Warning);
    let warned: Vec<&str> = warned.map(|event| event.detail.as_str()).collect();
    assert_eq!(warned.len(), 3, "and no more, however often it is tried: {warned:?}");
    assert!(
        warned[0].starts_with("refused 127.0.0.1, ") && warned[0].contains("used up"),
        "{warned:?}"
    );
    let changes = store.changes_since(0, 100).await.unwrap();
    let denied = changes.iter().filter(|it| it.verb == Verb::Deny && it.noun == "boot");
    assert_eq!(denied.count(), 3);
}
