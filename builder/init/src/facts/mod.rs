//! What the machine is made of, told to the server once the network is up.
//!
//! A thread of its own collects it, so that nothing waits for it. What switches say of the ports comes up to half a
//! minute later, and everything is told once more then.

mod cpu;
mod disks;
mod firmware;
mod lldp;
mod nics;
mod smbios;
mod tree;

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use kiln_types::facts::{Facts, MemoryFacts, SwitchPort};

use self::tree::Tree;
use crate::clock::uptime;
use crate::config::Machine;
use crate::console::say;
use crate::http::{self, Limits, Request, Server};
use crate::sys::LldpSocket;

/// Switches name themselves every 30 seconds.
const LISTEN: Duration = Duration::from_secs(35);
/// The first wait after the server did not answer, doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const TRIES: u32 = 8;
/// The server has a line to say at most.
const LARGEST_ANSWER: usize = 4096;

/// Starts the thread. Without a server there is nobody to tell.
pub(crate) fn tell(server: Option<&Server>, machine: Option<&Machine>) {
    let (Some(server), Some(machine)) = (server.cloned(), machine.cloned()) else { return };
    let thread = std::thread::Builder::new().name("facts".to_owned()).stack_size(128 * 1024);
    let started = thread.spawn(move || {
        let tree = Tree::new("/");
        // Switches speak seldom: what one says while the rest is collected must not be missed.
        let listener = Listener::open(&tree);
        let mut facts = collect(&tree);
        if !post(&server, &machine, &facts) {
            return;
        }
        let ports = listener.map(|listener| listener.hear(LISTEN)).unwrap_or_default();
        if !ports.is_empty() {
            // Some links came up only now.
            facts.nics = nics::nics(&tree);
            for nic in &mut facts.nics {
                nic.switch = ports.get(&nic.name).cloned();
            }
            post(&server, &machine, &facts.bounded());
        }
    });
    if let Err(error) = started {
        say(&format!("the server does not learn what this machine is made of: {error}"));
    }
}

fn collect(tree: &Tree) -> Facts {
    let tables = firmware::tables(tree);
    let cpu = cpu::cpu(tree, &tables.processor);
    let facts = Facts {
        virtualization: firmware::virtualization(tree, &tables.system, &cpu),
        firmware: firmware::firmware(tree, tables.firmware),
        system: tables.system,
        cpu,
        memory: MemoryFacts { total: cpu::memory(tree), modules: tables.memory },
        disks: disks::disks(tree),
        nics: nics::nics(tree),
        kernel: tree.text("proc/sys/kernel/osrelease"),
    };
    facts.bounded()
}

/// Returns whether the server took them.
fn post(server: &Server, machine: &Machine, facts: &Facts) -> bool {
    let Ok(body) = serde_json::to_vec(facts) else { return false };
    let path = format!("/agent/{}/facts", machine.boot);
    let request = Request::post(&path, &machine.token, &body);
    let mut wait = FIRST_RETRY;
    for _ in 0..TRIES {
        match http::ask(server, &request, Limits::SHORT, LARGEST_ANSWER) {
            Ok(answer) if answer.is_success() => return true,
            // An older server has no place for them.
            Ok(answer) if answer.status == 404 => return false,
            Ok(answer) if (400..500).contains(&answer.status) && answer.status != 408 => {
                let status = answer.status;
                say(&format!("the server does not take the facts of this machine: {status}"));
                return false;
            }
            Ok(_) | Err(_) => {}
        }
        sleep(wait);
        wait *= 2;
    }
    false
}

/// Hears what switches say on every card that has a link.
struct Listener {
    socket: LldpSocket,
    cards: BTreeMap<i32, String>,
}

impl Listener {
    fn open(tree: &Tree) -> Option<Self> {
        let cards: BTreeMap<i32, String> = nics::linked(tree).into_iter().collect();
        let socket = LldpSocket::open(cards.keys().copied()).ok()?;
        (!cards.is_empty()).then_some(Self { socket, cards })
    }

    /// Listens until every card has heard something, or so long.
    fn hear(&self, patience: Duration) -> BTreeMap<String, SwitchPort> {
        let end = uptime() + patience;
        let mut ports = BTreeMap::new();
        let mut frame = [0; 2048];
        while ports.len() < self.cards.len() {
            let left = end.saturating_sub(uptime());
            if left.is_zero() {
                break;
            }
            let Ok((card, length)) = self.socket.receive(&mut frame, left) else { break };
            if let Some(name) = self.cards.get(&card)
                && let Some(port) = lldp::parse(frame.get(..length).unwrap_or_default())
            {
                ports.insert(name.clone(), port);
            }
        }
        ports
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    /// A tree of files like the kernel's.
    pub(super) struct Fake(PathBuf);

    impl Fake {
        pub(super) fn new(name: &str) -> Self {
            let name = format!("kiln-facts-{name}-{}", std::process::id());
            let root = std::env::temp_dir().join(name);
            fs::create_dir_all(&root).unwrap();
            Self(root)
        }

        pub(super) fn tree(&self) -> Tree {
            Tree::new(&self.0)
        }

        pub(super) fn file(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        pub(super) fn link(&self, target: &str, path: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(self.0.join(target), path).unwrap();
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_machine_is_described_by_what_its_kernel_shows() {
        let fake = Fake::new("all");
        fake.file(
            "proc/cpuinfo",
            "processor\t: 0\nmodel name\t: ACME Fast 9000\nflags\t\t: fpu aes hypervisor lm\n",
        );
        fake.file("proc/meminfo", "MemTotal:        1024 kB\nMemFree: 1 kB\n");
        fake.file("proc/sys/kernel/osrelease", "6.12.1\n");
        for (cpu, package, core) in [(0, 0, 0), (1, 0, 0), (2, 1, 0), (3, 1, 0)] {
            let topology = format!("sys/devices/system/cpu/cpu{cpu}/topology");
            fake.file(&format!("{topology}/physical_package_id"), &format!("{package}\n"));
            fake.file(&format!("{topology}/core_id"), &format!("{core}\n"));
        }
        fake.file("sys/devices/system/cpu/cpufreq/x", "");
        let facts = collect(&fake.tree());
        assert_eq!(facts.cpu.model, "ACME Fast 9000");
        assert_eq!((facts.cpu.sockets, facts.cpu.cores, facts.cpu.threads), (2, 2, 4));
        assert_eq!(facts.cpu.flags, ["aes", "hypervisor", "lm"]);
        assert_eq!((facts.memory.total, facts.kernel.as_str()), (1 << 20, "6.12.1"));
        assert_eq!(facts.virtualization, "yes");
    }

    #[test]
    fn an_empty_tree_gives_facts_that_say_little() {
        let facts = collect(&Fake::new("empty").tree());
        assert_eq!(facts.firmware.kind, "bios");
        assert!(facts.disks.is_empty() && facts.nics.is_empty());
    }

    #[test]
    fn this_computer_can_be_described() {
        let facts = collect(&Tree::new("/"));
        assert!(facts.memory.total > 0 && facts.cpu.threads > 0, "{facts:?}");
    }
}
