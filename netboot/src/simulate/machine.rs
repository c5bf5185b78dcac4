//! One machine, from power-on to the last file.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use kiln_types::Mac;
use tokio::time::Instant;

use super::chance::Chance;
use super::fetch::{self, FetchError};
use super::wire::Wire;
use super::{Plan, Until};
use crate::dhcp::client::{Answer, AnswerKind, Asker, Program};
use crate::net::Addresses;

/// A part of a boot whose time is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Offer,
    Ack,
    Loader,
    IpxeDhcp,
    Script,
    Files,
    Whole,
}

impl Step {
    /// Every step, in order.
    pub(super) const ALL: [Self; 7] = [
        Self::Offer,
        Self::Ack,
        Self::Loader,
        Self::IpxeDhcp,
        Self::Script,
        Self::Files,
        Self::Whole,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::Ack => "ack",
            Self::Loader => "loader",
            Self::IpxeDhcp => "ipxe-dhcp",
            Self::Script => "script",
            Self::Files => "files",
            Self::Whole => "whole",
        }
    }
}

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As far as it was to boot.
    Done,
    /// It has a script that has nothing to load: it waits, or goes on to its disk.
    Told,
    /// It lost power.
    Vanished,
    /// It could not go on.
    Failed(String),
}

/// What became of one machine.
#[derive(Clone, Debug)]
pub(super) struct Boot {
    pub(super) steps: Vec<(Step, Duration)>,
    pub(super) bytes: u64,
    pub(super) end: End,
}

impl Default for Boot {
    fn default() -> Self {
        Self { steps: Vec::new(), bytes: 0, end: End::Failed("a fault of kiln itself".to_owned()) }
    }
}

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) mac: Mac,
    pub(super) number: u32,
    pub(super) plan: Arc<Plan>,
    pub(super) wire: Arc<Wire>,
    pub(super) addresses: Arc<Option<Addresses>>,
    pub(super) chance: Chance,
}

/// Longest script that is looked through.
const MAX_SCRIPT: usize = 64 * 1024;

impl Machine {
    pub(super) async fn boot(mut self) -> Boot {
        let mut boot = Boot::default();
        let begun = Instant::now();
        // After which of its steps it loses power, if it does.
        let gone = self.chance.percent(self.plan.vanish).then(|| self.chance.below(5));
        boot.end = match self.run(&mut boot, gone).await {
            Ok(end) => end,
            Err(why) => End::Failed(why),
        };
        if matches!(boot.end, End::Done | End::Told) {
            boot.steps.push((Step::Whole, begun.elapsed()));
        }
        boot
    }

    async fn run(&mut self, boot: &mut Boot, gone: Option<u64>) -> Result<End, String> {
        let (given, address) = self.lease(boot, Program::Firmware, gone).await?;
        let Some(given) = given else { return Ok(End::Vanished) };
        if self.plan.until == Until::Address {
            return Ok(End::Done);
        }
        if let Some(addresses) = &*self.addresses {
            addresses.add(address).map_err(|error| format!("cannot take its address: {error}"))?;
        }
        let server =
            given.next_server.or(given.server).ok_or("no server for the loader is named")?;
        let name = given.boot_file.ok_or("no boot file is named: the server does not know it")?;
        let begun = Instant::now();
        if !name.starts_with("http://") {
            let fetched = fetch::tftp(address, server, &name).await;
            boot.bytes += fetched.map_err(|error| told("the loader", &error))?;
            boot.steps.push((Step::Loader, begun.elapsed()));
        }
        if gone == Some(2) {
            return Ok(End::Vanished);
        }
        let (script, address) = self.lease(boot, Program::Ipxe, gone).await?;
        let Some(script) = script else { return Ok(End::Vanished) };
        let url = script.boot_file.ok_or("no script is named")?;
        let begun = Instant::now();
        let text = fetch::http(address, &url, MAX_SCRIPT).await;
        let (bytes, text) = text.map_err(|error| told("the script", &error))?;
        boot.bytes += bytes;
        boot.steps.push((Step::Script, begun.elapsed()));
        if gone == Some(4) {
            return Ok(End::Vanished);
        }
        let files = files(&String::from_utf8_lossy(&text));
        if files.is_empty() {
            return Ok(End::Told);
        }
        if self.plan.until == Until::Script {
            return Ok(End::Done);
        }
        let begun = Instant::now();
        for url in files {
            let fetched = fetch::http(address, &url, 0).await;
            boot.bytes += fetched.map_err(|error| told("a file", &error))?.0;
        }
        boot.steps.push((Step::Files, begun.elapsed()));
        Ok(End::Done)
    }

    /// Gets an address by DHCP; none in the answer means that the machine lost power meanwhile.
    async fn lease(
        &mut self,
        boot: &mut Boot,
        program: Program,
        gone: Option<u64>,
    ) -> Result<(Option<Answer>, Ipv4Addr), String> {
        let (first, patience) = (program == Program::Firmware, self.plan.patience);
        // In the order of the numbers, so that no two machines ask by the same one.
        let xid = self.chance.xid() & 0xff00_0000 | self.number & 0x00ff_ffff;
        let asker = Asker { mac: self.mac, xid, program, relay: self.wire.relay };
        let mac = self.mac;
        let begun = Instant::now();
        let packet = asker.discover().map_err(|error| error.to_string())?;
        let offered = |answer: &Answer| {
            answer.mac == mac && answer.kind == AnswerKind::Offer && answer.address.is_some()
        };
        let asked = self.wire.ask(xid, &packet, patience, &mut self.chance, offered).await;
        let (offer, took) = asked.ok_or("no offer")?;
        let address = offer.address.ok_or("no offer")?;
        if first {
            boot.steps.push((Step::Offer, took));
        }
        if gone == Some(if first { 0 } else { 3 }) {
            return Ok((None, address));
        }
        let packet = asker.request(&offer).map_err(|error| error.to_string())?;
        let answered = |answer: &Answer| answer.mac == mac && answer.kind != AnswerKind::Offer;
        let asked = self.wire.ask(xid, &packet, patience, &mut self.chance, answered).await;
        let (answer, took) = asked.ok_or("no acknowledgement")?;
        if answer.kind == AnswerKind::Nak || answer.address != Some(address) {
            return Err("the offered address is refused".to_owned());
        }
        boot.steps.push(if first { (Step::Ack, took) } else { (Step::IpxeDhcp, begun.elapsed()) });
        Ok((Some(answer).filter(|_| !(first && gone == Some(1))), address))
    }
}

fn told(what: &str, error: &FetchError) -> String {
    format!("{what}: {}", crate::cli::chain(error))
}

/// Returns what a script has loaded before it starts the kernel.
fn files(script: &str) -> Vec<String> {
    let loads = |line: &&str| line.starts_with("kernel ") || line.starts_with("initrd ");
    let url = |line: &str| line.split(' ').find(|word| word.starts_with("http")).map(str::to_owned);
    script.lines().filter(loads).filter_map(url).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_script_are_its_kernel_and_its_segments() {
        let script = "#!ipxe\necho kernel http://no\nkernel --name vmlinuz --timeout 1 http://a/k console=x && goto done ||\n\
                      initrd --name m --timeout 1 http://a/m.cpio && goto done1 ||\nchain http://a/turn ||\n";
        assert_eq!(files(script), ["http://a/k", "http://a/m.cpio"]);
        assert!(files("#!ipxe\nsleep 10\nchain http://a/script ||\n").is_empty());
    }
}
