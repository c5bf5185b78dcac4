//! The modules of a kernel, with the firmware that they load.

use std::path::PathBuf;

use super::pack::Packer;
use super::parts::unpack;
use super::{BuildError, contents};
use crate::lock::PackagePin;
use crate::modules::{self, Firmware, Modules, ModulesError, Needs};
use crate::spec::{FirmwareSelection, KernelSpec, ModuleSelection};
use crate::store::Store;
use crate::tree::Tree;

/// What decides about modules and firmware, and the packages that have more of it.
pub(super) struct ModuleParts {
    selection: Option<ModuleSelection>,
    firmware: Option<FirmwareSelection>,
    needs: Needs,
    pins: Vec<PackagePin>,
    paths: Vec<PathBuf>,
}

/// Modules with their firmware, and what to say of firmware that is missing.
type Found = (Modules, Option<String>);

impl Packer<'_, '_> {
    /// Fetches the packages with firmware.
    pub(super) async fn module_parts(
        &self,
        kernel: &KernelSpec,
        pins: &[PackagePin],
        needs: Needs,
    ) -> Result<ModuleParts, BuildError> {
        Ok(ModuleParts {
            selection: kernel.modules.as_deref().cloned(),
            firmware: kernel.firmware.as_deref().cloned(),
            needs,
            pins: pins.to_vec(),
            paths: self.fetch(pins).await?,
        })
    }
}

impl ModuleParts {
    /// Chooses among the modules of Debian's packages.
    pub(super) fn of_packages(
        &self,
        store: &Store,
        kernel: &Tree,
        release: &str,
    ) -> Result<Found, BuildError> {
        let selection = self.selection.clone().unwrap_or_default();
        let dir = store.tmp_dir();
        let modules = modules::collect(kernel, release, &selection, &self.needs, &dir)?;
        self.add_firmware(store, modules, kernel, release)
    }

    /// Takes what an image of a kernel comes with: all of it, unless something else is said.
    pub(super) fn of_image(
        &self,
        store: &Store,
        kernel: Tree,
        release: &str,
    ) -> Result<Found, BuildError> {
        let (selection, dir) = (self.selection.as_ref(), store.tmp_dir());
        if self.firmware.is_none() {
            let modules = modules::complete(kernel, release, selection, &self.needs, &dir)?;
            return Ok((modules, None));
        }
        let mut modules = modules::complete(kernel.clone(), release, selection, &self.needs, &dir)?;
        if selection.is_none() && self.firmware != Some(FirmwareSelection::None) {
            modules.declared = modules::declared(&kernel, release)?;
        }
        modules::remove_firmware(&mut modules.tree).map_err(ModulesError::Path)?;
        self.add_firmware(store, modules, &kernel, release)
    }

    fn add_firmware(
        &self,
        store: &Store,
        mut modules: Modules,
        kernel: &Tree,
        release: &str,
    ) -> Result<Found, BuildError> {
        if self.firmware == Some(FirmwareSelection::None) {
            return Ok((modules, None));
        }
        let packages = unpack(&self.paths)?;
        contents::remember(store, &self.pins, &self.paths, &packages)?;
        let taken =
            Firmware::take(&modules.declared, &[kernel, &packages]).map_err(ModulesError::Path)?;
        let warning = taken.warning(release);
        modules.tree.merge(taken.tree);
        Ok((modules, warning))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::tests::module;
    use crate::tree::{Kind, Node, TreePath};

    /// What an image of a kernel comes with: two cards with firmware, and firmware that nothing asks for.
    fn kernel() -> Tree {
        let mut tree = Tree::new();
        let mut add = |path: &str, bytes: Vec<u8>| {
            tree.insert(TreePath::new(path).unwrap(), Node::file(0o644, bytes));
        };
        for card in ["one", "two"] {
            let info = format!("firmware={card}.bin");
            add(&format!("lib/modules/6/kernel/{card}.ko"), module(&[&info]));
        }
        add("lib/modules/6/modules.dep", Vec::new());
        add("lib/modules/6/modules.alias", Vec::new());
        add("lib/firmware/one.bin", b"1".to_vec());
        add("lib/firmware/unused.bin", b"2".to_vec());
        tree
    }

    fn found(spec: &str) -> (Vec<String>, bool) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let spec = crate::spec::parse("a.yml", &format!("kernel: {spec}")).unwrap().kernel;
        let parts = ModuleParts {
            selection: spec.modules.as_deref().cloned(),
            firmware: spec.firmware.as_deref().cloned(),
            needs: Needs::default(),
            pins: Vec::new(),
            paths: Vec::new(),
        };
        let (modules, warning) = match spec.image {
            Some(_) => parts.of_image(&store, kernel(), "6").unwrap(),
            None => parts.of_packages(&store, &kernel(), "6").unwrap(),
        };
        let files = modules.tree.iter().filter(|(_, node)| !matches!(node.kind, Kind::Dir));
        let files = files.filter_map(|(path, _)| path.as_str().strip_prefix("lib/firmware/"));
        (files.map(str::to_owned).collect(), warning.is_some())
    }

    #[test]
    fn packages_give_the_firmware_of_chosen_modules_and_say_what_is_missing() {
        let one = ["one.bin".to_owned()].to_vec();
        assert_eq!(found("{deb: k, modules: [one]}"), (one.clone(), false));
        assert_eq!(found("{deb: k, modules: [one, two], firmware: auto}"), (one, true));
        assert_eq!(found("{deb: k, modules: [one], firmware: none}"), (Vec::new(), false));
        assert_eq!(found("{deb: k, modules: none}"), (Vec::new(), false));
    }

    #[test]
    fn an_image_keeps_its_firmware_unless_something_else_is_said() {
        let all = ["one.bin", "unused.bin"].map(str::to_owned).to_vec();
        let one = all[..1].to_vec();
        assert_eq!(found("{image: k}"), (all.clone(), false));
        assert_eq!(found("{image: k, modules: [two]}"), (all, false));
        assert_eq!(found("{image: k, firmware: auto}"), (one.clone(), true));
        assert_eq!(found("{image: k, modules: [one], firmware: [a]}"), (one, false));
        assert_eq!(found("{image: k, firmware: none}"), (Vec::new(), false));
    }
}
