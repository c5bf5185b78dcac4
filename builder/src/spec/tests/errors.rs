//! What is wrong is told with its place, in words that say what to do.

use super::*;

/// Checks errors of one service; the place is that in its line.
fn of_service(cases: &[(&str, &str)]) {
    for (rest, text) in cases {
        let yaml = format!("services:\n- {{name: a, image: b, {rest}}}\n");
        let text = format!("web.yml:2:{text}");
        assert_eq!(error(&yaml), text, "{yaml}");
    }
}

#[test]
fn values_of_the_wrong_type_are_told_with_what_is_expected() {
    of_service(&[
        ("command: ls", "32: a list is expected here, as in `[a, b]`"),
        ("resources: []", "34: keys and values are expected here, as in `{key: value}`"),
        ("readonly: maybe", "33: `true` or `false` is expected here"),
        ("oomScoreAdj: x", "36: a whole number of 32 bits at most is expected here"),
        (
            "resources: {cpu: {shares: -1}}",
            "49: a whole number, 0 or more, of 64 bits at most is expected here",
        ),
        ("env: [null]", "29: a text is expected here; put it in quotes if it is one"),
        (
            "restart: allways",
            "23: `allways` is not one of `always`, `on-failure`, `never`; did you mean `always`?",
        ),
        ("uid: -1", "28: -1 is not the number of a user or group; they begin at 0"),
        ("uid: 4294967295", "28: 4294967295 is too large for the number of a user or group"),
        ("binds.ad: [a]", "23: unknown key `binds.ad`; did you mean `binds.add`?"),
    ]);
    assert_eq!(
        error("services: [{name: a, image: '@pkg:../a'}]"),
        "web.yml:1:29: `@pkg:` asks LinuxKit to build a package, which Kiln does not do; build and push it as an \
         image, and write the name of that"
    );
    assert!(error("init: ['@pkg:../a']").starts_with("web.yml:1:8: `@pkg:` asks"));
    assert!(error("kernel: {image: '@pkg:../a'}").starts_with("web.yml:1:17: `@pkg:` asks"));
}

#[test]
fn mounts_that_make_no_sense_are_refused() {
    of_service(&[
        (
            "binds: [a]",
            "31: bind `a` is not `/source:/destination[:options]` or `volume:/destination[:options]`",
        ),
        (
            "binds: ['/a:/b:c:d']",
            "31: bind `/a:/b:c:d` is not `/source:/destination[:options]` or \
          `volume:/destination[:options]`",
        ),
        ("binds: ['/a:/b/../c']", "31: `/b/../c` of a bind has `..` in it"),
        ("binds: ['/a:/b:readonly']", "31: `readonly` is not an option of a bind"),
        (
            "binds: ['/a:/b:nosiud']",
            "31: `nosiud` is not an option of a bind; did you mean `nosuid`?",
        ),
        ("binds: ['/a:/b:ro,rw']", "31: the options `ro` and `rw` contradict each other"),
        ("tmpfs: [tmp]", "31: tmpfs `tmp` is not `/destination[:options]`"),
        ("mounts: [{destination: /x}]", "32: the mount on `/x` has no `type`"),
        ("mounts: [{type: tmpfs}]", "32: a mount of type `tmpfs` has no `destination`"),
        (
            "mounts: [{type: tmpfs, destination: x}]",
            "32: `x` of `destination` is not an absolute path",
        ),
        (
            "mounts: [{type: tmpfs, destination: /x/..}]",
            "32: `/x/..` of `destination` has `..` in it",
        ),
        ("runtime: {mounts: [{type: tmpfs}]}", "32: a mount of `runtime` has no `destination`"),
        ("runtime: {mkdir: [/a/../..]}", "32: `/a/../..` of `runtime` is empty or has `..` in it"),
    ]);
}

#[test]
fn volumes_are_used_by_their_names_and_only_as_they_can_be() {
    let yaml = |volume: &str, rest: &str| {
        format!("volumes: [{{name: data{volume}}}]\nservices:\n- {{name: a, image: b, {rest}}}\n")
    };
    let ro = ", readonly: true";
    for (volume, rest, text) in [
        (
            "",
            "binds: [dta:/x]",
            "3:31: `dta` is not a volume; add it to `volumes`, or write a path that begins with `/`",
        ),
        (ro, "binds: [data:/x]", "3:31: volume `data` is read-only; add `ro` to the options"),
        (ro, "binds: ['data:/x:rw']", "3:31: volume `data` is read-only; add `ro` to the options"),
        (ro, "binds.add: [data:/x]", "3:35: volume `data` is read-only; add `ro` to the options"),
        (
            ro,
            "mounts: [{type: bind, source: data, destination: /x}]",
            "3:32: volume `data` is read-only; add `ro` to the options",
        ),
        (
            "",
            "mounts: [{type: bind, source: dta, destination: /x}]",
            "3:32: `dta` is not a volume; add it to `volumes`, or write a path that begins with `/`",
        ),
        (
            "}, {name: data",
            "uid: 1",
            "1:32: volume `data` is there twice, first at web.yml:1:18; give one of them another name",
        ),
        (
            ", format: oci",
            "uid: 1",
            "1:32: volume `data` has the format `oci` and no `image` to keep so",
        ),
        (", platforms: [x]", "uid: 1", "1:18: `platforms` of volume `data` needs `format: oci`"),
    ] {
        assert_eq!(error(&yaml(volume, rest)), format!("web.yml:{text}"));
    }
    parse("web.yml", &yaml("", "binds: ['data:/x']")).unwrap();
    // LinuxKit takes only `ro` alone.
    parse("web.yml", &yaml(ro, "binds: ['data:/x:nosuid,ro']")).unwrap();
    assert!(
        error("volumes: [{name: Data}]")
            .starts_with("web.yml:1:18: `Data` cannot be the name of a volume")
    );
    assert!(error("volumes: [{name: ../x}]").starts_with("web.yml:1:18: "));
}

#[test]
fn settings_out_of_their_range_are_refused() {
    of_service(&[
        (
            "capabilities: [NET_ADMIN]",
            "37: unknown capability `NET_ADMIN`; write it as `CAP_NET_ADMIN`, or use `all` or `none` alone",
        ),
        (
            "rlimits: ['nofile,2,1']",
            "33: rlimit `nofile,2,1` has a soft limit above its hard limit; write `name,soft,hard`",
        ),
        ("rlimits: ['nofile,x,1']", "33: `x` in an rlimit is not a number or `unlimited`"),
        ("rlimits: [nofile]", "33: rlimit `nofile` is not `name,soft,hard`"),
        ("net: bridge", "28: `bridge` is not `host`, `new` or an absolute path"),
        (
            "devices: [{path: /dev/x, type: c}]",
            "33: device `/dev/x` needs a `mode`, such as \"0660\"",
        ),
        (
            "devices: [{path: /dev/../x, type: c, mode: 0600}]",
            "33: device `/dev/../x` is not `all` or a path below `/dev/`",
        ),
        (
            "devices: [{path: /dev/x, mode: 0600}]",
            "33: device `/dev/x` needs a `type`: `c` for a character device, `b` for a block device, `p` for a pipe",
        ),
        ("oomScoreAdj: 1001", "36: `oomScoreAdj` is 1001; it goes from -1000 to 1000"),
        ("env: [PATH]", "29: `PATH` of `env` is not `NAME=value`"),
        ("cwd: srv", "28: `srv` of `cwd` is not an absolute path"),
        ("maskedPaths: [proc]", "37: `proc` of `maskedPaths` is not an absolute path"),
        ("hostname: a b", "33: `a b` is not a host name of at most 64 letters"),
        (
            "hostname: a, uts: host",
            "33: `hostname` with `uts: host` would rename the machine; leave one of them out",
        ),
        ("cgroupsPath: ../x", "36: `cgroupsPath` `../x` has `..` in it"),
        ("uid: nobody", "28: `nobody` is not a number, and no container has this name"),
        ("additionalGids: [x]", "40: `x` is not a number, and no container has this name"),
        ("health: {}", "31: `health` needs exactly one of `exec`, `tcp` and `http`"),
        ("health: {tcp: 70000}", "31: `70000` is not a port from 1 to 65535 or `address:port`"),
        ("restart: {delay: 2s, max-delay: 1s}", "32: `max-delay` 1s is shorter than `delay` 2s"),
        ("on-failure: halt", "35: `on-failure` is for `onboot`; services have `restart`"),
        (
            "seccomp: strict",
            "32: `strict` is not `default`, `unconfined` or the path of a profile, such as `./web.json`",
        ),
    ]);
    for key in ["restart: never", "health: {tcp: 1}"] {
        let text = error(&format!("onboot: [{{name: a, image: b, {key}}}]"));
        let word = key.split(':').next().unwrap();
        assert!(text.contains(&format!("`{word}` is for services")), "{text}");
    }
    let text = error("files: [{path: a, contents: b, uid: nobody}]");
    assert_eq!(text, "web.yml:1:37: `nobody` is not a number, and no container has this name");
}

#[test]
fn a_kernel_is_one_thing_and_says_nothing_about_another() {
    assert_eq!(
        error("kernel: {image: a, deb: b}"),
        "web.yml:1:25: a kernel has `image` or `deb`, not both"
    );
    assert_eq!(
        error("kernel: {deb: b, tar: x.tar}"),
        "web.yml:1:15: `tar` names a file of a kernel's image; this kernel is a package"
    );
    assert_eq!(error("init: [kiln, kiln]"), "web.yml:1:14: `kiln` is in `init` twice");
    let spec = parse("web.yml", "kernel: {image: a:1}\ninit: [b:1]").unwrap();
    assert!(matches!(spec.bootable(Arch::Arm64), Ok(KernelSource::Image(_))));
    // Some forms of output need no kernel.
    assert_eq!(parse("web.yml", "init: [b:1]").unwrap().kernel_source(Arch::Arm64).unwrap(), None);
}

#[test]
fn whatever_is_broken_is_told_with_line_and_column() {
    let whole = corpus::EVERYTHING;
    let lines: Vec<_> = whole.lines().collect();
    let mut broken = Vec::new();
    for n in 0..lines.len() {
        broken.push([&lines[..n], &lines[n + 1..]].concat().join("\n"));
        for other in ["\t", "  - x", "zzz: 1", "]", "? {", "'", "&a *a", "\u{0}", "!!int x"] {
            broken.push([&lines[..n], &[other], &lines[n..]].concat().join("\n"));
        }
    }
    broken.extend((0..whole.len()).step_by(29).filter_map(|n| whole.get(..n).map(str::to_owned)));
    let mut refused = 0;
    for text in broken {
        let Err(error) = parse("web.yml", &text) else { continue };
        refused += 1;
        let error = error.to_string();
        let mut parts = error.splitn(4, ':');
        assert_eq!(parts.next(), Some("web.yml"), "{error}\n{text}");
        for _ in 0..2 {
            assert!(parts.next().is_some_and(|n| n.parse::<u32>().is_ok()), "{error}\n{text}");
        }
        let problem = parts.next().unwrap();
        assert!(problem.trim().len() > 5 && !problem.contains('\n'), "{error}\n{text}");
    }
    assert!(refused > 500, "{refused}");
}
