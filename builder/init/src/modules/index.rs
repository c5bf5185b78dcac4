//! The tables beside the modules: which file a module is, what it needs, which hardware wants it.

use std::collections::{HashMap, HashSet};

use super::glob;

/// `modules.dep`, `modules.alias` and `modules.softdep` of one kernel.
#[derive(Debug, Default)]
pub(crate) struct Index {
    modules: HashMap<String, Module>,
    aliases: Vec<(String, String)>,
}

#[derive(Debug, Default)]
struct Module {
    /// Under the directory of the tables.
    path: String,
    /// Files of the modules that have to be there first, the first one last.
    needs: Vec<String>,
    before: Vec<String>,
    after: Vec<String>,
}

impl Index {
    /// Reads the three tables; lines that mean nothing are passed over.
    pub(crate) fn parse(dependencies: &str, aliases: &str, soft: &str) -> Self {
        let mut index = Self::default();
        for line in dependencies.lines() {
            let Some((path, needs)) = line.split_once(':') else { continue };
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            let module = Module { path: path.to_owned(), needs, ..Module::default() };
            index.modules.insert(name_of(path), module);
        }
        for line in aliases.lines() {
            let mut words = line.split_whitespace();
            if let (Some("alias"), Some(pattern), Some(name)) =
                (words.next(), words.next(), words.next())
            {
                index.aliases.push((pattern.to_owned(), normal(name)));
            }
        }
        for line in soft.lines() {
            index.add_soft_dependencies(line);
        }
        index
    }

    fn add_soft_dependencies(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let (Some("softdep"), Some(name)) = (words.next(), words.next()) else { return };
        let Some(module) = self.modules.get_mut(&normal(name)) else { return };
        let mut after = false;
        for word in words {
            match word {
                "pre:" => after = false,
                "post:" => after = true,
                other if after => module.after.push(normal(other)),
                other => module.before.push(normal(other)),
            }
        }
    }

    /// Returns the modules that want the device, by name.
    pub(crate) fn wanted_by<'a>(&'a self, device: &'a str) -> impl Iterator<Item = &'a str> {
        self.aliases
            .iter()
            .filter(move |(pattern, _)| glob::matches(pattern, device))
            .map(|(_, name)| name.as_str())
    }

    /// Returns the files to load for a module, in order; nothing when there is no such module here.
    /// An alias stands for its modules.
    pub(crate) fn files_for(&self, name: &str) -> Vec<&str> {
        let mut order = Vec::new();
        let mut seen = HashSet::new();
        let name = normal(name);
        if self.modules.contains_key(&name) {
            self.visit(&name, &mut seen, &mut order);
        } else {
            for module in self.wanted_by(&name) {
                self.visit(module, &mut seen, &mut order);
            }
        }
        order
    }

    fn visit<'a>(&'a self, name: &str, seen: &mut HashSet<&'a str>, order: &mut Vec<&'a str>) {
        let Some((name, module)) = self.modules.get_key_value(name) else { return };
        // Also ends circles.
        if !seen.insert(name) {
            return;
        }
        for soft in &module.before {
            self.visit(soft, seen, order);
        }
        for path in module.needs.iter().rev() {
            self.visit(&name_of(path), seen, order);
        }
        order.push(&module.path);
        for soft in &module.after {
            self.visit(soft, seen, order);
        }
    }
}

/// Returns the name that the kernel gives to the module in a file.
pub(crate) fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normal(file.split('.').next().unwrap_or(file))
}

/// The kernel knows no `-` in the name of a module.
pub(crate) fn normal(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        Index::parse(
            "kernel/a/virtio_net.ko: kernel/b/net-failover.ko kernel/b/failover.ko\n\
             kernel/b/net-failover.ko: kernel/b/failover.ko\n\
             kernel/b/failover.ko:\n\
             kernel/c/ext4.ko: kernel/c/jbd2.ko\nkernel/c/jbd2.ko:\nkernel/d/crc32c.ko:\n\
             kernel/e/ring-a.ko: kernel/e/ring-b.ko\nkernel/e/ring-b.ko: kernel/e/ring-a.ko\n",
            "# Aliases\nalias virtio:d00000001v* virtio_net\nalias fs-ext4 ext4\nalias x\n",
            "softdep ext4 pre: crc32c post: failover\n",
        )
    }

    #[test]
    fn what_a_module_needs_comes_first() {
        assert_eq!(
            index().files_for("virtio-net"),
            ["kernel/b/failover.ko", "kernel/b/net-failover.ko", "kernel/a/virtio_net.ko"]
        );
    }

    #[test]
    fn soft_dependencies_come_before_and_after() {
        assert_eq!(
            index().files_for("fs-ext4"),
            ["kernel/d/crc32c.ko", "kernel/c/jbd2.ko", "kernel/c/ext4.ko", "kernel/b/failover.ko"]
        );
    }

    #[test]
    fn a_circle_ends() {
        assert_eq!(index().files_for("ring_a"), ["kernel/e/ring-b.ko", "kernel/e/ring-a.ko"]);
    }

    #[test]
    fn a_device_finds_its_module() {
        let index = index();
        let wanted: Vec<_> = index.wanted_by("virtio:d00000001v00001AF4").collect();
        assert_eq!(wanted, ["virtio_net"]);
        assert_eq!(index.wanted_by("virtio:d00000002v00001AF4").count(), 0);
    }

    #[test]
    fn a_module_that_is_not_there_has_no_files() {
        assert!(index().files_for("nothing").is_empty());
    }
}
