//! Boots whose system was never heard of.

use kiln_inventory::Outcome;

use super::seen::Seen;
use super::{AT_ONCE, Cause, KERNEL, LOADING, Story, Verdict, lasting};

/// Judges a boot that is neither healthy nor failed, and whose system has not reported.
pub(super) fn unfinished(story: &Story<'_>, seen: &Seen<'_>) -> Verdict {
    let boot = story.boot;
    let begun_anew = story.next.is_some_and(|next| boot.ended == Some(next.started));
    if boot.outcome == Outcome::Abandoned && !begun_anew {
        let reason = format!(
            "the server was started anew while it was loading; the last was: {}",
            seen.last_words()
        );
        return Verdict::new(Cause::ServerRestarted, reason, "its next try is a boot of its own");
    }
    let silence = seen.silence(story);
    let limit = if seen.has_all(story) { KERNEL } else { LOADING };
    // What is not there is known at once; whoever asks goes on asking for a while.
    let waits = silence < limit && seen.absent.is_none();
    if boot.outcome == Outcome::Booting && waits {
        let reason = format!("under way; {} ago: {}", lasting(silence), seen.last_words());
        return Verdict::new(Cause::UnderWay, reason, "");
    }
    let mut verdict = stage(story, seen);
    if begun_anew && silence < AT_ONCE && verdict.cause != Cause::SilentKernel {
        let reason =
            format!("began anew in the midst of loading; the last was: {}", seen.last_words());
        let advice = "a power cut, the reset button, or a firmware that gave up";
        return Verdict::new(Cause::Replaced, reason, advice);
    }
    if begun_anew {
        verdict.reason.push_str("; then it began anew");
    }
    verdict
}

/// Says where loading stopped.
pub(super) fn stage(story: &Story<'_>, seen: &Seen<'_>) -> Verdict {
    if seen.has_all(story) || (seen.kernel && seen.system) {
        return kernel(story, seen);
    }
    if seen.script {
        return files(seen);
    }
    match seen.loader {
        Some(loader) => loader_runs(loader, seen),
        None => no_loader(story, seen),
    }
}

fn kernel(story: &Story<'_>, seen: &Seen<'_>) -> Verdict {
    let size = seen.bytes.div_ceil(1 << 20);
    if seen.system {
        let reason = format!(
            "the system runs and asked for an address, and has reported nothing for {}",
            seen.silent(story)
        );
        let advice = "let it reach the HTTP port of this server from the address it got; an image \
                      without kiln-init reports nothing";
        return Verdict::new(Cause::NoReports, reason, advice);
    }
    if let Some(words) = panic(story.console) {
        let reason = format!("the kernel stopped before its system ran: {words}");
        return Verdict::new(Cause::Crashed, reason, "`kiln boot log` has the lines before");
    }
    let reason = format!(
        "the kernel and its whole initrd ({size} MiB) were fetched, and no system was heard of for {}",
        seen.silent(story)
    );
    let arch = match (story.boot.arch, story.boot.firmware.and_then(|it| it.arch())) {
        (Some(image), Some(firmware)) if image != firmware => {
            format!("the image is for {image}, the firmware for {firmware}; otherwise: ")
        }
        _ => String::new(),
    };
    let advice = format!(
        "{arch}look at its screen or serial console (add `console=` for it to the kernel's arguments): the kernel \
         does not start, panics, has too little memory for {size} MiB of initrd, or has no driver for the card it \
         boots from (`kernel.modules`)"
    );
    Verdict::new(Cause::SilentKernel, reason, advice)
}

/// The loader has its script.
fn files(seen: &Seen<'_>) -> Verdict {
    let what = if seen.kernel { "a segment" } else { "the kernel" };
    if let Some(absent) = seen.absent {
        return missing(absent);
    }
    if let Some(broken) = seen.broken {
        let advice = "look for packets that are lost (`ip -s link`, the port of the switch), and for too little memory \
                      in the machine; the loader tries each file five times";
        return Verdict::new(
            Cause::TransferBroken,
            format!("{what} did not arrive: {broken}"),
            advice,
        );
    }
    if seen.kernel {
        let last = seen.segments.last().copied().unwrap_or("the kernel");
        let reason = format!("after {last} no further segment was asked for");
        let advice = "look at its screen: it was switched off or reset, or the loader has no memory for the next file";
        return Verdict::new(Cause::TransferBroken, reason, advice);
    }
    let advice = "look at its screen; the address in its script has to be one that the machine reaches (`kiln machine \
                  explain`), and TCP to the HTTP port has to pass every firewall between";
    Verdict::new(Cause::NoKernel, "the loader has its script and asked for no kernel", advice)
}

pub(super) fn missing(absent: &str) -> Verdict {
    let reason = format!("a file that it needs is not there: {absent}");
    let advice = "`kiln image verify` looks for what is missing or damaged; build the version again, or restore the \
                  artifact store";
    Verdict::new(Cause::FileMissing, reason, advice)
}

fn loader_runs(loader: &str, seen: &Seen<'_>) -> Verdict {
    if seen.ipxe {
        let reason =
            format!("{loader} runs and asked for an address, and did not ask for its script");
        let advice = "let TCP to the HTTP port of this server pass every firewall between; another DHCP server may have \
                      given it another script (`kiln doctor`)";
        return Verdict::new(Cause::StuckAfterLoader, reason, advice);
    }
    let reason = format!("{loader} was fetched, and is not heard of");
    let advice = "look at its screen: Secure Boot refuses a loader that is not signed (`--loader grub`), the file may be \
                  for another kind of firmware, or the loader has no driver for the network card";
    Verdict::new(Cause::StuckAfterLoader, reason, advice)
}

fn no_loader(story: &Story<'_>, seen: &Seen<'_>) -> Verdict {
    if let Some(absent) = seen.absent {
        let reason = format!("the firmware asked for a loader that is not there: {absent}");
        let advice = "put the file into [loaders] dir, or leave that out so that it is fetched; `kiln machine explain` \
                      says which file it is told";
        return Verdict::new(Cause::LoaderMissing, reason, advice);
    }
    if let Some(broken) = seen.broken {
        let reason = format!("the loader did not arrive: {broken}");
        let advice = "with TFTP each transfer has a port of its own: a firewall between has to know TFTP \
                      (nf_conntrack_tftp); smaller blocks help where packets are cut ([tftp] block-size = 1024)";
        return Verdict::new(Cause::LoaderBroken, reason, advice);
    }
    if seen.other_server {
        let advice = "stop the other DHCP server, or serve beside it (`dhcp = \"proxy\"` of the [[subnet]]); `kiln \
                      doctor` finds it";
        let reason = "the firmware took the address of another DHCP server, and asked this one for no loader";
        return Verdict::new(Cause::NoAddress, reason, advice);
    }
    if seen.has_address || !seen.offered {
        let by = match story.boot.firmware {
            Some(firmware) if firmware.is_http() => "TCP to the HTTP port",
            _ => "UDP to port 69 and the answers to it (nf_conntrack_tftp)",
        };
        let what = if seen.ipxe { "script" } else { "loader" };
        let reason =
            format!("it has an address and asked for no {what} for {}", seen.silent(story));
        let advice = format!(
            "let {by} of this server pass every firewall between; network boot may also have been left by a key or a \
             menu of the firmware"
        );
        return Verdict::new(Cause::NoLoader, reason, advice);
    }
    let reason = format!(
        "the firmware asked for an address {} and did not take the one that it was offered",
        if seen.discovers == 1 { "once".to_owned() } else { format!("{} times", seen.discovers) }
    );
    let advice = "the offers may not reach it (a switch port that learns for 30 s wants portfast; a firewall), or it \
                  prefers another DHCP server: `kiln doctor` looks for one";
    Verdict::new(Cause::NoAddress, reason, advice)
}

/// Returns the line in which a kernel says why it stops.
pub(super) fn panic(console: &str) -> Option<&str> {
    const WORDS: [&str; 5] = [
        "Kernel panic - not syncing",
        "Unable to handle kernel",
        "BUG: unable to handle",
        "Oops: ",
        "watchdog: BUG: ",
    ];
    let line = console.lines().find(|line| WORDS.iter().any(|words| line.contains(words)))?;
    let at = WORDS.iter().filter_map(|words| line.find(words)).min()?;
    line.get(at..).map(str::trim_end)
}
