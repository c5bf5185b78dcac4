//! Images from a registry as people run it: logins, authorities, mirrors, and lines that break.

mod build;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kiln_builder::layer::{Limits, flatten};
use kiln_builder::oci::{
    Image, ImageSettings, Images, LayerFile, OciError, Reference, RegistrySettings,
};
use kiln_builder::progress::Silent;
use kiln_builder::tree::{Kind, Tree, TreePath};
use kiln_types::{Arch, Digest};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::rig::layout::{self, CAPABILITY, Sample};
use crate::rig::{Case, Need, PASSWORD, Proxy, Registry, USER, free, work_folder};

/// What the layer has that lines break in.
const LARGE: usize = 3 << 20;

pub(super) fn cases() -> Vec<Case> {
    let needs = Registry::needs();
    let case = |name: &str, run: fn() -> anyhow::Result<()>| {
        Case::new(format!("registry::{name}"), &needs, run)
    };
    vec![
        case("an_image_is_pulled_and_its_layers_are_laid_over_each_other", plain),
        case("a_login_and_an_authority_of_the_site_are_used", guarded),
        case("a_mirror_is_asked_first_and_the_registry_where_it_cannot_help", mirror),
        case("an_architecture_that_an_image_lacks_is_refused_with_those_it_has", wrong_arch),
        case("a_download_that_breaks_off_goes_on_where_it_was", resume),
        case("a_registry_that_dies_leaves_no_half_blob_and_the_next_pull_goes_on", dies),
        case("bytes_that_are_not_what_was_promised_are_thrown_away", damaged),
        case("two_builds_at_a_time_share_every_download", shared),
        Case::new(
            "registry::two_builds_at_a_time_pull_once_and_build_the_same",
            &[&needs[..], &[Need::Program, Need::KilnInit(Arch::X86_64)]].concat(),
            build::builds,
        ),
        Case::new("registry::images_of_a_folder_need_no_network", &[], folder_without_network),
    ]
}

/// A folder with a layout of one image, `web`, and room for a registry and caches.
struct Bench {
    folder: TempDir,
    index: Digest,
}

impl Bench {
    fn new(sample: &Sample) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("registry-").tempdir_in(work_folder())?;
        let digests = layout::write(&folder.path().join("layout"), std::slice::from_ref(sample))?;
        Ok(Self { folder, index: *digests.first().context("no image")? })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a registry and fills it with the image as `team/web:1`.
    fn open(&self, name: &str) -> anyhow::Result<Registry> {
        let registry = Registry::open(&self.at(name))?;
        registry.push(&self.at("layout"), "web", "team/web:1")?;
        Ok(registry)
    }
}

fn plain_http(host: impl ToString) -> RegistrySettings {
    RegistrySettings { host: host.to_string(), plain_http: true, ..RegistrySettings::default() }
}

fn settings(registries: &[RegistrySettings]) -> ImageSettings {
    ImageSettings { registries: registries.to_vec(), ..ImageSettings::default() }
}

/// Pulls an image with its layers, as a build does.
fn pull(
    settings: &ImageSettings,
    cache: &Path,
    name: &str,
    arch: Arch,
) -> anyhow::Result<Result<(Image, Vec<LayerFile>), OciError>> {
    let reference: Reference = name.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let images = Images::open(settings, cache, &Silent)?;
        let image = images.resolve(&reference, arch, None).await?;
        let layers = images.fetch(&image).await?;
        Ok((image, layers))
    }))
}

/// Pulls what must not come, and returns the whole of the message.
fn refused(
    settings: &ImageSettings,
    cache: &Path,
    name: &str,
    arch: Arch,
) -> anyhow::Result<String> {
    let error = pull(settings, cache, name, arch)?.err().context("it was pulled")?;
    Ok(format!("{:#}", anyhow::Error::from(error)))
}

/// Checks that the layers of [`Sample::new`] make the files that they should.
fn check(layers: &[LayerFile], arch: &str) -> anyhow::Result<()> {
    let spool = tempfile::tempdir_in(work_folder())?;
    let tree = flatten(layers, &Limits::default(), spool.path())?;
    let tool = text(&tree, "bin/tool")?;
    ensure!(tool == format!("tool for {arch}"), "the tool is {tool}");
    ensure!(text(&tree, "bin/same")? == tool, "the hard link has other contents");
    ensure!(text(&tree, "gone/above")? == "above", "the file of the upper layer is missing");
    for path in ["gone/below", "etc/old"] {
        ensure!(tree.get(&TreePath::new(path)?).is_none(), "{path} is still there");
    }
    let server = tree.get(&TreePath::new("bin/server")?).context("no bin/server")?;
    let capability = server.xattrs.get("security.capability");
    ensure!(capability == Some(&CAPABILITY[..]), "the capability is {capability:?}");
    let link = tree.get(&TreePath::new("bin/link")?).context("no bin/link")?;
    ensure!(matches!(&link.kind, Kind::Symlink(to) if to == "tool"), "the link is {link:?}");
    Ok(())
}

fn text(tree: &Tree, path: &str) -> anyhow::Result<String> {
    let content = tree.content(&TreePath::new(path)?).with_context(|| format!("no {path}"))?;
    Ok(String::from_utf8(content.read_all(1 << 20)?)?)
}

/// Checks that every blob of a cache is what its name says.
fn whole(cache: &Path) -> anyhow::Result<usize> {
    let mut count = 0;
    let Ok(blobs) = fs::read_dir(cache.join("oci/blobs/sha256")) else { return Ok(0) };
    for blob in blobs {
        let blob = blob?;
        let digest = kiln_builder::hash::sha256(&fs::read(blob.path())?);
        ensure!(blob.file_name().to_str() == Some(&digest.hex()), "{blob:?} is {digest}");
        count += 1;
    }
    Ok(count)
}

fn plain() -> anyhow::Result<()> {
    let bench = Bench::new(&Sample::new("web"))?;
    let registry = bench.open("registry")?;
    let settings = settings(&[plain_http(registry.address())]);
    let name = format!("{}/team/web:1", registry.address());
    for (arch, oci) in [(Arch::X86_64, "amd64"), (Arch::Arm64, "arm64")] {
        let (image, layers) = pull(&settings, &bench.at("cache"), &name, arch)??;
        ensure!(image.index == Some(bench.index), "its index is {:?}", image.index);
        ensure!(image.config.cmd == ["/bin/tool"], "it runs {:?}", image.config.cmd);
        check(&layers, oci)?;
    }
    whole(&bench.at("cache"))?;
    // Nobody is asked without encryption who was not meant to be.
    let text = refused(&self::settings(&[]), &bench.at("other"), &name, Arch::X86_64)?;
    ensure!(text.contains("does not encrypt; if that is meant, set"), "it said {text}");
    // What was pulled is there without the registry, by its digest.
    drop(registry);
    let name = format!("{}@{}", name.trim_end_matches(":1"), bench.index);
    let offline = ImageSettings { offline: true, ..settings };
    check(&pull(&offline, &bench.at("cache"), &name, Arch::X86_64)??.1, "amd64")
}

fn guarded() -> anyhow::Result<()> {
    let bench = Bench::new(&Sample::new("web"))?;
    let registry = Registry::guarded(&bench.at("registry"))?;
    registry.push(&bench.at("layout"), "web", "team/web:1")?;
    let host = registry.address().to_string();
    let name = format!("{host}/team/web:1");
    let login = |password: &str| -> anyhow::Result<ImageSettings> {
        let file = bench.at("password");
        fs::write(&file, format!("{password}\n"))?;
        Ok(settings(&[RegistrySettings {
            host: host.clone(),
            ca: vec![registry.ca()],
            username: Some(USER.to_owned()),
            password_file: Some(file),
            ..RegistrySettings::default()
        }]))
    };
    let refused = |settings: &ImageSettings, expected: &str| -> anyhow::Result<()> {
        let text = refused(settings, &bench.at("refused"), &name, Arch::X86_64)?;
        ensure!(text.contains(expected), "`{expected}` is not in: {text}");
        ensure!(!text.contains("wrong horse"), "the password is in: {text}");
        ensure!(whole(&bench.at("refused"))? == 0, "the cache is not empty");
        Ok(())
    };

    let right = login(PASSWORD)?;
    check(&pull(&right, &bench.at("cache"), &name, Arch::X86_64)??.1, "amd64")?;

    refused(
        &login("wrong horse")?,
        &format!("{host} wants a login for team/web, and does not accept the one that is known"),
    )?;
    let mut stranger = login(PASSWORD)?;
    stranger.registries[0].ca.clear();
    refused(
        &stranger,
        &format!("the certificate of {host} is not one that is trusted (invalid peer certificate"),
    )?;
    let mut unencrypted = login(PASSWORD)?;
    unencrypted.registries[0].plain_http = true;
    refused(&unencrypted, &format!("{host} answers 400"))
}

fn mirror() -> anyhow::Result<()> {
    let bench = Bench::new(&Sample::new("web"))?;
    let registry = bench.open("registry")?;
    let mirror = Registry::open(&bench.at("mirror"))?;
    let (seen_registry, seen_mirror) =
        (Proxy::start(registry.address())?, Proxy::start(mirror.address())?);
    let host = seen_registry.address();
    let name = format!("{host}/team/web:1");
    let with = |mirror: String| {
        let plain = plain_http(&mirror);
        let mirrors = vec![format!("{mirror}/copies")];
        settings(&[RegistrySettings { mirrors, ..plain_http(host) }, plain])
    };
    let both = with(seen_mirror.address().to_string());

    // It has nothing yet.
    check(&pull(&both, &bench.at("first"), &name, Arch::X86_64)??.1, "amd64")?;
    let asked = |proxy: &Proxy, start: &str| {
        proxy.lines().iter().filter(|line| line.starts_with(start)).count()
    };
    ensure!(asked(&seen_mirror, "get /v2/copies/team/web/manifests/1 ") == 1, "no one asked it");
    ensure!(asked(&seen_registry, "get /v2/team/web/blobs/") == 3, "what came was not counted");

    mirror.push(&bench.at("layout"), "web", "copies/team/web:1")?;
    seen_registry.forget();
    check(&pull(&both, &bench.at("second"), &name, Arch::X86_64)??.1, "amd64")?;
    let lines = seen_registry.lines();
    ensure!(lines.is_empty(), "the registry was asked {lines:?}");

    // One that is not there is no obstacle, and is waited for only once.
    let gone = with(free()?.to_string());
    let begin = Instant::now();
    check(&pull(&gone, &bench.at("third"), &name, Arch::X86_64)??.1, "amd64")?;
    ensure!(begin.elapsed() < Duration::from_secs(15), "it took {:?}", begin.elapsed());
    Ok(())
}

fn wrong_arch() -> anyhow::Result<()> {
    let mut sample = Sample::new("web");
    sample.arches = vec!["amd64", "s390x"];
    let bench = Bench::new(&sample)?;
    let registry = bench.open("registry")?;
    let settings = settings(&[plain_http(registry.address())]);
    let name = format!("{}/team/web:1", registry.address());
    let text = refused(&settings, &bench.at("cache"), &name, Arch::Arm64)?;
    ensure!(text.ends_with("has nothing for arm64; it is for linux/amd64, linux/s390x"), "{text}");
    let missing = format!("{}/team/other:1", registry.address());
    let text = refused(&settings, &bench.at("cache"), &missing, Arch::X86_64)?;
    ensure!(text.contains("has no team/other:1; check the name and the tag"), "{text}");
    Ok(())
}

fn resume() -> anyhow::Result<()> {
    let bench = Bench::new(&Sample::new("web").with_large_layer(LARGE))?;
    let registry = bench.open("registry")?;
    let wire = Proxy::start(registry.address())?;
    wire.cut_once(1 << 20);
    let settings = settings(&[plain_http(wire.address())]);
    let name = format!("{}/team/web:1", wire.address());
    let (_, layers) = pull(&settings, &bench.at("cache"), &name, Arch::X86_64)??;
    check(&layers, "amd64")?;
    ensure!(wire.cuts() == 1, "the line was cut {} times", wire.cuts());
    let from = ranges(&wire);
    ensure!(
        matches!(from.as_slice(), [from] if (1 << 18..1 << 20).contains(from)),
        "it went on at {from:?}"
    );
    Ok(())
}

/// Returns the requests for blobs.
fn blobs_asked(wire: &Proxy) -> Vec<String> {
    let lines = wire.lines().into_iter();
    lines.filter(|line| line.starts_with("get /v2/team/web/blobs/")).collect()
}

/// Returns where downloads went on.
fn ranges(wire: &Proxy) -> Vec<u64> {
    let lines = wire.lines();
    let ranges = lines.iter().filter_map(|line| line.strip_prefix("range: bytes="));
    ranges.filter_map(|range| range.trim_end_matches('-').parse().ok()).collect()
}

fn dies() -> anyhow::Result<()> {
    let bench = Bench::new(&Sample::new("web").with_large_layer(LARGE))?;
    let registry = bench.open("registry")?;
    let wire = Proxy::start(registry.address())?;
    wire.die_after(1 << 20);
    let settings = settings(&[plain_http(wire.address())]);
    let name = format!("{}/team/web:1", wire.address());
    let text = refused(&settings, &bench.at("cache"), &name, Arch::X86_64)?;
    let expected = format!("cannot reach {}: ", wire.address());
    ensure!(text.starts_with("cannot pull image") && text.contains(&expected), "it said {text}");
    whole(&bench.at("cache"))?;

    wire.heal();
    wire.forget();
    let (image, layers) = pull(&settings, &bench.at("cache"), &name, Arch::X86_64)??;
    check(&layers, "amd64")?;
    ensure!(ranges(&wire).len() == 1, "it went on at {:?}", ranges(&wire));
    // The index, the manifest, the configuration and the layers.
    let count = whole(&bench.at("cache"))?;
    ensure!(count == 3 + image.layers.len(), "{count} blobs are in the cache");
    let left = fs::read_dir(bench.at("cache/oci/partial"))?.count();
    ensure!(left == 0, "{left} files are left of the downloads");
    Ok(())
}

fn damaged() -> anyhow::Result<()> {
    let bench = Bench::new(&Sample::new("web"))?;
    let registry = bench.open("registry")?;
    let settings = settings(&[plain_http(registry.address())]);
    let name = format!("{}/team/web:1", registry.address());
    let (image, _) = pull(&settings, &bench.at("before"), &name, Arch::X86_64)??;
    let layer = image.layers.last().context("no layers")?;
    let path = registry.blob(&layer.digest);
    let good = fs::read(&path)?;
    fs::write(&path, good.iter().rev().copied().collect::<Vec<_>>())?;
    let text = refused(&settings, &bench.at("cache"), &name, Arch::X86_64)?;
    let expected = format!("where {} was promised; it is damaged or was tampered", layer.digest);
    ensure!(text.contains(&expected), "it said {text}");
    whole(&bench.at("cache"))?;
    fs::write(&path, good)?;
    check(&pull(&settings, &bench.at("cache"), &name, Arch::X86_64)??.1, "amd64")
}

fn shared() -> anyhow::Result<()> {
    let bench = Bench::new(&Sample::new("web").with_large_layer(LARGE))?;
    let registry = bench.open("registry")?;
    let wire = Proxy::start(registry.address())?;
    let settings = settings(&[plain_http(wire.address())]);
    let name = format!("{}/team/web:1", wire.address());
    let cache = bench.at("cache");
    thread::scope(|scope| -> anyhow::Result<()> {
        let pulls: Vec<_> =
            (0..2).map(|_| scope.spawn(|| pull(&settings, &cache, &name, Arch::X86_64))).collect();
        for pull in pulls {
            let pulled = pull.join().map_err(|_| anyhow::anyhow!("a pull panicked"))?;
            check(&pulled??.1, "amd64")?;
        }
        Ok(())
    })?;
    let mut blobs = blobs_asked(&wire);
    let all = blobs.len();
    blobs.sort();
    blobs.dedup();
    ensure!(all == 4 && blobs.len() == 4, "{all} downloads of {blobs:?}");
    Ok(())
}

fn folder_without_network() -> anyhow::Result<()> {
    let bench = Bench::new(&Sample::new("registry.example/team/web:1"))?;
    let settings =
        ImageSettings { dirs: vec![bench.at("layout")], offline: true, ..ImageSettings::default() };
    let pull = |name: &str| pull(&settings, &bench.at("cache"), name, Arch::Arm64);
    let (image, layers) = pull("registry.example/team/web:1")??;
    check(&layers, "arm64")?;
    ensure!(image.index == Some(bench.index), "its index is {:?}", image.index);
    ensure!(whole(&bench.at("cache"))? == 0, "parts were copied into the cache");
    let error = pull("registry.example/team/web:2")?.err().context("it has another tag")?;
    let text = error.to_string();
    ensure!(
        text.contains("is neither in `") && text.contains("no registry may be asked"),
        "{text}"
    );
    Ok(())
}
