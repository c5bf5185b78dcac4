use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_types::{Arch, Digest, ImageRef};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::BuildError;
use super::containers::places;
use super::inputs::{Fetched, Inputs, key};
use crate::bundle::seccomp::Profile;
use crate::bundle::{Ids, Surroundings, VolumeFiles, Volumes};
use crate::manifest::{KernelEntry, SegmentEntry};
use crate::modules::ModulesError;
use crate::progress::Progress;
use crate::spec::{FileSpec, Layout, ModuleSelection, Placed, Spec, UserId};
use crate::store::Store;
use crate::tree::{Content, Kind, Node, Tree, TreePath, TreePathError};
use crate::{bundle, deb, hash, init_binary, kernel, modules, segment};

/// Packs the components of one image.
pub(super) struct Components<'a> {
    pub(super) store: Store,
    pub(super) progress: &'a dyn Progress,
    pub(super) mtime: u32,
    pub(super) reused: Vec<String>,
    /// Where the files of these packages are, with these mount points: a second container of the same takes them from
    /// there.
    pub(super) roots: BTreeMap<(Vec<Digest>, Vec<String>, Layout), String>,
}

/// What is remembered of a kernel.
#[derive(Serialize, Deserialize)]
struct KernelAndModules {
    kernel: KernelEntry,
    modules: SegmentEntry,
    at_start: Vec<String>,
}

impl Components<'_> {
    /// Packs everything, in the order in which the kernel reads it, and tells what had been packed before.
    pub(super) async fn pack(
        mut self,
        spec: &Spec,
        image: &ImageRef,
        arch: Arch,
        inputs: &Inputs,
    ) -> Result<(KernelEntry, Vec<SegmentEntry>, Vec<String>), BuildError> {
        let modules = spec.kernel.modules.as_ref();
        let selection = modules.map(|modules| (**modules).clone()).unwrap_or_default();
        let kernel = self.kernel(&inputs.kernel, selection).await.map_err(|error| match error {
            BuildError::Modules(ModulesError::Unknown { name, release }) => BuildError::NoModule {
                place: modules.map_or(&spec.place, Placed::place).clone(),
                name,
                release,
            },
            other => other,
        })?;
        let mut segments = vec![self.init(spec, image, arch, &kernel.at_start).await?];
        if kernel.modules.unpacked > 0 {
            segments.push(kernel.modules);
        }
        let ids = Ids::new(spec.containers().map(|container| container.name.as_str()));
        let volumes = Volumes::new(spec.volumes.iter().map(|v| (v.name.as_str(), v.readonly)));
        for volume in &spec.volumes {
            let name = volume.name.as_str();
            let tree = bundle::write_volume(name, volume.readonly, VolumeFiles::Empty)
                .map_err(|source| place(name, source))?;
            segments.push(self.tree(&format!("volume-{name}"), tree).await?);
        }
        for (path, container) in places(spec) {
            let settled = container.settle(None, None);
            let profile = Profile::load(&settled.seccomp)?;
            let around =
                Surroundings { arch, ids: &ids, volumes: &volumes, seccomp: profile.as_ref() };
            let packages = inputs.containers.get(&container.deb);
            let packages = packages.map(Vec::as_slice).unwrap_or_default();
            let layout = spec.layout_of(container);
            segments.push(self.container(settled, around, layout, path, packages).await?);
        }
        if !spec.files.is_empty() {
            let files = spec.files.clone();
            let tree = blocking(move || files_tree(&files)).await??;
            segments.push(self.tree("files", tree).await?);
        }
        Ok((kernel.kernel, segments, self.reused))
    }

    async fn kernel(
        &mut self,
        packages: &[Fetched],
        selection: ModuleSelection,
    ) -> Result<KernelAndModules, BuildError> {
        let mut key = key("kernel", packages, self.mtime);
        key.field(&format!("{selection:?}"));
        let key = key.finish();
        let there = |digest: &Digest| self.store.artifact(digest).exists();
        let known: Option<KernelAndModules> = self.store.remembered(&key);
        if let Some(known) =
            known.filter(|known| there(&known.kernel.digest) && there(&known.modules.digest))
        {
            self.reused.extend(["kernel".to_owned(), known.modules.component.clone()]);
            return Ok(known);
        }
        let task = self.progress.begin("packing kernel", None);
        let (store, mtime) = (self.store.clone(), self.mtime);
        let name = packages
            .iter()
            .map(|package| package.entry.name.as_str())
            .collect::<Vec<_>>()
            .join(", ");
        let paths = paths(packages);
        let packed = blocking(move || -> Result<_, BuildError> {
            let tree = unpack(&paths)?;
            let found = kernel::from_packages(&tree, &name)?;
            let modules = modules::collect(&tree, &found.release, &selection, &store.tmp_dir())?;
            let entry = KernelEntry {
                digest: store.put(&found.bytes)?,
                size: found.bytes.len() as u64,
                release: found.release,
                efi_stub: found.efi_stub,
            };
            let mut segment_key = hash::Hasher::default();
            segment_key.field("kernel-modules");
            segment_key.update(key.as_bytes());
            let segment_key = segment_key.finish();
            let mut segment =
                segment::write(&store, "kernel-modules", &segment_key, &modules.tree, mtime)?;
            if modules.tree.is_empty() {
                segment.unpacked = 0;
            }
            let packed =
                KernelAndModules { kernel: entry, modules: segment, at_start: modules.at_start };
            store.remember(&key, &packed)?;
            Ok(packed)
        })
        .await?;
        task.finish();
        packed
    }

    async fn init(
        &mut self,
        spec: &Spec,
        image: &ImageRef,
        arch: Arch,
        at_start: &[String],
    ) -> Result<SegmentEntry, BuildError> {
        let binary = init_binary::load(arch)?;
        let services: BTreeMap<_, _> = spec
            .services
            .iter()
            .map(|service| {
                (
                    service.name.as_str(),
                    json!({"restart": service.settle(None, None).restart, "after": service.after}),
                )
            })
            .collect();
        let packed = spec.containers().any(|c| spec.layout_of(c) == Layout::Packed);
        let for_packed: &[&str] = if packed { &["loop", "squashfs"] } else { &[] };
        let modules: Vec<_> =
            at_start.iter().map(String::as_str).chain(for_packed.iter().copied()).collect();
        let about = json!({
            "image": image.name(),
            "arch": arch,
            "modules": modules,
            "services": services,
        });
        let about = serde_json::to_vec(&about).map_err(BuildError::Manifest)?;
        let tree = init_tree(&binary, about).map_err(|source| place("init", source))?;
        self.tree("init", tree).await
    }

    /// Packs a tree that is known by what is in it.
    async fn tree(&mut self, component: &str, tree: Tree) -> Result<SegmentEntry, BuildError> {
        let (store, mtime) = (self.store.clone(), self.mtime);
        let name = component.to_owned();
        let (entry, known) = blocking(move || -> Result<_, BuildError> {
            let mut key = key(&name, &[], mtime);
            hash_tree(&mut key, &tree)?;
            let key = key.finish();
            match segment::find(&store, &name, &key) {
                Some(known) => Ok((known, true)),
                None => Ok((segment::write(&store, &name, &key, &tree, mtime)?, false)),
            }
        })
        .await??;
        if known {
            self.reused.push(component.to_owned());
        }
        Ok(entry)
    }
}

pub(super) fn paths(packages: &[Fetched]) -> Vec<PathBuf> {
    packages.iter().map(|package| package.path.clone()).collect()
}

/// Unpacks packages over each other.
pub(super) fn unpack(paths: &[PathBuf]) -> Result<Tree, BuildError> {
    let mut tree = Tree::new();
    for path in paths {
        tree.merge(deb::unpack(path)?);
    }
    Ok(tree)
}

pub(super) fn place(component: &str, source: TreePathError) -> BuildError {
    BuildError::Place { component: component.to_owned(), source }
}

/// The root file system without anything in it but kiln-init.
fn init_tree(binary: &[u8], about: Vec<u8>) -> Result<Tree, TreePathError> {
    let mut tree = Tree::new();
    let private = || Node::new(0o700, Kind::Dir);
    let nodes = [
        ("containers/onboot", Node::dir()),
        ("containers/services", Node::dir()),
        ("dev", Node::dir()),
        // The kernel opens this one for its first process, before anything is mounted.
        ("dev/console", Node::new(0o600, Kind::CharDevice(5, 1))),
        ("dev/null", Node::new(0o666, Kind::CharDevice(1, 3))),
        ("etc", Node::dir()),
        ("etc/hosts", Node::file(0o644, *b"127.0.0.1 localhost\n::1 localhost ip6-localhost\n")),
        ("etc/kiln/image.json", Node::file(0o644, about)),
        ("etc/resolv.conf", Node::symlink("/run/resolvconf/resolv.conf")),
        ("init", Node::file(0o755, binary)),
        ("mnt", Node::dir()),
        ("proc", Node::dir()),
        ("root", private()),
        ("run", Node::dir()),
        ("sys", Node::dir()),
        ("tmp", Node::new(0o1777, Kind::Dir)),
        ("var", Node::dir()),
    ];
    for (path, node) in nodes {
        tree.insert(TreePath::new(path)?, node);
    }
    Ok(tree)
}

/// Makes the tree of `files`.
fn files_tree(files: &[FileSpec]) -> Result<Tree, BuildError> {
    let mut tree = Tree::new();
    for file in files {
        let (default_mode, kind) = if file.directory {
            (0o700, Kind::Dir)
        } else if let Some(target) = &file.symlink {
            (0o777, Kind::Symlink(target.clone()))
        } else if let Some(source) = &file.source {
            let path = source.path();
            match open(path) {
                Ok(content) => (0o600, Kind::File(content)),
                Err(e) if file.optional && e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(source) => {
                    let (place, path) = (file.path.place().clone(), path.to_owned());
                    return Err(BuildError::Open { place, path, source });
                }
            }
        } else {
            let text = file.contents.as_deref().unwrap_or_default();
            (0o600, Kind::File(Content::Bytes(text.as_bytes().into())))
        };
        let mode = file.mode.map_or(default_mode, |mode| mode.bits());
        let number = |id: &Option<Placed<UserId>>| match id.as_deref() {
            Some(UserId::Number(number)) => *number,
            // A name is refused before anything is built.
            Some(UserId::Container(_)) | None => 0,
        };
        let (uid, gid) = (number(&file.uid), number(&file.gid));
        tree.insert(TreePath::clone(&file.path), Node { uid, gid, ..Node::new(mode, kind) });
    }
    Ok(tree)
}

fn open(path: &Path) -> std::io::Result<Content> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    Ok(Content::Span { file: Arc::new(file), offset: 0, len: metadata.len() })
}

/// Adds all that decides about the bytes of an archive to a key.
fn hash_tree(key: &mut hash::Hasher, tree: &Tree) -> Result<(), BuildError> {
    for (path, node) in tree {
        key.field(path.as_str());
        key.field(&format!("{:o} {} {}", node.mode, node.uid, node.gid));
        match &node.kind {
            Kind::File(content) => {
                let mut inner = hash::HashingWriter {
                    out: std::io::sink(),
                    hasher: hash::Hasher::default(),
                    written: 0,
                };
                std::io::copy(&mut content.reader(), &mut inner).map_err(|source| {
                    BuildError::Source { path: PathBuf::from(path.as_str()), source }
                })?;
                key.update(inner.hasher.finish().as_bytes());
            }
            other => key.field(&format!("{other:?}")),
        }
    }
    Ok(())
}

/// Runs what takes the processor for a while where it does not hold up downloads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BuildError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(BuildError::Interrupted),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_is_not_there_is_told_with_its_place_unless_it_is_optional() {
        let tree = |rest: &str| {
            let yaml = format!("files:\n  - {{path: /a, source: /nowhere/a{rest}}}\n");
            files_tree(&crate::spec::parse("web.yml", &yaml).unwrap().files)
        };
        assert!(tree(", optional: true").unwrap().is_empty());
        assert_eq!(tree("").unwrap_err().to_string(), "web.yml:2:12: cannot read `/nowhere/a`");
    }
}
