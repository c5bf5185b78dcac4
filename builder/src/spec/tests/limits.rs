//! Input that is made to hurt is refused soon.

use super::*;

const TOO_LARGE: &str =
    "it is too large or nested too deeply, also when its aliases are counted as often as used";

/// Reads on a thread with the stack that threads usually have, for nesting could exhaust it.
fn refused(yaml: String) -> String {
    let thread = std::thread::Builder::new().stack_size(2 << 20);
    let before = tokio::time::Instant::now();
    let error = thread.spawn(move || error(&yaml)).unwrap().join().unwrap();
    // Far more than it takes, far less than what cannot be bounded takes.
    assert!(before.elapsed().as_secs() < 20, "{error}");
    assert!(error.len() < 1000, "{error}");
    error
}

#[test]
fn nesting_of_a_hundred_thousand_levels_is_refused() {
    let n = 100_000;
    assert_eq!(refused(format!("files: {}", "[".repeat(n))), format!("web.yml:1:263: {TOO_LARGE}"));
    let maps = format!("services: [{{name: a, image: b, sysctl: {}", "{a: ".repeat(n));
    assert!(refused(maps).starts_with("web.yml:1:"));
    let lists =
        format!("files:\n{}", (0..2000).map(|i| format!("{:i$}-\n", "")).collect::<String>());
    assert!(refused(lists).starts_with("web.yml:"));
}

#[test]
fn aliases_that_grow_without_bound_are_refused() {
    let text = format!("files:\n- path: a\n  contents: &a {}\n", "x".repeat(1 << 20));
    let many: String = (0..20_000).map(|i| format!("- {{path: a{i}, contents: *a}}\n")).collect();
    let text = refused(text + &many);
    assert!(text.starts_with("web.yml:") && text.ends_with(TOO_LARGE), "{text}");

    let mut levels =
        "services:\n- name: a\n  image: b\n  sysctl: {x: &a0 [y, y, y, y]}\n".to_owned();
    for i in 1..30 {
        let before = format!("*a{}", i - 1);
        levels +=
            &format!("- {{name: a{i}, image: b, command: &a{i} [{}]}}\n", [&*before; 9].join(", "));
    }
    assert!(refused(levels).starts_with("web.yml:4:"));

    let list = "services:\n- name: a\n  image: b\n  command: &a [x, x, x, x, x, x, x, x, x]\n";
    let many: String =
        (0..40_000).map(|i| format!("- {{name: a{i}, image: b, command: *a}}\n")).collect();
    let text = refused(list.to_owned() + &many);
    assert!(text.ends_with(TOO_LARGE), "{text}");
}

#[test]
fn a_file_of_ten_megabytes_is_refused_without_being_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big.yml");
    std::fs::write(&path, "#".repeat(10 << 20)).unwrap();
    let error = load(std::slice::from_ref(&path)).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot read the specification `{}`", path.display()));
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "it is larger than 4 MiB");
}

#[test]
fn thousands_of_services_that_wait_for_many_others_are_ordered_soon() {
    let service = |i: usize| {
        let after: Vec<_> = (i.saturating_sub(30)..i).map(|n| format!("a{n}")).collect();
        format!("- {{name: a{i}, image: b, after: [{}]}}\n", after.join(", "))
    };
    let yaml = format!("services:\n{}", (0..3000).map(service).collect::<String>());
    let before = tokio::time::Instant::now();
    assert_eq!(parse("web.yml", &yaml).unwrap().services.len(), 3000);
    assert!(before.elapsed().as_secs() < 20);
}

#[test]
fn what_is_said_twice_or_in_two_documents_is_refused() {
    assert_eq!(error("init: [kiln]\ninit: [kiln]"), "web.yml:2:1: the key `init` is here twice");
    for (text, place) in [
        ("init: [kiln]\n---\ninit: [kiln]", "2:1"),
        ("---\ninit: [kiln]\n---\n", "3:1"),
        ("# web\n---\ninit: [kiln]\n\n---\ninit: [kiln]\n", "5:1"),
    ] {
        let expected = format!("web.yml:{place}: a second document begins here; a file holds one");
        assert_eq!(error(text), expected, "{text}");
    }
    for text in ["---\ninit: [kiln]\n", "# web\n\n---\ninit: [kiln]\n...\n", "--- {init: [kiln]}\n"]
    {
        assert_eq!(parse("web.yml", text).unwrap().init.len(), 1, "{text}");
    }
    assert_eq!(
        error("kernel: {cmdline: {x86_64: a, amd64: b}}"),
        "web.yml:1:19: x86_64 is here twice"
    );
}

#[test]
fn fuzzed_specifications_are_read_or_refused_with_their_place() {
    let samples = [
        include_str!("../../../../tests/fixtures/linuxkit/every-section.yml"),
        include_str!("../../../../tests/fixtures/containers/containers.yml"),
        include_str!("../../../../tests/fixtures/services/services.yml"),
        include_str!("../../../../tests/fixtures/network/network.yml"),
    ];
    kiln_fuzz::check("spec", &samples.map(str::as_bytes), |bytes| {
        if let Err(error) = parse("web.yml", &String::from_utf8_lossy(bytes)) {
            assert!(!error.to_string().is_empty());
        }
    });
}
