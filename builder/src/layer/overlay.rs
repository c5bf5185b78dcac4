use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::Limits;
use super::entry::{Entry, What};
use crate::tree::{Kind, Node, Tree, TreePath, Xattrs};

/// The most bytes of a path, of a link target and of one name (`PATH_MAX`, `NAME_MAX` of Linux).
const MAX_PATH: usize = 4095;
const MAX_NAME: usize = 255;
/// The most names that are looked at on the way to one file, those in links included.
const MAX_STEPS: usize = 1024;
/// The most links on the way to one file (`MAXSYMLINKS` of Linux).
const MAX_LINKS: usize = 40;

/// The beginning of a name that hides what lower layers have under the rest of it, and of names that tell a union file
/// system something.
const WHITEOUT: &str = ".wh.";
const WHITEOUT_META: &str = ".wh..wh.";
/// Hides all that lower layers have in the same directory.
const OPAQUE: &str = ".wh..wh..opq";

/// Layers over each other.
pub(super) struct Overlay<'a> {
    root: Dir,
    /// Counts from 1.
    layer: u32,
    limits: &'a Limits,
    entries: usize,
    nodes: usize,
    names: u64,
}

#[derive(Default)]
struct Dir {
    children: BTreeMap<Box<str>, Item>,
    /// The last layer that hid what lower layers had in here.
    cleared: u32,
}

struct Item {
    /// The layer that described it.
    own: u32,
    /// The last layer that described it or anything in it.
    newest: u32,
    thing: Thing,
}

enum Thing {
    /// With owner and mode.
    Dir(Box<Dir>, Node),
    /// Anything else; all names of one file share it.
    Other(Rc<Node>),
}

impl<'a> Overlay<'a> {
    pub(super) fn new(limits: &'a Limits) -> Self {
        Self { root: Dir::default(), layer: 0, limits, entries: 0, nodes: 0, names: 0 }
    }

    /// What comes from now on lies over all that was there before.
    pub(super) fn next_layer(&mut self) {
        self.layer += 1;
    }

    /// Lays an entry over what is there. The error says what is wrong with it.
    pub(super) fn add(&mut self, entry: Entry) -> Result<(), String> {
        self.entries += 1;
        if self.entries > self.limits.files {
            return Err(format!("is entry number {} of its image: too many", self.entries));
        }
        let name = text(&entry.name)?;
        let parts = parts(name)?;
        let Some((last, above)) = parts.split_last() else { return Ok(()) };
        if parts.iter().any(|part| part.starts_with(WHITEOUT)) {
            return self.whiteout(above, last);
        }
        let node = |kind| {
            let Entry { mode, uid, gid, ref xattrs, .. } = entry;
            Node { uid, gid, xattrs: xattrs.clone(), ..Node::new(mode, kind) }
        };
        self.spend(name.len() + size_of_xattrs(&entry.xattrs))?;
        let thing = match &entry.what {
            What::Dir => Thing::Dir(Box::default(), node(Kind::Dir)),
            What::Hardlink(target) => Thing::Other(self.link(text(target)?)?),
            What::Symlink(target) => Thing::Other(Rc::new(node(self.symlink(target)?))),
            What::File(content) => Thing::Other(Rc::new(node(Kind::File(content.clone())))),
            What::CharDevice(major, minor) => {
                Thing::Other(Rc::new(node(Kind::CharDevice(*major, *minor))))
            }
            What::BlockDevice(major, minor) => {
                Thing::Other(Rc::new(node(Kind::BlockDevice(*major, *minor))))
            }
            What::Fifo => Thing::Other(Rc::new(node(Kind::Fifo))),
        };
        self.put(above, last, thing)
    }

    fn symlink(&mut self, target: &[u8]) -> Result<Kind, String> {
        let target = text(target)?;
        if target.is_empty() || target.len() > MAX_PATH {
            return Err("has a target that is empty or longer than 4095 bytes".to_owned());
        }
        self.spend(target.len())?;
        Ok(Kind::Symlink(target.to_owned()))
    }

    /// Finds the file that a hard link is another name of. It may have come with a lower layer.
    fn link(&self, target: &str) -> Result<Rc<Node>, String> {
        let missing = || {
            let shown: String = target.chars().take(200).flat_map(char::escape_default).collect();
            format!("is a hard link to `{shown}`, which is no file before it")
        };
        let parts =
            parts(target).map_err(|reason| format!("{}: its target {reason}", missing()))?;
        let (last, above) = parts.split_last().ok_or_else(missing)?;
        let above = self.resolve(above)?;
        let mut dir = &self.root;
        for part in &above {
            match dir.children.get(&**part).map(|item| &item.thing) {
                Some(Thing::Dir(inner, _)) => dir = inner,
                _ => return Err(missing()),
            }
        }
        match dir.children.get(*last).map(|item| &item.thing) {
            Some(Thing::Other(node)) => Ok(Rc::clone(node)),
            _ => Err(missing()),
        }
    }

    fn put(&mut self, above: &[&str], name: &str, thing: Thing) -> Result<(), String> {
        let above = self.resolve(above)?;
        let len = above.iter().map(|part| part.len() + 1).sum::<usize>() + name.len();
        if above.len() > self.limits.path_depth {
            return Err(format!("lies in more than {} directories", self.limits.path_depth));
        }
        if len > MAX_PATH {
            return Err("is longer than 4095 bytes".to_owned());
        }
        let layer = self.layer;
        let (mut made, mut path_len) = (1, 0);
        let mut spent = len;
        let mut dir = &mut self.root;
        for part in &above {
            path_len += part.len() + 1;
            let item = dir.children.entry(part.as_ref().into()).or_insert_with(|| {
                made += 1;
                spent += path_len;
                Item::new(layer, Thing::Dir(Box::default(), Node::dir()))
            });
            item.newest = layer;
            match &mut item.thing {
                Thing::Dir(inner, _) => dir = inner,
                Thing::Other(_) => {
                    return Err(format!("lies below `{part}`, which is no directory"));
                }
            }
        }
        match (dir.children.get_mut(name), thing) {
            (Some(Item { own, newest, thing: Thing::Dir(_, node) }), Thing::Dir(_, new)) => {
                (*own, *newest, *node) = (layer, layer, new);
            }
            (_, thing) => {
                dir.children.insert(name.into(), Item::new(layer, thing));
            }
        }
        self.nodes += made;
        if self.nodes > self.limits.files {
            return Err(format!("is file number {} of its image: too many", self.nodes));
        }
        self.spend(spent)
    }

    /// Counts what is kept in memory.
    fn spend(&mut self, bytes: usize) -> Result<(), String> {
        self.names = self.names.saturating_add(bytes as u64);
        match self.names <= self.limits.names {
            true => Ok(()),
            false => Err(format!(
                "makes the names and attributes of its image more than {} MiB",
                self.limits.names >> 20
            )),
        }
    }

    /// Hides what lower layers have: only they count, whatever comes first in this layer.
    fn whiteout(&mut self, above: &[&str], name: &str) -> Result<(), String> {
        // Notes of aufs to itself, and what lies in its directories.
        let is_note = |part: &&str| part.starts_with(WHITEOUT_META) && *part != OPAQUE;
        if above.iter().chain([&name]).any(is_note) {
            return Ok(());
        }
        if above.iter().any(|part| part.starts_with(WHITEOUT)) {
            return Err("lies in a directory whose name means that something is deleted".to_owned());
        }
        let hidden = name.strip_prefix(WHITEOUT).unwrap_or_default();
        if matches!(hidden, "" | "." | "..") {
            return Err("means that something without a name is deleted".to_owned());
        }
        let above = self.resolve(above)?;
        let layer = self.layer;
        let mut dir = &mut self.root;
        for part in &above {
            match dir.children.get_mut(&**part).map(|item| &mut item.thing) {
                Some(Thing::Dir(inner, _)) => dir = inner,
                _ => return Ok(()),
            }
        }
        if name == OPAQUE {
            dir.hide_lower(layer);
        } else if dir.children.get_mut(hidden).is_some_and(|item| !item.outlives(layer)) {
            dir.children.remove(hidden);
        }
        Ok(())
    }

    /// Follows the links on the way to a directory, and returns its real path. What does not exist stays as it is.
    /// `..` in a link stops at the root, as in a container.
    fn resolve<'n>(&self, parts: &[&'n str]) -> Result<Vec<Cow<'n, str>>, String> {
        let too_long = || "leads through too many symbolic links".to_owned();
        let mut real = Vec::with_capacity(parts.len());
        let mut pending: Vec<Cow<'n, str>> =
            parts.iter().rev().map(|part| Cow::Borrowed(*part)).collect();
        let mut dirs = vec![Some(&self.root)];
        let (mut links, mut steps) = (0, 0);
        while let Some(part) = pending.pop() {
            steps += 1;
            if steps > MAX_STEPS {
                return Err(too_long());
            }
            match &*part {
                "" | "." => continue,
                ".." => {
                    if real.pop().is_some() {
                        dirs.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let dir = dirs.last().copied().flatten();
            match dir.and_then(|dir| dir.children.get(&*part)).map(|item| &item.thing) {
                None => dirs.push(None),
                Some(Thing::Dir(inner, _)) => dirs.push(Some(inner)),
                Some(Thing::Other(node)) => {
                    let Kind::Symlink(target) = &node.kind else {
                        return Err(format!("lies below `{part}`, which is no directory"));
                    };
                    links += 1;
                    if links > MAX_LINKS || pending.len() > MAX_STEPS {
                        return Err(too_long());
                    }
                    if target.starts_with('/') {
                        real.clear();
                        dirs.truncate(1);
                    }
                    pending.extend(target.rsplit('/').map(|part| Cow::Owned(part.to_owned())));
                    continue;
                }
            }
            real.push(part);
        }
        Ok(real)
    }

    /// Returns what is left after the last layer.
    pub(super) fn into_tree(self) -> Tree {
        let mut all = Vec::with_capacity(self.nodes);
        self.root.collect(&mut String::new(), &mut all);
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let mut firsts: HashMap<*const Node, TreePath> = HashMap::new();
        let mut nodes = Vec::with_capacity(all.len());
        for (path, node) in all {
            // While one of its names is still to come, no other file has its address.
            let address = Rc::as_ptr(&node);
            let is_shared = Rc::strong_count(&node) > 1 && matches!(node.kind, Kind::File(_));
            let node = if let Some(first) = firsts.get(&address) {
                Node { kind: Kind::Hardlink(first.clone()), ..(*node).clone() }
            } else {
                if is_shared {
                    firsts.insert(address, path.clone());
                }
                Rc::unwrap_or_clone(node)
            };
            nodes.push((path, node));
        }
        Tree::from_nodes(nodes)
    }
}

impl Dir {
    /// Takes away all that lower layers had.
    fn hide_lower(&mut self, layer: u32) {
        // Once is enough: nothing of a lower layer comes back.
        if self.cleared != layer {
            self.cleared = layer;
            self.children.retain(|_, item| item.outlives(layer));
        }
    }

    fn collect(self, path: &mut String, out: &mut Vec<(TreePath, Rc<Node>)>) {
        let len = path.len();
        for (name, item) in self.children {
            if len > 0 {
                path.push('/');
            }
            path.push_str(&name);
            if let Ok(here) = TreePath::new(path) {
                match item.thing {
                    Thing::Other(node) => out.push((here, node)),
                    Thing::Dir(dir, node) => {
                        out.push((here, Rc::new(node)));
                        dir.collect(path, out);
                    }
                }
            }
            path.truncate(len);
        }
    }
}

impl Item {
    const fn new(layer: u32, thing: Thing) -> Self {
        Self { own: layer, newest: layer, thing }
    }

    /// Hides what lower layers have of it, and returns whether this layer has anything of it.
    fn outlives(&mut self, layer: u32) -> bool {
        if self.newest < layer {
            return false;
        }
        if let Thing::Dir(dir, node) = &mut self.thing {
            dir.hide_lower(layer);
            if self.own < layer {
                // Its description is hidden as well; it is there only for what is in it.
                (self.own, *node) = (layer, Node::dir());
            }
        }
        true
    }
}

/// Splits a path. The error says what is wrong with it.
fn parts(path: &str) -> Result<Vec<&str>, String> {
    if path.contains('\0') {
        return Err("contains a NUL byte".to_owned());
    }
    if path.len() > MAX_PATH {
        return Err("is longer than 4095 bytes".to_owned());
    }
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err("contains `..`, which could lead out of the image".to_owned());
    }
    if parts.iter().any(|part| part.len() > MAX_NAME) {
        return Err("contains a name of more than 255 bytes".to_owned());
    }
    Ok(parts)
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    str::from_utf8(bytes).map_err(|_| "is not UTF-8, or its target is not".to_owned())
}

fn size_of_xattrs(xattrs: &Xattrs) -> usize {
    xattrs.iter().map(|(name, value)| name.len() + value.len()).sum()
}
