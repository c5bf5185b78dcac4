use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, LazyLock};

use kiln_inventory::{MachineId, NewMachine, Snapshot, UnknownMachines};

use super::*;

fn machine(metadata: Value) -> Machine {
    let mac = "52:54:00:00:00:01".parse().unwrap();
    let spec = NewMachine {
        image: Some("web".parse().unwrap()),
        metadata: metadata.as_object().unwrap().clone(),
        ..NewMachine::new("n1", [mac])
    };
    Machine { id: MachineId(7), revision: 1, spec }
}

/// A machine with what holds for it.
fn known(metadata: Value) -> (Machine, Arc<Effective>) {
    let machine = machine(metadata);
    let all =
        Snapshot::new(vec![Arc::new(machine.clone())], BTreeMap::new(), UnknownMachines::Hold);
    let settings = all.settings_of(machine.id).unwrap().clone();
    (machine, settings)
}

fn asker((machine, settings): &(Machine, Arc<Effective>), proven: bool) -> Asker<'_> {
    let mac = *machine.spec.macs.first().unwrap();
    static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    let server = "http://10.0.0.1:8080";
    Asker { machine, settings, mac, proven, secrets: &NONE, server }
}

/// Fills one template in.
fn filled(text: &str, metadata: Value, proven: bool) -> Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("user-data"), text).unwrap();
    let machine = known(metadata);
    let made = document(Some(dir.path()), Document::UserData, &asker(&machine, proven));
    made.map(Option::unwrap).map_err(|error| error.to_string())
}

#[test]
fn without_templates_cloud_init_gets_what_it_cannot_go_on_without() {
    let machine = known(json!({}));
    let told = |what| document(None, what, &asker(&machine, false)).unwrap();
    assert_eq!(
        told(Document::MetaData).as_deref(),
        Some("instance-id: \"n1-web\"\nlocal-hostname: \"n1\"\n")
    );
    assert_eq!(told(Document::UserData).as_deref(), Some("#cloud-config\n{}\n"));
    assert_eq!(told(Document::NetworkConfig), None);
    assert_eq!(told(Document::Ignition), None);
}

#[test]
fn the_template_of_the_machine_goes_before_that_of_its_image_and_that_before_the_one_of_all() {
    let dir = tempfile::tempdir().unwrap();
    let machine = known(json!({}));
    let told = || document(Some(dir.path()), Document::UserData, &asker(&machine, false)).unwrap();
    for (folder, text) in [("", "all"), ("images/web", "image"), ("machines/n1", "own")] {
        fs::create_dir_all(dir.path().join(folder)).unwrap();
        fs::write(dir.path().join(folder).join("user-data"), text).unwrap();
        assert_eq!(told().as_deref(), Some(text));
    }
}

#[test]
fn a_template_is_filled_with_the_machine_and_its_metadata() {
    let text = "{{ machine.name }} {{ mac }} {{ server }} {{ metadata.role | tojson }}\n\
                {% for key in metadata.keys %}- {{ key }}\n{% endfor %}";
    let made = filled(text, json!({"role": "a\"b", "keys": ["k1", "k2"]}), false);
    let expected = "n1 52:54:00:00:00:01 http://10.0.0.1:8080 \"a\\\"b\"\n- k1\n- k2\n";
    assert_eq!(made.as_deref(), Ok(expected));
}

#[test]
fn what_is_not_there_is_an_error_with_its_line_and_never_an_empty_text() {
    let error = filled("one\n{{ metadata.rle }}\n", json!({"role": 1}), false).unwrap_err();
    assert!(error.starts_with("template user-data, line 2: "), "{error}");
    let default = filled("{{ metadata.rle | default('x') }}", json!({}), false);
    assert_eq!(default.as_deref(), Ok("x"));
}

#[test]
fn secrets_are_for_those_who_have_proved_to_be_the_machine() {
    let metadata = json!({"role": "db", "secrets": {"password": "geheim"}});
    for text in [
        "{{ secrets.password }}",
        "{{ secrets }}",
        "{% if secrets is defined %}{{ secrets.password }}{% endif %}",
        "{% set x = secrets %}{{ x.password }}",
    ] {
        let error = filled(text, metadata.clone(), false).unwrap_err();
        assert!(error.contains("token of its boot"), "{error}");
        let made = filled(text, metadata.clone(), true).unwrap();
        assert!(made.contains("geheim"), "{made}");
    }
    for text in ["{{ metadata }}", "{{ metadata.secrets | default('none') }}", "{{ machine }}"] {
        let made = filled(text, metadata.clone(), false).unwrap();
        assert!(!made.contains("geheim"), "{made}");
    }
}

#[test]
fn a_template_that_does_not_end_or_makes_too_much_is_stopped() {
    let long = json!({"list": vec![0; 5000], "text": "x".repeat(60_000)});
    let endless =
        "{% for a in metadata.list %}{% for b in metadata.list %}{{ b }}{% endfor %}{% endfor %}";
    assert!(filled(endless, long.clone(), false).unwrap_err().contains("fuel"));
    let large = "{% for a in metadata.list %}{{ metadata.text }}{% endfor %}";
    assert!(filled(large, long, false).unwrap_err().contains("more than 1024 KiB"));
    assert!(filled(&" ".repeat(300_000), json!({}), false).unwrap_err().contains("256 KiB"));
    let nested = "{% if 1 %}".repeat(100_000);
    assert!(filled(&nested, json!({}), false).is_err());
}

#[test]
fn a_template_cannot_reach_another_file() {
    for text in ["{% include 'user-data' %}", "{% extends '/etc/passwd' %}", "{{ range(9) }}"] {
        assert!(filled(text, json!({}), true).is_err(), "{text}");
    }
}

#[test]
fn ignition_has_to_be_json() {
    let dir = tempfile::tempdir().unwrap();
    let machine = known(json!({"name": "a\"b"}));
    let told = |text: &str| {
        fs::write(dir.path().join("config.ign"), text).unwrap();
        document(Some(dir.path()), Document::Ignition, &asker(&machine, false))
    };
    let good =
        told("{\"ignition\": {\"version\": \"3.4.0\"}, \"x\": {{ metadata.name | tojson }}}");
    assert!(good.unwrap().unwrap().ends_with(r#""x": "a\"b"}"#));
    assert!(matches!(told("{\"x\": \"{{ metadata.name }}\"}"), Err(TemplateError::NotJson { .. })));
}

#[test]
fn values_are_found_by_the_names_on_the_way_to_them() {
    let machine = known(json!({
        "role": "db", "disks": [{"size": 7}, true], "secrets": {"password": "geheim"},
    }));
    let get = |path: &str, proven| value(&asker(&machine, proven), path.split('/'));
    assert_eq!(get("", false).as_deref(), Some("disks\nrole\n"));
    assert_eq!(get("", true).as_deref(), Some("disks\nrole\nsecrets\n"));
    assert_eq!(get("role", false).as_deref(), Some("db"));
    assert_eq!(get("disks/0/size", false).as_deref(), Some("7"));
    assert_eq!(get("disks/1", false).as_deref(), Some("true"));
    assert_eq!(get("secrets/password", true).as_deref(), Some("geheim"));
    for path in ["secrets", "secrets/password", "disks/9", "disks/-1", "role/x", "none"] {
        assert_eq!(get(path, false), None, "{path}");
    }
}
