//! Packed file systems: what the tools and the kernel of the host read of them.

use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, ensure};
use kiln_builder::packed;
use kiln_builder::tree::{Content, Kind, Node, Tree, TreePath};

use crate::rig::{Case, Need, work_folder};

/// Time of all files.
const MTIME: u32 = 1_700_000_000;
/// What writing may take, however much is written.
const MAX_MEMORY: u64 = 64 << 20;
/// `cap_net_raw=ep`, as `struct vfs_cap_data` has it (capabilities(7)).
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Set in the process that measures itself.
const MEASURED: &str = "KILN_MEASURED";
const MEMORY_CASE: &str = "packed::writing_takes_the_same_memory_however_much_is_written";

pub(super) fn cases() -> Vec<Case> {
    let tool = Need::Tool("unsquashfs", "squashfs-tools");
    let reader = Need::Tool("getfattr", "attr");
    vec![
        Case::new(
            "packed::unsquashfs_finds_every_file_as_it_was",
            &[Need::Root, tool, reader],
            || {
                compared(|image, folder| {
                    run(Command::new("unsquashfs")
                        .args(["-q", "-n", "-f", "-d"])
                        .arg(folder)
                        .arg(image))
                })
            },
        ),
        Case::new(
            "packed::the_kernel_reads_every_file_as_it_was",
            &[Need::Root, reader, Need::Loop],
            || {
                compared(|image, folder| {
                    let mut mount = Command::new("mount");
                    run(mount.args(["-t", "squashfs", "-o", "ro,loop"]).arg(image).arg(folder))
                })
            },
        ),
        Case::new(MEMORY_CASE, &[], memory),
    ]
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    output(command).map(drop)
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Bytes that hardly compress.
fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

fn sample() -> anyhow::Result<Tree> {
    let mut tree = Tree::new();
    let mut add = |name: &str, node: Node| -> anyhow::Result<()> {
        tree.insert(TreePath::new(name)?, node);
        Ok(())
    };
    add("usr/bin/tool", Node { mode: 0o4755, ..Node::file(0o755, noise(1_000_003, 7)) })?;
    add("usr/bin/name", Node::new(0o4755, Kind::Hardlink(TreePath::new("usr/bin/tool")?)))?;
    add("usr/bin/link", Node::symlink("../lib/nowhere"))?;
    add("dev/tty", Node::new(0o666, Kind::CharDevice(5, 0)))?;
    add("dev/disk", Node::new(0o660, Kind::BlockDevice(259, 70_000)))?;
    add("run/pipe", Node::new(0o600, Kind::Fifo))?;
    let mut privileged = Node::file(0o755, *b"privileged");
    privileged.xattrs.insert("security.capability", CAPABILITY);
    privileged.xattrs.insert("user.text", b"one");
    add("usr/bin/privileged", privileged)?;
    let mut folder = Node::dir();
    folder.xattrs.insert("user.text", b"two");
    add("usr/attributes", folder)?;
    add("tmp", Node::new(0o1777, Kind::Dir))?;
    add("etc/secret", Node { uid: 65_534, gid: 1_000_000, ..Node::file(0o400, *b"x\n") })?;
    add("etc/empty", Node::file(0o644, Vec::new()))?;
    let mut holes = vec![0; 1 << 20];
    holes[777_777] = 1;
    add("var/holes", Node::file(0o644, holes))?;
    for n in 0..5000_u32 {
        let len = usize::try_from(n % 700)?;
        add(
            &format!("var/many/a-long-name-for-a-small-file-{n}"),
            Node::file(0o644, noise(len, n)),
        )?;
    }
    for depth in 1..40 {
        add(&format!("{}leaf", "deep/".repeat(depth)), Node::file(0o600, *b"leaf"))?;
    }
    Ok(tree)
}

/// Writes the sample, has it laid out in a folder by `show`, and compares every file.
fn compared(show: impl FnOnce(&Path, &Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let tree = sample()?;
    let folder = tempfile::Builder::new().prefix("packed-").tempdir_in(work_folder())?;
    let (image, root) = (folder.path().join("root.sqfs"), folder.path().join("root"));
    fs::create_dir(&root)?;
    let mut out = fs::File::create(&image)?;
    packed::write(&tree, MTIME, &mut out)?;
    out.flush()?;
    show(&image, &root)?;
    let _unmount = Unmount(&root);
    let mut found = 0;
    for (path, node) in &tree {
        compare(&tree, &root, path, node).with_context(|| format!("`{path}` differs"))?;
        found += 1;
    }
    let attributes = output(
        Command::new("getfattr")
            .args(["-R", "-h", "-d", "-m", "^(user|security)[.]", "-e", "hex"])
            .arg(".")
            .current_dir(&root),
    )?;
    let seen: Vec<_> = attributes.lines().filter(|line| !line.is_empty()).collect();
    let mut wanted =
        vec!["# file: usr/attributes", "user.text=0x74776f", "# file: usr/bin/privileged"];
    let capability: String = CAPABILITY.iter().map(|byte| format!("{byte:02x}")).collect();
    let capability = format!("security.capability=0x{capability}");
    wanted.extend([capability.as_str(), "user.text=0x6f6e65"]);
    let sorted = |mut lines: Vec<&str>| -> Vec<String> {
        lines.sort_unstable();
        lines.into_iter().map(str::to_owned).collect()
    };
    let (seen, wanted) = (sorted(seen), sorted(wanted));
    ensure!(seen == wanted, "the attributes are {seen:?}, not {wanted:?}");
    let there = count(&root)?;
    ensure!(there == found, "there are {there} files instead of {found}");
    Ok(())
}

/// Takes the mount away, where there is one.
struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        // There is none after unsquashfs.
        let _ = nix::mount::umount(self.0);
    }
}

fn count(folder: &Path) -> anyhow::Result<usize> {
    let mut all = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        all += 1;
        if entry.file_type()?.is_dir() {
            all += count(&entry.path())?;
        }
    }
    Ok(all)
}

fn compare(tree: &Tree, root: &Path, path: &TreePath, node: &Node) -> anyhow::Result<()> {
    let file = root.join(path.as_str());
    let seen = fs::symlink_metadata(&file)?;
    let kind = seen.file_type();
    let device =
        |major: u32, minor: u32| seen.rdev() == nix::sys::stat::makedev(major.into(), minor.into());
    match &node.kind {
        Kind::Dir => ensure!(kind.is_dir(), "it is no directory"),
        Kind::Symlink(target) => {
            ensure!(
                fs::read_link(&file)?.as_os_str().as_bytes() == target.as_bytes(),
                "its target"
            );
        }
        Kind::CharDevice(major, minor) => {
            ensure!(kind.is_char_device() && device(*major, *minor), "device {:x}", seen.rdev());
        }
        Kind::BlockDevice(major, minor) => {
            ensure!(kind.is_block_device() && device(*major, *minor), "device {:x}", seen.rdev());
        }
        Kind::Fifo => ensure!(kind.is_fifo(), "it is no pipe"),
        Kind::File(_) | Kind::Hardlink(_) => {
            let content = tree.content(path).context("no content")?;
            ensure!(fs::read(&file)? == content.read_all(1 << 30)?, "its bytes");
        }
    }
    if let Kind::Hardlink(target) = &node.kind {
        ensure!(fs::symlink_metadata(root.join(target.as_str()))?.ino() == seen.ino(), "its inode");
        ensure!(seen.nlink() == 2, "{} names", seen.nlink());
    }
    if !kind.is_symlink() {
        ensure!(seen.mode() & 0o7777 == node.mode, "mode {:o}", seen.mode());
        ensure!(seen.mtime() == i64::from(MTIME), "time {}", seen.mtime());
    }
    ensure!(
        (seen.uid(), seen.gid()) == (node.uid, node.gid),
        "owner {} {}",
        seen.uid(),
        seen.gid()
    );
    Ok(())
}

/// Measures itself in a process where nothing else happens.
fn memory() -> anyhow::Result<()> {
    if std::env::var_os(MEASURED).is_none() {
        let mut again = Command::new(std::env::current_exe()?);
        return run(again.args(["--exact", MEMORY_CASE]).env(MEASURED, "1"));
    }
    let mut file = tempfile::tempfile_in(work_folder())?;
    let (part, parts) = (noise(1 << 20, 3), 500);
    for n in 0..parts {
        // No two parts are the same, and every tenth is a hole.
        let mut part = if n % 10 == 0 { vec![0; part.len()] } else { part.clone() };
        part[..4].copy_from_slice(&u32::to_le_bytes(n));
        file.write_all(&part)?;
    }
    let len = u64::from(parts) << 20;
    let content = Content::Span { file: Arc::new(file), offset: 0, len };
    let mut tree = Tree::new();
    tree.insert(TreePath::new("large")?, Node::new(0o644, Kind::File(content)));
    let options = packed::Options {
        threads: std::num::NonZero::new(4).context("4")?,
        ..packed::Options::new(0)
    };
    let (_, packed) = packed::spool(&tree, &options, work_folder())?;
    ensure!(packed.len > len / 2, "only {} bytes", packed.len);
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse::<u64>()? << 10;
    ensure!(peak < MAX_MEMORY, "it took {peak} bytes of memory");
    Ok(())
}
