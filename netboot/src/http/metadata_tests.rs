//! What machines are told of themselves, and what others who ask for it get.

use hyper::StatusCode;
use kiln_inventory::NewMachine;

use super::tests::Rig;

const MAC: &str = "52:54:00:00:00:01";

/// Gives the machine of the rig metadata with secrets, and a template that asks for them.
async fn rig() -> Rig {
    let rig = Rig::start().await;
    let machine = rig.inventory.machines().await.unwrap().remove(0);
    let metadata = serde_json::json!({"role": "db", "secrets": {"password": "geheim"}});
    let metadata = metadata.as_object().unwrap().clone();
    let spec = NewMachine { metadata, ..machine.spec };
    rig.inventory.change_machine(machine.id, &spec, None).await.unwrap();
    rig.plane.view.refresh().await.unwrap();
    let dir = rig.plane.templates.clone().unwrap();
    std::fs::create_dir_all(&dir).unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
    write("user-data", "role: {{ metadata.role }}\n");
    write("vendor-data", "password: {{ secrets.password }}\n");
    write("network-config", "{{ metadata.nothing }}\n");
    rig
}

/// Boots as far as the machine's own segment, and returns what is in it.
pub(super) async fn told(rig: &Rig) -> serde_json::Value {
    let script = rig.get("/script/52-54-00-00-00-01.ipxe?firmware=uefi-x64").await;
    let script = String::from_utf8(script.body().to_vec()).unwrap();
    let machine = script.split_whitespace().find(|word| word.contains("/machine/")).unwrap();
    let segment = rig.get(&machine[machine.find("/machine/").unwrap()..]).await;
    let text = String::from_utf8_lossy(segment.body()).into_owned();
    serde_json::from_str(&text[text.find('{').unwrap()..=text.find('}').unwrap()]).unwrap()
}

#[tokio::test]
async fn a_mac_alone_is_never_given_a_secret() {
    let rig = rig().await;
    let get = async |path: &str| {
        let answer = rig.get(path).await;
        let body = String::from_utf8_lossy(answer.body()).into_owned();
        assert!(!body.contains("geheim"), "{path}: {body}");
        (answer.status(), body)
    };
    let path = |kind: &str, rest: &str| format!("/{kind}/{MAC}{rest}");
    let user = get(&path("nocloud", "/user-data")).await;
    assert_eq!(user, (StatusCode::OK, "role: db\n".to_owned()));
    let name = get(&path("metadata", "/role")).await;
    assert_eq!(name, (StatusCode::OK, "db".to_owned()));
    let secret = get(&path("nocloud", "/vendor-data")).await;
    assert_eq!(secret.0, StatusCode::FORBIDDEN);
    let broken = get(&path("nocloud", "/network-config")).await;
    assert_eq!(broken.0, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!broken.1.contains("nothing"), "{broken:?}");
    for missing in [
        path("metadata", "/secrets"),
        path("metadata", "/secrets/password"),
        path("metadata", "/../../etc/passwd"),
        path("nocloud", "/../user-data"),
        path("nocloud", "/user-data/x"),
        path("nocloud", "/machines"),
        path("ignition", ""),
        "/nocloud/52:54:00:00:00:99/user-data".to_owned(),
        "/metadata/not-a-mac/role".to_owned(),
        "/metadata/boot/x/role".to_owned(),
    ] {
        assert_eq!(get(&missing).await.0, StatusCode::NOT_FOUND, "{missing}");
    }
    for forbidden in ["/metadata/boot/1/secrets", "/nocloud/boot/1/vendor-data"] {
        assert_eq!(get(forbidden).await.0, StatusCode::FORBIDDEN, "{forbidden}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_system_that_proves_by_its_token_which_machine_it_is_gets_its_secrets() {
    let rig = rig().await;
    rig.gives_the_address();
    let told = told(&rig).await;
    let (boot, token) = (told["boot"].as_i64().unwrap(), told["token"].as_str().unwrap());
    let bearer = format!("Bearer {token}");
    let get = async |path: &str, bearer: &str| {
        let path = path.replace("BOOT", &boot.to_string());
        let answer = rig.send("GET", &path, &[("authorization", bearer)], "").await;
        (answer.status(), String::from_utf8_lossy(answer.body()).into_owned())
    };
    let secret = get("/nocloud/boot/BOOT/vendor-data", &bearer).await;
    assert_eq!(secret, (StatusCode::OK, "password: geheim\n".to_owned()));
    let secret = get("/metadata/boot/BOOT/secrets/password", &bearer).await;
    assert_eq!(secret, (StatusCode::OK, "geheim".to_owned()));
    let wrong = get("/nocloud/boot/BOOT/vendor-data", "Bearer 00").await;
    assert_eq!(wrong.0, StatusCode::FORBIDDEN);
    let unknown = get("/nocloud/boot/999/vendor-data", &bearer).await;
    assert_eq!(unknown.0, StatusCode::NOT_FOUND);
    // The token of a boot opens nothing more by way of a MAC.
    let path = format!("/nocloud/{MAC}/vendor-data");
    assert_eq!(get(&path, &bearer).await.0, StatusCode::FORBIDDEN);
    rig.stop().await;
}
