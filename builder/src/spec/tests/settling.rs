//! What the specification, the label and the image say of a container.

use super::*;
use crate::oci::{ImageConfig, Reference};

fn image() -> Reference {
    "registry.example/web:1".parse().unwrap()
}

fn labelled(rest: &str, json: &str, image_config: &ImageConfig) -> Container {
    let yaml = format!("services: [{{name: web, image: registry.example/web:1{rest}}}]");
    let spec = load::read("web.yml", &yaml).unwrap();
    spec.services[0].settle(Some(&label(&image(), json).unwrap()), Some(image_config))
}

fn config() -> ImageConfig {
    ImageConfig {
        entrypoint: vec!["/entry".to_owned()],
        cmd: vec!["arg".to_owned()],
        env: vec!["A=image".to_owned()],
        working_dir: Some("srv/www".to_owned()),
        user: Some("nobody".to_owned()),
        ..ImageConfig::default()
    }
}

#[test]
fn the_specification_counts_before_the_label_and_the_label_before_the_image() {
    let nothing = labelled("", "{}", &config());
    assert_eq!(nothing.command, ["/entry", "arg"]);
    assert_eq!(nothing.env, ["A=image"]);
    assert_eq!(nothing.cwd, "/srv/www");
    // As in LinuxKit, who an image wants to be does not count.
    assert_eq!(nothing.uid, UserId::Number(0));
    assert_eq!((nothing.net, nothing.pid), (Namespace::Host, Namespace::New));

    let json = r#"{"command": ["/label"], "env": [], "cwd": "/label", "net": "new", "readonly": true, "uid": 7,
                   "sysctl": {"a": "b"}, "oomScoreAdj": 5}"#;
    let by_label = labelled("", json, &config());
    assert_eq!((by_label.command, by_label.cwd), (vec!["/label".to_owned()], "/label".to_owned()));
    // An empty list counts as said.
    assert!(by_label.env.is_empty());
    assert_eq!((by_label.net, by_label.readonly), (Namespace::New, true));
    assert_eq!((by_label.uid, by_label.oom_score_adj), (UserId::Number(7), Some(5)));

    let rest =
        ", command: [], env: [B=c], cwd: '', net: '', readonly: false, uid: root, sysctl: {c: d}";
    let by_spec = labelled(rest, json, &config());
    assert!(by_spec.command.is_empty());
    assert_eq!(by_spec.env, ["B=c"]);
    // An empty text does not count; a value that counts does so as a whole.
    assert_eq!((by_spec.cwd.as_str(), by_spec.net), ("/label", Namespace::New));
    assert_eq!((by_spec.readonly, by_spec.uid), (false, UserId::Number(0)));
    assert_eq!(by_spec.sysctl.keys().collect::<Vec<_>>(), ["c"]);
}

#[test]
fn what_is_added_comes_after_the_label_and_only_once() {
    let json = r#"{"capabilities": ["CAP_CHOWN", "CAP_KILL"], "binds": ["/a:/a", "/b:/b:ro"]}"#;
    let settled = |rest: &str| labelled(rest, json, &ImageConfig::default());
    let rest = ", capabilities.add: [CAP_KILL, CAP_BPF], binds.add: ['/b:/b:ro', '/c:/c']";
    let added = settled(rest);
    assert_eq!(added.capabilities, ["CAP_CHOWN", "CAP_KILL", "CAP_BPF"]);
    let sources: Vec<_> = added.mounts.iter().map(|mount| mount.source.as_str()).collect();
    assert_eq!(sources, ["/a", "/b", "/c"]);

    let replaced = settled(&format!("{rest}, capabilities: [None], binds: []"));
    assert!(replaced.capabilities.is_empty() && replaced.mounts.is_empty());
    assert_eq!(settled(", capabilities: [aLL]").capabilities.len(), 41);
    let all = labelled(", capabilities.add: [CAP_KILL]", r#"{"capabilities": ["all"]}"#, &config());
    assert_eq!(all.capabilities.len(), 41);
    let alone = labelled(", capabilities.add: [CAP_KILL]", "{}", &config());
    assert_eq!(alone.capabilities, ["CAP_KILL"]);
    // What a label adds of its own has nothing to be added to.
    let own = labelled("", r#"{"capabilities.add": ["CAP_KILL"]}"#, &config());
    assert!(own.capabilities.is_empty());
}

#[test]
fn mounts_are_filled_in_and_ordered_so_that_later_ones_win() {
    let rest = ", tmpfs: ['/t:size=1m'], binds: ['/a:/b', '/c:/d:ro'], \
                mounts: [{type: cgroup, options: [rw]}, {destination: /dev}, {source: mqueue}]";
    let mounts = labelled(rest, "{}", &config()).mounts;
    let told: Vec<_> = mounts
        .iter()
        .map(|m| format!("{} {} {} {}", m.kind, m.source, m.destination, m.options.join(",")))
        .collect();
    assert_eq!(
        told,
        [
            "tmpfs tmpfs /t size=1m",
            "bind /a /b rw,rbind,rshared",
            "bind /c /d ro,rbind",
            "cgroup cgroup /sys/fs/cgroup rw",
            "tmpfs tmpfs /dev ",
            "mqueue mqueue /dev/mqueue ",
        ]
    );
}

#[test]
fn what_is_done_before_the_start_is_settled_key_by_key() {
    let json = r#"{"runtime": {"mkdir": ["/label"], "cgroups": ["label"], "bindNS": {"net": "/l", "pid": "/p"}}}"#;
    let rest = ", runtime: {mkdir: [], bindNS: {net: ''}}";
    let runtime = labelled(rest, json, &config()).runtime;
    assert!(runtime.mkdir.is_empty());
    assert_eq!(runtime.cgroups, ["label"]);
    assert_eq!((runtime.bind_ns.net.as_str(), runtime.bind_ns.pid.as_str()), ("", "/p"));
}

#[test]
fn limits_are_read_in_either_case_of_their_keys() {
    for memory in
        ["{kernelTCP: 5, disableOOMKiller: true}", "{kerneltcp: 5, disableoomkiller: true}"]
    {
        let rest = format!(", resources: {{memory: {memory}, blockio: {{weight: 9}}}}");
        let resources = labelled(&rest, "{}", &config()).resources;
        let json = serde_json::to_value(&resources).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"memory": {"kernelTCP": 5, "disableOOMKiller": true}, "blockIO": {"weight": 9}})
        );
    }
}

#[test]
fn a_label_that_cannot_be_used_is_told_with_the_name_of_the_image() {
    let error = |json: &str| label(&image(), json).unwrap_err().to_string();
    let place = "label org.mobyproject.config of registry.example/web:1: ";
    for (json, text) in [
        ("{", "it is not JSON: EOF while parsing an object at line 1 column 1"),
        ("[]", "it is not a JSON object"),
        (r#"{"name": "x"}"#, "`name` cannot be in a label"),
        (r#"{"image": "x"}"#, "`image` cannot be in a label"),
        (r#"{"comand": []}"#, "unknown key `comand`; did you mean `command`?"),
        (
            r#"{"binds": ["a"]}"#,
            "bind `a` is not `/source:/destination[:options]` or `volume:/destination[:options]`",
        ),
        (r#"{"mounts": [{"type": "x"}]}"#, "a mount of type `x` has no `destination`"),
        (r#"{"command": "é\ud83d\ude00\u0001"}"#, "a list is expected here, as in `[a, b]`"),
    ] {
        assert_eq!(error(json), format!("{place}{text}"));
    }
    assert!(error(&format!("{{\"a\": {}", "[".repeat(100_000))).starts_with(place));
    assert!(error(&"x".repeat(1 << 20)).ends_with("262144 are the most"));
    let text = label(&image(), r#"{"command": ["é\ud83d\ude00\u0001\/\""]}"#).unwrap();
    assert_eq!(text.command.unwrap(), ["é😀\u{1}/\""]);
}

#[test]
fn what_a_label_brings_in_is_checked_against_the_whole_specification() {
    let spec = |volumes: &str| {
        let yaml = format!(
            "volumes: [{volumes}]\nservices: [{{name: web, image: registry.example/web:1}}]"
        );
        parse("web.yml", &yaml).unwrap()
    };
    let check = |volumes: &str, json: &str| {
        let spec = spec(volumes);
        let service = &spec.services[0];
        let settled = service.settle(Some(&label(&image(), json).unwrap()), Some(&config()));
        let place = service.image.as_ref().unwrap().place();
        spec.check_settled(&settled, place).map_err(|error| error.to_string())
    };
    let with = "web.yml:2:31: container `web` with the label of its image: ";
    let json = r#"{"binds": ["data:/data"]}"#;
    check("{name: data}", json).unwrap();
    let error = check("", json).unwrap_err();
    assert!(error.starts_with(&format!("{with}`data` is not a volume")), "{error}");
    let error = check("{name: data, readonly: true}", json).unwrap_err();
    assert_eq!(error, format!("{with}volume `data` is read-only; add `ro` to the options"));
    let error = check("", r#"{"uid": "other"}"#).unwrap_err();
    assert_eq!(error, format!("{with}`other` is not a number, and no container has this name"));
    let error = check("", r#"{"command": []}"#).unwrap_err();
    assert_eq!(
        error,
        "web.yml:2:31: container `web` has no `command`, and its image names no program either"
    );
}

#[test]
fn a_host_name_of_its_own_has_a_namespace_of_its_own() {
    let settled = |rest: &str, json: &str| labelled(rest, json, &config());
    assert_eq!(settled("", "{}").uts, Namespace::Host);
    let named = settled(", hostname: web", "{}");
    assert_eq!((named.uts, named.hostname.as_deref()), (Namespace::New, Some("web")));
    assert_eq!(settled("", r#"{"hostname": "web"}"#).uts, Namespace::New);
    assert_eq!(settled(", hostname: ''", "{}").uts, Namespace::Host);
    let given = settled(", hostname: web, uts: /run/ns/uts", "{}").uts;
    assert_eq!(given, Namespace::Path("/run/ns/uts".to_owned()));
}

#[test]
fn a_check_of_health_is_written_as_the_built_in_init_reads_it() {
    let health = |rest: &str| {
        let rest = format!(", health: {{{rest}}}");
        serde_json::to_value(labelled(&rest, "{}", &config()).health).unwrap()
    };
    let usual = |key: &str, value: serde_json::Value| serde_json::json!({key: value, "interval": 10_000, "timeout": 5_000, "retries": 3});
    assert_eq!(health("tcp: 80"), usual("tcp", "127.0.0.1:80".into()));
    assert_eq!(health("tcp: '[::1]:80'"), usual("tcp", "[::1]:80".into()));
    assert_eq!(health("exec: [/bin/check]"), usual("exec", ["/bin/check"].as_slice().into()));
    let all = health("http: 'http://127.0.0.1/', interval: 2m, timeout: 1500ms, retries: 1");
    let expected = serde_json::json!({"http": "http://127.0.0.1/", "interval": 120_000, "timeout": 1_500, "retries": 1});
    assert_eq!(all, expected);
}
