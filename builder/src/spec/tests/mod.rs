use kiln_types::Arch;

use super::*;

mod corpus;
mod errors;
mod joining;
mod limits;
mod network;
mod schema;
mod settling;

fn error(yaml: &str) -> String {
    parse("web.yml", yaml).unwrap_err().to_string()
}

#[test]
fn every_key_of_the_subset_is_read() {
    let spec = parse(
        "web.yml",
        "
kernel:
  deb: {x86_64: a, arm64: b}
  modules: [overlay, virtio_net]
  cmdline: console=ttyS0
init: [kiln]
onboot:
  - {name: hello, deb: [busybox-static], command: [busybox, uname, -r]}
services:
  - name: web
    deb: [busybox-static]
    command: [busybox, httpd]
    capabilities: [CAP_NET_BIND_SERVICE]
    binds: [/etc/web:/srv:ro]
    mounts: [{destination: /data, type: tmpfs, options: [size=1m]}]
    tmpfs: [/cache]
    env: [A=b]
    net: new
    sysctl: {net.core.somaxconn: 128}
    restart: on-failure
    after: [other]
  - {name: other, deb: [a], command: [b]}
files:
  - {path: /etc/web/index.html, contents: hello, mode: \"0644\"}
debian: {suite: forky}
",
    )
    .unwrap();
    assert_eq!(spec.kernel.deb.unwrap().get(Arch::Arm64), Some("b"));
    assert_eq!(spec.kernel.cmdline.unwrap().get(Arch::Arm64), Some("console=ttyS0"));
    let web = &spec.services[0];
    assert_eq!(web.name.as_str(), "web");
    assert_eq!(web.net, Some(Namespace::New));
    assert_eq!(web.restart.as_deref().map(|it| it.policy), Some(RestartPolicy::OnFailure));
    assert_eq!(spec.files[0].mode.unwrap().bits(), 0o644);
    assert_eq!(spec.debian.suite, "forky");
    assert_eq!(spec.debian.components, ["main"]);
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_what_was_meant() {
    assert_eq!(
        error("services:\n  - name: web\n    deb: [a]\n    comand: [b]\n"),
        "web.yml:4:5: unknown key `comand`; did you mean `command`?"
    );
    assert!(error("services:\n  - name: Web/..\n").starts_with("web.yml:2:11: "));
    assert_eq!(
        error("kernel:\n  modules: some\n"),
        "web.yml:2:12: `some` is not `auto`, `none` or a list of module names"
    );
    assert_eq!(
        error("kernel:\n  firmware: [a, none]\n"),
        "web.yml:2:13: `none` cannot be in a list of packages; what the kernel comes with is taken anyway"
    );
    assert!(error("files:\n  - path: ../x\n").starts_with("web.yml:2:11: "));
    assert!(error("a: [\n").starts_with("web.yml:"));
}

#[test]
fn what_contradicts_itself_is_told_with_its_place() {
    for (yaml, text) in [
        (
            "services:\n  - {name: a, deb: [b], command: [c]}\n  - {name: a, deb: [b], command: [c]}",
            "3:12: service `a` is there twice, first at web.yml:2:12; give one of them another name",
        ),
        (
            "services:\n  - name: a\n    deb: [b]\n    command: [c]\n    after: [z]",
            "5:13: service `a` starts after `z`, which is not a service",
        ),
        (
            "services:\n  - name: a\n    deb: [b]\n    command: []",
            "2:11: container `a` has no `command`",
        ),
        (
            "services: [{name: a, image: b, keep: [c]}]",
            "1:39: `keep` is for containers made of Debian packages; this one has no `deb`",
        ),
        (
            "services: [{name: a, deb: [b], command: [c], keep: [bin/c]}]",
            "1:53: `bin/c` is neither the name of a program nor a path that begins with `/`",
        ),
        (
            "onboot:\n  - command: [c]\n    name: a",
            "3:11: container `a` has no `image` or `deb`, so there is nothing to run",
        ),
        (
            "onboot: [{name: a, deb: [b], command: [c], after: [a]}]",
            "1:52: `after` is for services; these run in the order they are written in",
        ),
        (
            "files:\n  - {contents: x, source: y, path: a}",
            "2:36: file `/a` needs exactly one of `contents`, `source`, `metadata`, `symlink` \
                 and `directory: true`",
        ),
        (
            "files: [{path: a, contents: x, optional: true}]",
            "1:16: file `/a` is optional, which only a `source` can be",
        ),
    ] {
        assert_eq!(error(yaml), format!("web.yml:{text}"));
    }
}

#[test]
fn arguments_of_the_kernel_that_a_loader_would_change_are_refused() {
    let cmdline = |yaml: &str| {
        let spec = parse("web.yml", yaml).unwrap();
        spec.kernel.cmdline.unwrap().get(Arch::Arm64).unwrap().to_owned()
    };
    assert_eq!(cmdline("kernel:\n  cmdline: |\n    a=1  b\n    c=\"d\"\n"), "a=1 b c=\"d\"");
    for (yaml, text) in [
        (
            "kernel:\n  cmdline: \"a\\tb\"",
            "web.yml:2:12: the arguments of the kernel contain '\\t';",
        ),
        ("kernel:\n  cmdline: {arm64: a, x86_64: é}", "web.yml:2:31: "),
        ("kernel:\n  cmdline: a=${net0/ip}", "web.yml:2:12: "),
    ] {
        let error = error(yaml);
        assert!(error.starts_with(text), "{error}");
    }
    let long = |n| format!("kernel:\n  cmdline: {}\n", "a".repeat(n));
    assert_eq!(cmdline(&long(2047)).len(), 2047);
    assert!(error(&long(2048)).ends_with("have 2048 characters; it keeps 2047 at most"));
}

#[test]
fn services_that_wait_for_each_other_are_refused() {
    let service = |name: &str, after: &str| {
        format!("  - {{name: {name}, deb: [x], command: [y], after: [{after}]}}\n")
    };
    let chain = [service("a", "b, c"), service("b", ""), service("c", "b, d")].concat();
    let yaml = |last: &str| format!("services:\n{chain}{}", service("d", last));
    parse("web.yml", &yaml("b")).unwrap();
    assert_eq!(
        error(&yaml("a")),
        "web.yml:5:47: services wait for each other: `a` after `c` after `d` after `a`"
    );
    let alone = format!("services:\n{}", service("a", "a"));
    assert!(error(&alone).ends_with("services wait for each other: `a` after `a`"));
}

#[test]
fn what_a_machine_needs_to_boot_is_missed_with_a_place() {
    for (yaml, text) in [
        ("# web\nkernel: {deb: a}", "2:1: `init` is missing; add `init: [kiln]`"),
        ("kernel: {deb: a}\ninit: []", "1:1: `init` is missing; add `init: [kiln]`"),
        ("", "1:1: `init` is missing; add `init: [kiln]`"),
        ("init: [kiln]", "1:1: there is no kernel; add `kernel: {deb: …}` or `kernel: {image: …}`"),
        (
            "init: [kiln]\nkernel:\n  deb: {x86_64: a}",
            "3:8: there is no kernel package for arm64 here",
        ),
    ] {
        let spec = parse("web.yml", yaml).unwrap();
        let text = format!("web.yml:{text}");
        assert_eq!(spec.kernel_package(Arch::Arm64).unwrap_err().to_string(), text);
    }
}

#[test]
fn of_several_files_the_one_that_is_wrong_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let paths = ["one.yml", "two.yml"].map(|name| dir.path().join(name));
    let yaml = "services:\n  - {name: a, deb: [b], command: [c]}\n";
    std::fs::write(&paths[0], yaml).unwrap();
    std::fs::write(&paths[1], format!("# more\n{yaml}")).unwrap();
    let text = load(&paths).unwrap_err().to_string();
    let [one, two] = paths.map(|path| path.display().to_string());
    assert!(text.starts_with(&format!("{two}:3:12: ")), "{text}");
    assert!(text.contains(&format!("first at {one}:2:12;")), "{text}");
}
