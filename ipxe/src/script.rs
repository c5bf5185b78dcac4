use std::fmt::Write as _;

use kiln_inventory::{Artifact, BootId, BootPlan, Decision, Firmware, Plan, Sighting};

use crate::Endpoints;
use crate::boot_file::script_url;
use crate::text::{url_part, words};

/// How long a transfer may stand still before it is tried again, in milliseconds.
const STALLED: u32 = 20_000;
/// How often a server that does not answer is asked for a script: for ten minutes or more.
const AWAY: u32 = 60;
/// How often an address is asked for. Each time takes iPXE up to a minute.
const NO_ADDRESS: u32 = 5;

/// What ties the fetches of a script to one boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootTicket {
    /// The boot.
    pub boot: BootId,
    /// Secret in the address of the machine's own segment.
    pub machine_key: String,
}

/// What a boot script runs when it could not have a file because others are served: it waits for its turn, and goes on
/// with all its attempts.
pub const WAIT_SCRIPT: &str =
    "#!ipxe\necho Kiln: others are served, waiting\nsleep 3\nset wait:int32 1\n";

/// Returns the script that iPXE runs for a decision.
///
/// * `Boot` fetches the kernel and each segment, each tried five times with waits of 1, 2, 4 and 8 seconds, then
///   starts the kernel. When a file cannot be had it says which and why, tells the server, and ends with an error
///   after 10 seconds, upon which the firmware tries its next boot entry.
/// * `Hold` says why and runs the script of the machine anew every 10 seconds; with a `note`, such as how far a build
///   is, it says that too and comes back after 3 seconds. A server that does not answer is given up after 60 tries.
/// * `LocalDisk` starts the first disk on BIOS, and ends with an error on UEFI, whose next boot entry follows.
/// * `Refuse` says why and ends with an error after 5 seconds.
/// * `Address` and `Ignore` end at once; nobody is sent to them.
///
/// Written for the iPXE that Debian 13 has (1.21.1+git20250501). Its `initrd` takes the words after the URL as the
/// name of a file to wrap into a cpio archive, so segments have none. It hands all of them over as one: on BIOS
/// it lays them one after the other in memory, each at a multiple of four bytes; on UEFI it reads them one after the
/// other through `EFI_LOAD_FILE2_PROTOCOL` with Linux's initrd GUID, which kernels since 5.7 ask by themselves, so
/// that no `initrd=` argument is needed. On UEFI it puts the name of the kernel, `vmlinuz`, in front of the arguments.
/// All this was checked with that version on both kinds of firmware.
pub fn script(
    decision: &Decision,
    sighting: &Sighting,
    ticket: Option<&BootTicket>,
    note: Option<&str>,
    at: &Endpoints,
) -> String {
    let mut out = "#!ipxe\n".to_owned();
    match (&decision.plan, ticket) {
        (Plan::Boot(plan), Some(ticket)) => boot(&mut out, decision, plan, ticket, at),
        (Plan::Boot(_), None) => {
            line(&mut out, "echo Kiln: the server could not open a boot; trying again in 10 s");
            again(&mut out, sighting, 10, at);
        }
        (Plan::Hold, _) => {
            greet(&mut out, decision, sighting, "waits");
            if let Some(note) = note {
                let _ = writeln!(out, "echo * {}", words(note));
            }
            again(&mut out, sighting, if note.is_some() { 3 } else { 10 }, at);
        }
        (Plan::Refuse, _) => {
            greet(&mut out, decision, sighting, "is refused");
            line(&mut out, "sleep 5");
            line(&mut out, "exit 1");
        }
        (Plan::LocalDisk, _) => {
            greet(&mut out, decision, sighting, "goes on to its disk");
            // A BIOS that was asked for the network boots nothing else by itself; UEFI goes to its next boot entry.
            line(&mut out, "iseq ${platform} pcbios && sanboot --no-describe --drive 0x80 ||");
            line(&mut out, "exit 1");
        }
        (Plan::Address | Plan::Ignore, _) => line(&mut out, "exit 1"),
    }
    out
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn greet(out: &mut String, decision: &Decision, sighting: &Sighting, what: &str) {
    let name = decision.machine.as_ref().map_or("(not known)", |machine| &machine.spec.name);
    let _ = writeln!(out, "echo Kiln: machine {} ({}) {what}:", words(name), sighting.mac);
    if let Some(image) = decision.settings.as_ref().and_then(|all| all.image.as_ref()) {
        let _ = writeln!(out, "echo * it is to run image {}", words(&image.value.to_string()));
    }
    for reason in &decision.reasons {
        // Not `-`: iPXE takes that for an option, does not know it, and ends the script.
        let _ = writeln!(out, "echo * {}", words(&reason.to_string()));
    }
}

/// Runs the script anew after a while. The new script replaces this one, so that no depth of calls builds up. A server
/// that is away is waited for, but not for ever: the firmware may have something else to start.
fn again(out: &mut String, sighting: &Sighting, seconds: u32, at: &Endpoints) {
    line(out, "set tries:int32 0");
    line(out, ":again");
    let _ = writeln!(out, "sleep {seconds}");
    chain(out, &script_url(sighting, at), "again");
}

/// Runs a script in place of this one, from a label on as often as it takes, up to [`AWAY`] times.
fn chain(out: &mut String, url: &str, label: &str) {
    let _ = writeln!(out, "chain --replace --autofree --timeout {STALLED} {url} ||");
    line(out, "inc tries");
    let _ = writeln!(out, "iseq ${{tries}} {AWAY} || goto {label}");
    line(out, "echo Kiln: the server does not answer; giving up");
    line(out, "exit 1");
}

/// Returns the script that iPXE fetches by itself from where it came from, before it has an address: it gets one for
/// the interface that the machine boots from, and then runs the script of the machine.
///
/// An iPXE that is signed for Secure Boot has no script in it, and newer ones ask for this one (`autoexec.ipxe`).
pub fn autoexec(sighting: &Sighting, at: &Endpoints) -> String {
    let mut out = "#!ipxe\n".to_owned();
    let mac = sighting.mac;
    line(&mut out, "set tries:int32 0");
    line(&mut out, "set n:int32 0");
    line(&mut out, ":look");
    line(&mut out, "isset ${net${n}/mac} || goto every");
    let _ = writeln!(out, "iseq ${{net${{n}}/mac}} {mac} && goto one ||");
    line(&mut out, "inc n");
    line(&mut out, "goto look");
    line(&mut out, ":one");
    line(&mut out, "dhcp net${n} && goto run ||");
    // It may be called otherwise, or its link may be gone.
    line(&mut out, ":every");
    line(&mut out, "dhcp && goto run ||");
    line(&mut out, "inc tries");
    let _ = writeln!(out, "iseq ${{tries}} {NO_ADDRESS} && goto failed ||");
    line(&mut out, "sleep 2");
    line(&mut out, "goto every");
    line(&mut out, ":failed");
    line(&mut out, "echo Kiln: no DHCP server gives an address; giving up");
    line(&mut out, "exit 1");
    line(&mut out, ":run");
    line(&mut out, "set tries:int32 0");
    line(&mut out, ":script");
    let sighting =
        Sighting { firmware: sighting.firmware.map(Firmware::by_tftp), ..sighting.clone() };
    let _ = writeln!(out, "iseq ${{tries}} 0 || sleep 10");
    let url = script_url(&sighting, at);
    // What iPXE shows of it has no query.
    let _ = writeln!(out, "echo Kiln: runs {url}");
    chain(&mut out, &url, "script");
    out
}

fn boot(
    out: &mut String,
    decision: &Decision,
    plan: &BootPlan,
    ticket: &BootTicket,
    at: &Endpoints,
) {
    let (id, base) = (ticket.boot, at.for_loader());
    let name = decision.machine.as_ref().map_or("", |machine| &machine.spec.name);
    let _ = writeln!(
        out,
        "echo Kiln: machine {} boots {} version {} for {} (boot {id})",
        words(name),
        words(&plan.image.to_string()),
        plan.version.short(),
        plan.arch,
    );
    // What an earlier script fetched would become part of the initrd.
    line(out, "imgfree");
    let blob = |digest: &kiln_types::Digest, file: &str| {
        format!("{base}/blob/{}/{file}?boot={id}", digest.hex())
    };
    let kernel = blob(&plan.kernel.digest, "vmlinuz");
    let cmdline = words(&plan.cmdline);
    let turn = format!("{base}/turn/{id}");
    fetch(
        out,
        &turn,
        "kernel",
        &format!("kernel --name vmlinuz --timeout {STALLED} {kernel} {cmdline}"),
    );
    let segments = |out: &mut String, segments: &[Artifact]| {
        for segment in segments {
            let file = format!("{}.cpio.zst", url_part(&segment.name));
            let url = blob(&segment.digest, &file);
            let command = format!("initrd --name {file} --timeout {STALLED} {url}");
            fetch(out, &turn, &segment.name, &command);
        }
    };
    let (before, after) = plan.around_machine();
    segments(out, before);
    let url = format!("{base}/machine/{id}/{}.cpio", url_part(&ticket.machine_key));
    fetch(out, &turn, "machine", &format!("initrd --name machine.cpio --timeout {STALLED} {url}"));
    segments(out, after);
    line(out, "imgstat");
    line(out, "set what boot");
    line(out, "boot ||");
    line(out, "set why ${errno:hexraw}");
    // Reached only when a file stays away or the kernel cannot be started.
    line(out, ":failed");
    line(
        out,
        "echo Kiln: ${what} failed, error ${why} (https://ipxe.org/${why}); giving up in 10 s",
    );
    line(out, "imgfree");
    let url = format!("{base}/failed/{id}?what=${{what}}&error=${{why}}");
    let _ = writeln!(out, "imgfetch --name report --timeout 5000 {url} ||");
    line(out, "sleep 10");
    line(out, "exit 1");
}

/// Writes one fetch that is tried five times, waiting 1, 2, 4 and 8 seconds in between; five times since others were
/// served, where the server sends only so many files at a time.
fn fetch(out: &mut String, turn: &str, what: &str, command: &str) {
    // The number of the line makes the labels unique, whatever the segments are called.
    let n = out.lines().count();
    let _ = writeln!(out, "set what {}", url_part(what));
    let _ = writeln!(out, "set wait:int32 1");
    let _ = writeln!(out, ":try{n}");
    let _ = writeln!(out, "{command} && goto done{n} ||");
    let _ = writeln!(out, "set why ${{errno:hexraw}}");
    let _ = writeln!(out, "chain --autofree --timeout 5000 {turn} ||");
    let _ = writeln!(out, "iseq ${{wait}} 16 && goto failed ||");
    let _ = writeln!(out, "echo Kiln: ${{what}} failed, trying again in ${{wait}} s");
    let _ = writeln!(out, "sleep ${{wait}}");
    let _ = writeln!(out, "inc wait ${{wait}}");
    let _ = writeln!(out, "goto try{n}");
    let _ = writeln!(out, ":done{n}");
}

#[cfg(test)]
mod tests;
