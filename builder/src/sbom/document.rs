//! The document: SPDX 2.3 in its JSON form (spdx.github.io/spdx-spec/v2.3).

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::{Arch, Digest};
use serde::{Deserialize, Serialize};

use super::copyright::REF;
use super::database::is_expression;
use super::{ComponentSbom, MAX_PACKAGES, PackageItem, purl, rfc3339};
use crate::hash::sha256;

const NONE: &str = "NOASSERTION";
const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const IMAGE: &str = "SPDXRef-Image";

/// What a document is about.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Name of the image.
    pub image: &'a str,
    /// What it runs on.
    pub arch: Arch,
    /// The time to put into the document, in seconds since 1970: that of all files of the image.
    pub created: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    id: &'static str,
    name: String,
    document_namespace: String,
    creation_info: CreationInfo,
    packages: Vec<Package<'a>>,
    relationships: Vec<Relationship>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    has_extracted_licensing_infos: Vec<Licence>,
}

#[derive(Serialize)]
struct CreationInfo {
    created: String,
    creators: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Package<'a> {
    #[serde(rename = "SPDXID")]
    id: String,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_info: Option<&'a str>,
    download_location: &'static str,
    files_analyzed: bool,
    license_concluded: &'static str,
    license_declared: &'a str,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary_package_purpose: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checksums: Vec<Checksum>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<ExternalRef>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalRef {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: String,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship {
    spdx_element_id: String,
    relationship_type: &'static str,
    related_spdx_element: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Licence {
    license_id: String,
    name: String,
    extracted_text: String,
}

impl<'a> Package<'a> {
    fn new(id: String, name: &'a str) -> Self {
        Self {
            id,
            name,
            version_info: None,
            download_location: NONE,
            files_analyzed: false,
            license_concluded: NONE,
            license_declared: NONE,
            copyright_text: NONE,
            primary_package_purpose: None,
            checksums: Vec::new(),
            external_refs: Vec::new(),
        }
    }

    fn digest(mut self, digest: Option<&Digest>) -> Self {
        let value = digest.map(Digest::hex);
        self.checksums
            .extend(value.map(|value| Checksum { algorithm: "SHA256", checksum_value: value }));
        self
    }

    fn purl(mut self, purl: Option<String>) -> Self {
        self.external_refs.extend(purl.map(|reference_locator| ExternalRef {
            reference_category: "PACKAGE-MANAGER",
            reference_type: "purl",
            reference_locator,
        }));
        self
    }
}

/// Writes the document of a version. The same components give the same bytes.
///
/// # Errors
///
/// Fails only when a value has no JSON form, which none of ours lacks.
pub fn spdx(about: &About<'_>, components: &[ComponentSbom]) -> Result<Vec<u8>, serde_json::Error> {
    let mut image = Package::new(IMAGE.to_owned(), about.image);
    image.primary_package_purpose = Some("OPERATING_SYSTEM");
    let mut packages = BTreeMap::from([(IMAGE.to_owned(), image)]);
    let mut links = BTreeSet::from([link(DOCUMENT, "DESCRIBES", IMAGE)]);
    for (n, component) in components.iter().enumerate() {
        let id = format!("SPDXRef-Component-{n:03}-{}", clean(&component.component));
        let mut package = Package::new(id.clone(), &component.component);
        package.primary_package_purpose = Some("CONTAINER");
        packages.insert(id.clone(), package);
        links.insert(link(IMAGE, "CONTAINS", &id));
        if let Some(image) = &component.image {
            let name = purl::image(&image.reference, &image.digest);
            let source = format!("SPDXRef-Oci-{}", short(&name));
            let mut package = Package::new(source.clone(), &image.reference);
            package.primary_package_purpose = Some("CONTAINER");
            let package = package.digest(Some(&image.digest)).purl(Some(name));
            packages.insert(source.clone(), package);
            links.insert(link(&id, "CONTAINS", &source));
        }
        contents(&id, &component.packages, &mut packages, &mut links);
    }
    let licences = licences(components);
    let packages: Vec<_> = packages.into_values().collect();
    let relationships: Vec<_> = links.into_iter().collect();
    // The name of the document is the digest of what it says, so that two that differ never share one.
    let content = sha256(&serde_json::to_vec(&(&packages, &relationships, about.created))?);
    let name = format!("{}-{}", about.image, about.arch);
    let document = Document {
        spdx_version: "SPDX-2.3",
        data_license: "CC0-1.0",
        id: DOCUMENT,
        document_namespace: format!(
            "https://spdx.org/spdxdocs/kiln-{}-{}",
            clean(&name),
            content.hex()
        ),
        name,
        creation_info: CreationInfo {
            created: rfc3339(about.created),
            creators: vec![concat!("Tool: kiln-", env!("CARGO_PKG_VERSION")).to_owned()],
        },
        packages,
        relationships,
        has_extracted_licensing_infos: licences,
    };
    let mut bytes = serde_json::to_vec_pretty(&document)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Adds the packages of one component. One that two components hold is listed once.
fn contents<'a>(
    component: &str,
    items: &'a [PackageItem],
    packages: &mut BTreeMap<String, Package<'a>>,
    links: &mut BTreeSet<Relationship>,
) {
    let mut ids: BTreeMap<&str, String> = BTreeMap::new();
    for item in items {
        let id = id(item);
        ids.entry(&item.name).or_insert_with(|| id.clone());
        links.insert(link(component, "CONTAINS", &id));
        packages.entry(id.clone()).or_insert_with(|| {
            let mut package = Package::new(id, &item.name);
            package.version_info = Some(&item.version);
            package.license_declared = item.licence.as_deref().unwrap_or(NONE);
            package.digest(item.sha256.as_ref()).purl(item.purl.clone())
        });
    }
    for item in items {
        let from = id(item);
        for to in item.depends.iter().filter_map(|name| ids.get(name.as_str())) {
            if *to != from {
                links.insert(link(&from, "DEPENDS_ON", to));
            }
        }
    }
}

/// An identifier that the same package has in every component.
fn id(item: &PackageItem) -> String {
    let digest = item.sha256.as_ref().map(Digest::hex).unwrap_or_default();
    let purl = item.purl.as_deref().unwrap_or_default();
    let licence = item.licence.as_deref().unwrap_or_default();
    let key = [&item.name, &item.version, purl, licence, &digest].join("\n");
    format!("SPDXRef-Package-{}-{}", clean(&item.name), short(&key))
}

fn short(text: &str) -> String {
    sha256(text.as_bytes()).short()
}

/// Keeps the characters that an identifier may have.
fn clean(text: &str) -> String {
    let one = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    text.chars().map(one).take(80).collect()
}

fn link(from: &str, kind: &'static str, to: &str) -> Relationship {
    Relationship {
        spdx_element_id: from.to_owned(),
        relationship_type: kind,
        related_spdx_element: to.to_owned(),
    }
}

/// Licences without a name of SPDX have to be described in the document.
fn licences(components: &[ComponentSbom]) -> Vec<Licence> {
    let all = components.iter().flat_map(|component| &component.packages);
    let words = all
        .filter_map(|item| item.licence.as_deref())
        .flat_map(|it| it.split([' ', '(', ')']).filter(|word| word.starts_with(REF)));
    let names: BTreeSet<_> = words.collect();
    let describe = |id: &str| {
        let name = id.trim_start_matches(REF).trim_start_matches("Debian-").to_owned();
        let extracted_text = format!(
            "The licence that Debian calls `{name}`; its text is in /usr/share/doc/*/copyright of the packages that \
             declare it."
        );
        Licence { license_id: id.to_owned(), name, extracted_text }
    };
    names.into_iter().map(describe).collect()
}

/// The parts of somebody else's document that are taken over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attested {
    #[serde(default)]
    packages: Vec<AttestedPackage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AttestedPackage {
    name: String,
    #[serde(default)]
    version_info: String,
    #[serde(default)]
    license_declared: String,
    #[serde(default)]
    external_refs: Vec<AttestedRef>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AttestedRef {
    #[serde(default)]
    reference_type: String,
    #[serde(default)]
    reference_locator: String,
}

/// Adds what the makers of an image say of it: packages that have a package URL which was not found in its files,
/// such as the libraries that a program was linked from. An in-toto statement around the document is taken off.
/// What cannot be read is left out, for it is a claim of others.
pub(super) fn merge(found: &mut Vec<PackageItem>, attestation: &[u8]) {
    #[derive(Deserialize)]
    struct Statement {
        predicate: Attested,
    }
    let attested = match serde_json::from_slice::<Statement>(attestation) {
        Ok(statement) => Some(statement.predicate),
        Err(_) => serde_json::from_slice(attestation).ok(),
    };
    // Versions tell packages of the same name apart; qualifiers are written in more than one way.
    let bare = |purl: &str| purl.split('?').next().unwrap_or_default().to_owned();
    let mut known: BTreeSet<String> =
        found.iter().filter_map(|item| item.purl.as_deref()).map(bare).collect();
    for package in attested.into_iter().flat_map(|it| it.packages).take(MAX_PACKAGES) {
        let purl = package.external_refs.into_iter().find(|it| it.reference_type == "purl");
        let Some(purl) = purl.map(|it| it.reference_locator) else { continue };
        let odd = |c: char| c.is_whitespace() || c.is_control();
        if !purl.starts_with("pkg:")
            || purl.len() > 1024
            || purl.contains(odd)
            || package.name.len() > 256
            || package.version_info.len() > 256
            || !known.insert(bare(&purl))
        {
            continue;
        }
        let licence = Some(package.license_declared);
        found.push(PackageItem {
            name: package.name,
            version: package.version_info,
            purl: Some(purl),
            sha256: None,
            // A reference would need the text that goes with it.
            licence: licence
                .filter(|it| is_expression(it) && it != NONE && it != "NONE" && !it.contains(REF)),
            depends: BTreeSet::new(),
        });
    }
}
