use std::collections::BTreeSet;

use kiln_types::Arch;
use serde_json::Value;

use super::*;
use crate::hash::sha256;
use crate::tree::Node;

const COPYRIGHT: &str = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
                         Files: *\nCopyright: a\nLicense: GPL-2+ or public-domain\n";
const STATUS: &str = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.41-12\n\n\
                      Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2.37-2+b5\n\
                      Pre-Depends: libc6 (>= 2.38)\nDepends: base-files (>= 2.1.12) | libc6:any\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n";
const APK: &str = "C:Q1abc=\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\n\n\
                   P:busybox\nV:1.37.0-r12\nA:x86_64\nL:GPL-2.0-only\nD:musl>=1.2 so:libc.musl-x86_64.so.1 !gcc\n\
                   F:bin\nR:busybox\n";

fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::new();
    for (path, text) in files {
        let node = match text.strip_prefix("-> ") {
            Some(target) => Node::symlink(target),
            None => Node::file(0o644, text.as_bytes()),
        };
        tree.insert(TreePath::new(path).unwrap(), node);
    }
    tree
}

fn entry(name: &str) -> PackageEntry {
    PackageEntry {
        name: name.to_owned(),
        version: "1:2.0-1+b1".to_owned(),
        arch: "amd64".to_owned(),
        sha256: sha256(name.as_bytes()),
    }
}

/// A version with a component of every kind.
fn components() -> Vec<ComponentSbom> {
    let (a, b) = (entry("a"), entry("b"));
    let packages = [
        DebianPackage { entry: &a, depends: vec!["b".to_owned(), "virtual".to_owned()] },
        DebianPackage { entry: &b, depends: vec!["a".to_owned()] },
    ];
    let root = tree(&[("usr/share/doc/a/copyright", COPYRIGHT)]);
    let debian = of_component("ssh", &Origin::Debian(&packages), &root);
    let image = Origin::Image {
        reference: "registry.example/web:1",
        digest: sha256(b"web"),
        attestations: &[],
    };
    let files = [
        ("etc/os-release", "NAME=x\nID=debian\nVERSION_ID=\"13\"\n"),
        ("var/lib/dpkg/status", STATUS),
        ("lib/apk/db/installed", APK),
    ];
    let web = of_component("web", &image, &tree(&files));
    let mut kernel = of_component("kernel-modules", &Origin::Debian(&packages[1..]), &root);
    add_kernel(&mut kernel, "6.12.57+deb13-amd64", sha256(b"kernel"));
    vec![of_init("init", sha256(b"init")), kernel, debian, web]
}

fn document(components: &[ComponentSbom]) -> Value {
    let about = About { image: "demo", arch: Arch::X86_64, created: 0 };
    serde_json::from_slice(&spdx(&about, components).unwrap()).unwrap()
}

fn find<'a>(found: &'a [PackageItem], name: &str) -> &'a PackageItem {
    found.iter().find(|item| item.name == name).unwrap()
}

#[test]
fn the_data_bases_of_an_image_are_read() {
    let all = components();
    let web = &all[3].packages;
    assert_eq!(
        web.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(),
        ["bash", "busybox", "libc6", "musl"]
    );
    let bash = find(web, "bash");
    assert_eq!(
        bash.purl.as_deref().unwrap(),
        "pkg:deb/debian/bash@5.2.37-2%2Bb5?arch=amd64&distro=debian-13"
    );
    assert_eq!(bash.depends, ["base-files", "libc6"].map(str::to_owned).into());
    let busybox = find(web, "busybox");
    assert_eq!(busybox.licence.as_deref(), Some("GPL-2.0-only"));
    assert_eq!(busybox.depends, BTreeSet::from(["musl".to_owned()]));
}

#[test]
fn images_without_dpkg_and_moved_data_bases_are_read_too() {
    let files = [
        ("var/lib/dpkg/status.d/tzdata", "Package: tzdata\nVersion: 2025b\nArchitecture: all\n"),
        ("var/lib/dpkg/status.d/tzdata.md5sums", "00 usr/share\n"),
        ("usr/lib/apk/db/installed", "P:musl\nV:1\n"),
        ("lib", "-> usr/lib"),
    ];
    let found = of_component("web", &Origin::Folder, &tree(&files)).packages;
    // Both ways lead to the same file, and the package is there once.
    assert_eq!(found.len(), 2);
    assert!(find(&found, "tzdata").purl.as_deref().unwrap().ends_with("tzdata@2025b?arch=all"));
}

#[test]
fn what_an_image_holds_cannot_lead_out_of_it_or_go_round_for_ever() {
    for files in [
        vec![("var/lib/dpkg/status", "-> status")],
        vec![("var/lib/dpkg/status", "-> ../../../../../../etc/passwd")],
        vec![("var/lib/dpkg", "-> dpkg/a")],
        vec![("var/lib/dpkg/status", "Package: \nVersion: 1\n\n\n\n\nVersion: 2\n\u{0}")],
        vec![("lib/apk/db/installed", "P:\nV:1\n\nP:a\n")],
    ] {
        assert!(of_component("web", &Origin::Folder, &tree(&files)).packages.is_empty());
    }
    let long = format!("Package: {}\nVersion: 1\n", "a".repeat(10_000));
    let files = [("var/lib/dpkg/status", long.as_str())];
    assert!(of_component("web", &Origin::Folder, &tree(&files)).packages.is_empty());
}

#[test]
fn licences_come_from_the_copyright_file_even_through_links() {
    let (a, b) = (entry("a"), entry("b"));
    let packages = [&a, &b].map(|entry| DebianPackage { entry, depends: Vec::new() });
    let files = [("usr/share/doc/a/copyright", COPYRIGHT), ("usr/share/doc/b", "-> a")];
    let found = of_component("ssh", &Origin::Debian(&packages), &tree(&files)).packages;
    for item in &found {
        assert_eq!(
            item.licence.as_deref(),
            Some("GPL-2.0-or-later OR LicenseRef-Debian-public-domain")
        );
    }
}

#[test]
fn the_makers_documents_add_what_was_not_found() {
    let package = |name: &str, purl: &str| {
        serde_json::json!({
            "name": name, "versionInfo": "1", "licenseDeclared": "Apache-2.0",
            "externalRefs": [{"referenceType": "purl", "referenceLocator": purl}]
        })
    };
    let sbom = serde_json::json!({"packages": [
        package("bash", "pkg:deb/debian/bash@5.2.37-2%2Bb5?distro=x"),
        package("tokio", "pkg:cargo/tokio@1.54.1"),
        package("bad", "javascript:alert(1)"),
    ]});
    let statement = serde_json::json!({"_type": "x", "predicate": sbom});
    for text in [sbom.to_string(), statement.to_string()] {
        let attestations = [text.into_bytes(), b"nonsense".to_vec()];
        let origin = Origin::Image {
            reference: "registry.example/web:1",
            digest: sha256(b"web"),
            attestations: &attestations,
        };
        let found = of_component("web", &origin, &tree(&[("var/lib/dpkg/status", STATUS)]));
        let names: Vec<_> = found.packages.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["bash", "libc6", "tokio"]);
    }
}

#[test]
fn what_is_remembered_of_a_component_is_all_there_is_to_know() {
    for component in components() {
        let text = serde_json::to_string(&component).unwrap();
        assert_eq!(serde_json::from_str::<ComponentSbom>(&text).unwrap(), component);
    }
}

#[test]
fn the_same_components_give_the_same_bytes_and_others_another_name() {
    let about = About { image: "demo", arch: Arch::X86_64, created: 0 };
    let first = spdx(&about, &components()).unwrap();
    assert_eq!(first, spdx(&about, &components()).unwrap());
    let namespace = |value: &Value| value["documentNamespace"].as_str().unwrap().to_owned();
    let (all, fewer) = (document(&components()), document(&components()[1..]));
    assert_ne!(namespace(&all), namespace(&fewer));
    assert_eq!(all["creationInfo"]["created"], "1970-01-01T00:00:00Z");
}

/// The rules of SPDX 2.3 that a JSON document has to keep.
#[test]
fn the_document_keeps_the_rules_of_spdx() {
    let document = document(&components());
    let text = |value: &Value, key: &str| -> String {
        value[key].as_str().unwrap_or_else(|| panic!("{key} of {value}")).to_owned()
    };
    // Clause 6: creation information.
    assert_eq!(text(&document, "spdxVersion"), "SPDX-2.3");
    assert_eq!(text(&document, "dataLicense"), "CC0-1.0");
    assert_eq!(text(&document, "SPDXID"), "SPDXRef-DOCUMENT");
    assert!(!text(&document, "name").is_empty());
    let namespace = text(&document, "documentNamespace");
    assert!(namespace.starts_with("https://") && !namespace.contains(['#', ' ']), "{namespace}");
    let creator = document["creationInfo"]["creators"][0].as_str().unwrap();
    assert!(creator.starts_with("Tool: "), "{creator}");
    // Clause 7: packages.
    let mut ids = BTreeSet::from(["SPDXRef-DOCUMENT".to_owned()]);
    let known: BTreeSet<String> = document["hasExtractedLicensingInfos"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            assert!(!text(it, "extractedText").is_empty());
            text(it, "licenseId")
        })
        .collect();
    for package in document["packages"].as_array().unwrap() {
        let id = text(package, "SPDXID");
        let rest = id.strip_prefix("SPDXRef-").unwrap();
        assert!(rest.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c)), "{id}");
        assert!(ids.insert(id.clone()), "{id} is there twice");
        assert!(!text(package, "name").is_empty());
        assert_eq!(text(package, "downloadLocation"), "NOASSERTION");
        // Without analysed files there is no verification code.
        assert_eq!(package["filesAnalyzed"], false);
        for checksum in package["checksums"].as_array().into_iter().flatten() {
            assert_eq!(text(checksum, "algorithm"), "SHA256");
            assert_eq!(text(checksum, "checksumValue").len(), 64);
        }
        for reference in package["externalRefs"].as_array().into_iter().flatten() {
            assert_eq!(text(reference, "referenceCategory"), "PACKAGE-MANAGER");
            assert!(text(reference, "referenceLocator").starts_with("pkg:"));
        }
        let licence = text(package, "licenseDeclared");
        for word in licence.split([' ', '(', ')']).filter(|it| it.starts_with("LicenseRef-")) {
            assert!(known.contains(word), "{word} is not described");
        }
    }
    // Clause 11: relationships.
    let links = document["relationships"].as_array().unwrap();
    let mut kinds = BTreeSet::new();
    for link in links {
        for end in ["spdxElementId", "relatedSpdxElement"] {
            assert!(ids.contains(&text(link, end)), "{link} leads nowhere");
        }
        kinds.insert(text(link, "relationshipType"));
    }
    let want = ["CONTAINS", "DEPENDS_ON", "DESCRIBES"];
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), want);
    // Everything is reached from the document.
    let reached: BTreeSet<_> = links.iter().map(|link| text(link, "relatedSpdxElement")).collect();
    ids.remove("SPDXRef-DOCUMENT");
    assert!(ids.is_subset(&reached));
}

#[test]
fn a_package_of_two_components_is_listed_once() {
    let document = document(&components());
    let packages = document["packages"].as_array().unwrap();
    assert_eq!(packages.iter().filter(|it| it["name"] == "b").count(), 1);
    let linux = packages.iter().find(|it| it["name"] == "linux").unwrap();
    assert_eq!(linux["externalRefs"][0]["referenceLocator"], "pkg:generic/linux@6.12.57%2Bdeb13");
    assert!(packages.iter().any(|it| it["name"] == "kiln-init"));
}

#[test]
fn packages_depend_on_those_that_are_there_by_name_or_by_what_they_provide() {
    let controls = [
        (
            "app",
            "Package: app\nPre-Depends: libc6 (>= 2.36)\nDepends: awk, mail | exim:any,\n gone\n",
        ),
        ("libc6", "Package: libc6\nDepends: libgcc-s1\n"),
        ("libgcc-s1", "Package: libgcc-s1\nDepends: libc6\n"),
        ("mawk", "Package: mawk\nProvides: awk (= 1)\nDepends: awk\n"),
        ("exim", "Package: exim\nProvides: libc6\n"),
    ]
    .map(|(name, control)| (name, control.to_owned()));
    let found = dependencies(controls.iter().map(|(name, control)| (*name, control)));
    assert_eq!(found["app"], ["exim", "libc6", "mawk"]);
    assert_eq!(
        (found["libc6"][0].as_str(), found["libgcc-s1"][0].as_str()),
        ("libgcc-s1", "libc6")
    );
    assert!(found["mawk"].is_empty() && found["exim"].is_empty());
}
