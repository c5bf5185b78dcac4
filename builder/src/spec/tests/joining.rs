//! Several files become one specification.

use std::fs;

use super::*;

fn joined(texts: &[&str]) -> Result<Spec, SpecError> {
    let dir = tempfile::tempdir().unwrap();
    let paths: Vec<_> =
        (1..).map(|n| dir.path().join(format!("{n}.yml"))).take(texts.len()).collect();
    paths.iter().zip(texts).for_each(|(path, text)| fs::write(path, text).unwrap());
    load(&paths)
}

#[test]
fn lists_are_appended_and_keys_of_the_kernel_replaced_one_by_one() {
    let spec = joined(&[
        "kernel: {image: a:1, cmdline: x, ucode: u, tar: t}\ninit: [a:1]\nonboot: [{name: a, image: a}]",
        "kernel: {cmdline: y, ucode: '', binary: b}\ninit: [b:1]\nonboot: [{name: a, image: b}]",
        "kernel: {image: c:1, cmdline: ''}\nfiles: [{path: a, contents: b}]",
    ])
    .unwrap();
    let kernel = &spec.kernel;
    assert!(kernel.image.as_ref().unwrap().to_string().ends_with("/c:1"));
    assert_eq!(kernel.cmdline.as_ref().unwrap().get(Arch::X86_64), Some("y"));
    let said = (kernel.binary.as_deref(), kernel.tar.as_deref(), kernel.ucode.as_deref());
    assert_eq!(said, (Some("b"), Some("t"), Some("")));
    assert_eq!((spec.init.len(), spec.onboot.len(), spec.files.len()), (2, 2, 1));
}

#[test]
fn the_last_kernel_wins_whatever_it_is_made_from() {
    let spec = joined(&["kernel: {image: a:1}", "kernel: {deb: b}"]).unwrap();
    assert_eq!(spec.kernel.image, None);
    assert_eq!(spec.kernel.deb.unwrap().get(Arch::X86_64), Some("b"));
}

#[test]
fn volumes_of_every_file_can_be_used_in_every_file() {
    let service = "services: [{name: a, image: b, binds: ['one:/one', 'two:/two']}]";
    let spec = joined(&["volumes: [{name: one}]", service, "volumes: [{name: two}]"]).unwrap();
    assert_eq!(spec.volumes.len(), 2);
    let error = joined(&["volumes: [{name: one}]", service]).unwrap_err().to_string();
    assert!(error.contains("2.yml:1:52: `two` is not a volume"), "{error}");
    let error = joined(&["volumes: [{name: one}]", "volumes: [{name: one}]"]).unwrap_err();
    assert!(error.to_string().contains("2.yml:1:18: volume `one` is there twice"), "{error}");
}

#[test]
fn sources_are_found_beside_the_file_that_names_them_and_written_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yml");
    let beside = dir.path().join("here.txt");
    fs::write(&beside, "x").unwrap();
    fs::write(
        &path,
        "files: [{path: a, source: here.txt}, {path: b, source: Cargo.toml}, {path: c, source: no}]\n\
         services: [{name: a, image: b, seccomp: ./p.json}]",
    )
    .unwrap();
    let spec = load(&[path]).unwrap();
    let sources: Vec<_> = spec.files.iter().map(|file| file.source.as_ref().unwrap()).collect();
    assert_eq!(sources[0].path(), beside);
    // Like LinuxKit: the tests run in the folder of the package.
    assert_eq!(sources[1].path(), std::path::Path::new("Cargo.toml"));
    assert_eq!(sources[2].path(), dir.path().join("no"));
    assert_eq!(sources[0].written(), "here.txt");
    assert!(!spec.to_yaml().unwrap().contains(dir.path().to_str().unwrap()));
    let Some(Seccomp::File(profile)) = spec.services[0].seccomp.as_deref() else { panic!() };
    assert_eq!(profile.path(), dir.path().join("./p.json"));
}

#[test]
fn the_standard_input_is_one_of_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yml");
    fs::write(&path, "init: [kiln]").unwrap();
    let from = |paths: &[&std::path::Path], text: &str| {
        let paths: Vec<_> = paths.iter().map(|path| path.to_path_buf()).collect();
        load::load_from(&paths, text.as_bytes())
    };
    let input = std::path::Path::new("-");
    let spec =
        from(&[&path, input], "init: [a:1]\nfiles: [{path: a, source: Cargo.toml}]").unwrap();
    assert_eq!(spec.init.len(), 2);
    let source = spec.files[0].source.as_ref().unwrap();
    assert_eq!(source.path(), std::path::Path::new("Cargo.toml"));
    let error = from(&[input], "init: 3").unwrap_err().to_string();
    assert!(error.starts_with("standard input:1:7: "), "{error}");
    let again = from(&[input, input], "init: [a:1]").unwrap_err();
    let source = std::error::Error::source(&again).unwrap().to_string();
    assert_eq!(source, "the standard input can be read only once");
    assert!(matches!(from(&[], ""), Err(SpecError::None)));
}

#[test]
fn folders_with_images_are_found_beside_the_file_that_names_them_and_mean_one_thing() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
    let write = |dir: &std::path::Path, text: &str| {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("a.yml"), text).unwrap();
        dir.join("a.yml")
    };
    let all = "kernel: {image: 'oci:k:1'}\ninit: ['oci-archive:i.tar']\n\
               volumes: [{name: v, image: 'dir:v'}]\n\
               services: [{name: s, image: 'docker-archive:s.tar:web:1'}]";
    let spec = load(&[write(&one, all)]).unwrap();
    let found: Vec<_> = spec.image_refs().into_iter().map(|(it, _)| it.given().unwrap()).collect();
    let paths: Vec<_> = found.iter().map(|given| given.path().to_owned()).collect();
    assert_eq!(paths, ["k", "i.tar", "v", "s.tar"].map(|name| one.join(name)));
    assert!(spec.to_yaml().unwrap().contains("docker-archive:s.tar:web:1"));

    let onboot = |image: &str| format!("onboot: [{{name: o, image: 'dir:{image}'}}]");
    let error = load(&[one.join("a.yml"), write(&two, &onboot("v"))]).unwrap_err().to_string();
    assert!(error.contains("two/a.yml:1:27: `dir:v` is `"), "{error}");
    assert!(error.ends_with("write one of them in another way"), "{error}");
    load(&[one.join("a.yml"), write(&two, &onboot("../two/v"))]).unwrap();
}
