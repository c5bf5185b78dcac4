//! Files that are read, good ones and bad ones.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

const GOOD: &str = "\
# The lab.
machines:
  - name: n1
    macs: [52:54:00:00:00:01]
    image: web:stable
    labels: {rack: r1, slot: 7}
    metadata: {role: db, disk: {size: 7}, secrets: {key: hunter2}}
  - name: n2
    macs: ['52:54:00:00:00:02']
    dhcp-options: {42: 'ip:10.0.0.9'}
groups:
  - name: web
    selector: rack=r1
    settings: {cmdline: quiet}
discovery-rules:
  - {name: rack1, selector: arch=x86_64, action: approve, machine-name: 'rack1-{n:02}'}
";

fn yaml(text: &str) -> Gathered {
    Gathered { name: "lab.yaml".to_owned(), format: Format::Yaml, text: text.to_owned() }
}

fn toml(text: &str) -> Gathered {
    Gathered { name: "lab.toml".to_owned(), format: Format::Toml, text: text.to_owned() }
}

fn wrong(files: &[Gathered]) -> String {
    Described::of(files).unwrap_err().to_string()
}

fn lay(dir: &Path, files: &[(&str, &[u8])]) {
    for (name, text) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

#[test]
fn yaml_toml_and_json_say_the_same_and_what_is_written_reads_as_before_without_secrets() {
    let read = Described::of(&[yaml(GOOD)]).unwrap();
    assert_eq!(read.machines[1].to_string(), "lab.yaml:8:5");
    assert_eq!(read.place("/files/machines/1/macs").unwrap(), &read.machines[1]);
    assert_eq!(read.place("/files/groups/0").unwrap().to_string(), "lab.yaml:12:5");
    assert_eq!(read.place("/files/discovery-rules/0").unwrap().to_string(), "lab.yaml:16:5");
    assert!(read.place("/files/machines/2").is_none() && read.place("/x").is_none());
    let mut expected = read.wanted.clone();
    expected.machines[0].metadata.remove("secrets");
    for style in [Style::Yaml, Style::Toml, Style::Json] {
        let text = write(&read.wanted, style).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        let again = if style == Style::Toml { toml(&text) } else { yaml(&text) };
        let again = Described::of(&[again]).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(again.wanted, expected, "{text}");
    }
    for nothing in ["", "# nothing\n", "machines: []\n", "{}"] {
        assert_eq!(Described::of(&[yaml(nothing)]).unwrap().wanted, Wanted::default());
    }
    assert_eq!(Described::of(&[toml("")]).unwrap().wanted, Wanted::default());
}

#[test]
fn what_is_wrong_is_named_with_file_line_and_column() {
    let machine =
        |more: &str| format!("machines:\n  - name: n1\n    macs: [52:54:00:00:00:01]\n{more}");
    for (text, message) in [
        (machine("    images: web\n"), "lab.yaml:4:5: unknown key `images`; did you mean `image`?"),
        (machine("    image: 'a b'\n"), "lab.yaml:4:12: "),
        (
            "machine: []\n".to_owned(),
            "lab.yaml:1:1: unknown key `machine`; did you mean `machines`?",
        ),
        ("machines:\n  - name: n1\n".to_owned(), "`macs` is missing"),
        ("machines: [\n".to_owned(), "lab.yaml:"),
        ("machines: {}\n".to_owned(), "a list is expected here"),
        (machine("    name: n2\n"), "the key `name` is here twice"),
        ("groups:\n  - {name: a, selector: 'a b c'}\n".to_owned(), "lab.yaml:2:"),
        (
            "---\nmachines: []\n---\nmachines: []\n".to_owned(),
            "lab.yaml:3:1: a second document begins here; a file holds one",
        ),
    ] {
        let problem = wrong(&[yaml(&text)]);
        assert!(problem.contains(message), "{text}\n{problem}");
    }
    for (text, message) in [
        (
            "[[machines]]\nname = \"n1\"\nmacs = [\"52:54:00:00:00:01\"]\nimages = \"web\"\n",
            "lab.toml:4:1: unknown key `images`; did you mean `image`?",
        ),
        ("[[machines]]\nname = 7\n", "lab.toml:2:8: "),
        ("[[machines]\n", "lab.toml:1:"),
        ("[[machines]]\nname = \"n1\"\n", "lab.toml:1:1: "),
        (
            "[[machines]]\nname = \"n1\"\nmacs = [\"52:54:00:00:00:01\"]\nmetadata = {a = 1979-05-27}\n",
            "put it in quotes",
        ),
    ] {
        let problem = wrong(&[toml(text)]);
        assert!(problem.contains(message), "{text}\n{problem}");
    }
    let problems = wrong(&[yaml("x: 1\n"), yaml("y: 1\n")]);
    assert_eq!(problems.lines().count(), 2, "{problems}");
}

#[test]
fn what_two_files_say_of_the_same_is_named_with_both_places() {
    let other = toml(
        "[[machines]]\nname = \"n1\"\nmacs = [\"52:54:00:00:00:09\"]\n\
         [[machines]]\nname = \"n3\"\nmacs = [\"52:54:00:00:00:02\"]\n\
         [[groups]]\nname = \"web\"\nselector = \"*\"\n",
    );
    let problem = wrong(&[yaml(GOOD), other]);
    let expected = "\
lab.toml:1:1: machine `n1` is at lab.yaml:3:5 already; say it once
lab.toml:4:1: the MAC address 52:54:00:00:00:02 is at lab.yaml:8:5 already; say it once
lab.toml:7:1: group `web` is at lab.yaml:12:5 already; say it once";
    assert_eq!(problem, expected);
    let many: String = (0..50).map(|_| "  - {name: n1, macs: [52:54:00:00:00:01]}\n").collect();
    let problem = wrong(&[yaml(&format!("machines:\n{many}"))]);
    assert!(problem.ends_with("and 78 more"), "{problem}");
}

#[test]
fn bombs_and_towers_are_errors_and_take_no_memory() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let before = level - 1;
        bomb += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 10].join(", "));
    }
    let inside = format!(
        "machines:\n  - name: n1\n    macs: [52:54:00:00:00:01]\n    metadata:\n{}",
        bomb.lines().map(|line| format!("      {line}\n")).collect::<String>()
    );
    for text in [bomb, inside] {
        let problem = wrong(&[yaml(&text)]);
        assert!(problem.starts_with("lab.yaml:"), "{problem}");
    }
    for open in ["[", "{a: ", "- "] {
        let problem = wrong(&[yaml(&format!("machines: {}", open.repeat(100_000)))]);
        assert!(problem.starts_with("lab.yaml"), "{problem}");
    }
    for open in ["[", "{a="] {
        let problem = wrong(&[toml(&format!("machines = {}", open.repeat(100_000)))]);
        assert!(problem.starts_with("lab.toml:"), "{problem}");
    }
    // What is said once for many machines is no bomb.
    let mut all = "machines:\n".to_owned();
    for number in 0..3_000_u32 {
        let [.., high, low] = number.to_be_bytes();
        let labels = if number == 0 { "&all {rack: r1, role: web}" } else { "*all" };
        all += &format!(
            "  - {{name: n{number}, macs: ['02:00:00:00:{high:02x}:{low:02x}'], labels: {labels}}}\n"
        );
    }
    let read = Described::of(&[yaml(&all)]).unwrap();
    assert_eq!((read.wanted.machines.len(), read.wanted.machines[2999].labels.len()), (3_000, 2));
}

#[test]
fn a_directory_is_read_in_order_without_what_is_hidden_or_something_else() {
    let dir = tempfile::tempdir().unwrap();
    lay(
        dir.path(),
        &[
            ("b.yaml", b"groups: []"),
            ("a/z.toml", b""),
            ("a/c.yml", b""),
            (".git/x.yaml", b"\xff"),
            (".x.yaml", b"\xff"),
            ("README.md", b"\xff"),
            ("b.yaml~", b"\xff"),
            ("..data/k.yaml", b"machines: []"),
        ],
    );
    // As volumes of Kubernetes have it, and one that points nowhere but is none of ours.
    symlink("..data/k.yaml", dir.path().join("k.yaml")).unwrap();
    symlink("/nowhere", dir.path().join("other")).unwrap();
    let found = gather(dir.path()).unwrap();
    let names: Vec<_> = found.iter().map(|file| file.name.rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["c.yml", "z.toml", "b.yaml", "k.yaml"]);
    assert_eq!(found[1].format, Format::Toml);
    let error = gather(&dir.path().join("README.md")).unwrap_err().to_string();
    assert!(error.contains("README"), "{error}");
}

#[test]
fn a_file_that_cannot_be_read_is_named_and_no_directory_goes_on_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let error = || crate::cli::chain(&gather(dir.path()).unwrap_err());
    lay(dir.path(), &[("a.yaml", b"# b\xc3\xbc\nx: \xff\n")]);
    assert!(error().contains("a.yaml: line 2 is not UTF-8"), "{}", error());
    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    symlink(".", dir.path().join("loop")).unwrap();
    assert!(error().contains("loop: is a link to a folder that it is in"), "{}", error());
    fs::remove_file(dir.path().join("loop")).unwrap();
    symlink("nowhere", dir.path().join("a.yaml")).unwrap();
    assert!(error().contains("a.yaml"), "{}", error());
    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    symlink("a.yaml", dir.path().join("a.yaml")).unwrap();
    assert!(error().contains("a.yaml"), "{}", error());
    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    nix::unistd::mkfifo(&dir.path().join("a.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(error().contains("no regular file"), "{}", error());
    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    // 100 MB, without writing them.
    fs::File::create(dir.path().join("a.yaml")).unwrap().set_len(100_000_000).unwrap();
    assert!(error().contains("larger than 16 MiB"), "{}", error());
    let missing = gather(&dir.path().join("none")).unwrap_err();
    assert!(crate::cli::chain(&missing).contains("No such file"), "{missing}");
}

#[test]
fn a_path_suggests_the_name_of_its_source() {
    let dir = tempfile::tempdir().unwrap();
    for (name, source) in
        [("Lab Net", Some("lab-net")), ("fleet.yaml", Some("fleet")), ("__", None)]
    {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        assert_eq!(source_of(&path).as_deref(), source, "{name}");
    }
    assert_eq!(source_of(Path::new("-")).as_deref(), Some("stdin"));
    assert_eq!(source_of(Path::new("/nowhere")), None);
}

#[test]
fn fuzzed_files_are_read_or_refused_with_their_place() {
    let in_toml = "[[machines]]\nname = \"n1\"\nmacs = [\"52:54:00:00:00:01\"]\n[[groups]]\nname = \"g\"\n\
                   selector = \"rack=r1\"\nsettings = { metadata = { a = 1 } }\n";
    kiln_fuzz::check("inventory-files", &[GOOD.as_bytes(), in_toml.as_bytes()], |bytes| {
        let text = String::from_utf8_lossy(bytes);
        for gathered in [yaml(&text), toml(&text)] {
            if let Err(error) = Described::of(&[gathered]) {
                assert!(!error.to_string().is_empty());
            }
        }
    });
}
