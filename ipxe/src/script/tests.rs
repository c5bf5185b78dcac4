use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use kiln_inventory::{
    Artifact, Asker, Firmware, Loader, Machine, MachineId, NewMachine, Reason, Snapshot,
    UnknownMachines,
};
use kiln_types::{Arch, Digest, Mac};

use super::*;

const MAC: Mac = Mac::new([0x52, 0x54, 0, 0, 0, 1]);
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2));
const AT: Endpoints =
    Endpoints { address: ADDRESS, http: SocketAddr::new(ADDRESS, 8080), https: None, agent: None };

fn sighting() -> Sighting {
    Sighting { mac: MAC, asker: Asker::Ipxe, firmware: Some(Firmware::UefiX64), uuid: None }
}

fn ticket() -> BootTicket {
    BootTicket { boot: BootId(12), machine_key: "c0ffee".to_owned() }
}

fn machine(name: &str) -> Option<Arc<Machine>> {
    let spec = NewMachine::new(name, [MAC]);
    Some(Arc::new(Machine { id: MachineId(1), revision: 1, spec }))
}

fn plan(cmdline: &str, segment: &str) -> Plan {
    let artifact = |name: &str, byte| Artifact {
        name: name.to_owned(),
        digest: Digest::from_bytes([byte; 32]),
        size: 7,
    };
    Plan::Boot(BootPlan {
        image: "demo".parse().unwrap(),
        version: Digest::from_bytes([0xaa; 32]),
        arch: Arch::X86_64,
        kernel: artifact("kernel", 0x11),
        segments: vec![artifact(segment, 0x22)],
        cmdline: cmdline.to_owned(),
    })
}

fn decision(plan: Plan) -> Decision {
    let reasons = vec![Reason::FoundByMac { mac: MAC, machine: "n1".to_owned() }];
    Decision { machine: machine("n1"), settings: None, plan, loader: Loader::Ipxe, reasons }
}

#[test]
fn a_boot_fetches_kernel_segments_and_the_segment_of_the_machine() {
    let script = script(
        &decision(plan("console=ttyS0 quiet", "init")),
        &sighting(),
        Some(&ticket()),
        None,
        &AT,
    );
    let ones = "11".repeat(32);
    let twos = "22".repeat(32);
    let expected = format!(
        "#!ipxe
echo Kiln: machine n1 boots demo version aaaaaaaaaaaa for x86_64 (boot 12)
imgfree
set what kernel
set wait:int32 1
:try3
kernel --name vmlinuz --timeout 20000 http://10.0.2.2:8080/blob/{ones}/vmlinuz?boot=12 console=ttyS0 quiet && goto done3 ||
set why ${{errno:hexraw}}
chain --autofree --timeout 5000 http://10.0.2.2:8080/turn/12 ||
iseq ${{wait}} 16 && goto failed ||
echo Kiln: ${{what}} failed, trying again in ${{wait}} s
sleep ${{wait}}
inc wait ${{wait}}
goto try3
:done3
set what machine
set wait:int32 1
:try15
initrd --name machine.cpio --timeout 20000 http://10.0.2.2:8080/machine/12/c0ffee.cpio && goto done15 ||
set why ${{errno:hexraw}}
chain --autofree --timeout 5000 http://10.0.2.2:8080/turn/12 ||
iseq ${{wait}} 16 && goto failed ||
echo Kiln: ${{what}} failed, trying again in ${{wait}} s
sleep ${{wait}}
inc wait ${{wait}}
goto try15
:done15
set what init
set wait:int32 1
:try27
initrd --name init.cpio.zst --timeout 20000 http://10.0.2.2:8080/blob/{twos}/init.cpio.zst?boot=12 && goto done27 ||
set why ${{errno:hexraw}}
chain --autofree --timeout 5000 http://10.0.2.2:8080/turn/12 ||
iseq ${{wait}} 16 && goto failed ||
echo Kiln: ${{what}} failed, trying again in ${{wait}} s
sleep ${{wait}}
inc wait ${{wait}}
goto try27
:done27
imgstat
set what boot
boot ||
set why ${{errno:hexraw}}
:failed
echo Kiln: ${{what}} failed, error ${{why}} (https://ipxe.org/${{why}}); giving up in 10 s
imgfree
imgfetch --name report --timeout 5000 http://10.0.2.2:8080/failed/12?what=${{what}}&error=${{why}} ||
sleep 10
exit 1
"
    );
    assert_eq!(script, expected);
}

#[test]
fn a_held_machine_asks_again_and_a_refused_one_ends() {
    assert_eq!(
        script(&decision(Plan::Hold), &sighting(), None, None, &AT),
        "#!ipxe
echo Kiln: machine n1 (52:54:00:00:00:01) waits:
echo * 52:54:00:00:00:01 is an interface of machine `n1`
set tries:int32 0
:again
sleep 10
chain --replace --autofree --timeout 20000 \
         http://10.0.2.2:8080/script/52-54-00-00-00-01.ipxe?firmware=uefi-x64 ||
inc tries
iseq ${tries} 60 || goto again
echo Kiln: the server does not answer; giving up
exit 1
"
    );
    let mut refused = decision(Plan::Refuse);
    refused.machine = None;
    assert_eq!(
        script(&refused, &sighting(), None, None, &AT),
        "#!ipxe
echo Kiln: machine (not known) (52:54:00:00:00:01) is refused:
echo * 52:54:00:00:00:01 is an interface of machine `n1`
sleep 5
exit 1
"
    );
    for plan in [Plan::Address, Plan::Ignore] {
        assert_eq!(script(&decision(plan), &sighting(), None, None, &AT), "#!ipxe\nexit 1\n");
    }
}

#[test]
fn a_boot_without_a_ticket_waits_for_one() {
    let script = script(&decision(plan("", "init")), &sighting(), None, None, &AT);
    assert!(script.contains("|| goto again\n"), "{script}");
    assert!(!script.contains("/blob/"), "{script}");
}

/// Whatever is inserted, the script has the same lines with the same commands.
#[test]
fn nothing_that_others_wrote_changes_the_commands() {
    let commands = |script: &str| -> Vec<String> {
        script
            .lines()
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let operators = words.iter().filter(|w| matches!(**w, "&&" | "||")).count();
                let comment = words.iter().skip(1).any(|word| word.starts_with('#'));
                assert!(!line.ends_with('\\') && !comment, "{line:?}");
                format!("{} {operators}", words[0])
            })
            .collect()
    };
    let expansions = |script: &str| script.replace("${kiln-nothing}", "").matches("${").count();
    let build = |evil: &str| {
        let mut boot = decision(plan(evil, evil));
        boot.machine = machine(evil);
        boot.reasons = vec![Reason::NoImage { machine: evil.to_owned() }];
        let ticket = BootTicket { boot: BootId(1), machine_key: evil.to_owned() };
        let booted = script(&boot, &sighting(), Some(&ticket), None, &AT);
        boot.plan = Plan::Hold;
        let held = script(&boot, &sighting(), None, Some(evil), &AT);
        boot.plan = Plan::Refuse;
        booted + &held + &script(&boot, &sighting(), None, None, &AT)
    };
    let plain = build("x");
    for evil in [
        "a\nshell",
        "a\r\nshell\r",
        "a && shell",
        "|| shell ||",
        "# gone",
        "${net0/mac} $${x} $$$${{",
        "\"quoted\" 'also' `this`",
        "\\",
        "a \\\n\\",
        "\u{0}\u{b}\u{c}\u{85}\u{2028}",
        "--timeout 1 --name ../x",
        ":label",
        "",
    ] {
        let script = build(evil);
        assert_eq!(commands(&script), commands(&plain), "{evil:?}\n{script}");
        assert_eq!(expansions(&script), expansions(&plain), "{evil:?}\n{script}");
        assert!(script.is_ascii(), "{evil:?}");
    }
}

#[test]
fn a_machine_that_waits_for_a_build_sees_how_far_it_is_and_asks_more_often() {
    let script = script(&decision(Plan::Hold), &sighting(), None, Some("packing web: 40 %"), &AT);
    assert!(
        script.contains("\necho * packing web: 40 %\nset tries:int32 0\n:again\nsleep 3\n"),
        "{script}"
    );
}

#[test]
fn a_machine_that_boots_from_its_disk_is_sent_there_by_each_firmware_in_its_way() {
    assert_eq!(
        script(&decision(Plan::LocalDisk), &sighting(), None, None, &AT),
        "#!ipxe
echo Kiln: machine n1 (52:54:00:00:00:01) goes on to its disk:
echo * 52:54:00:00:00:01 is an interface of machine `n1`
iseq ${platform} pcbios && sanboot --no-describe --drive 0x80 ||
exit 1
"
    );
}

#[test]
fn a_machine_that_waits_says_for_which_image() {
    let mut waits = decision(Plan::Hold);
    let mut spec = NewMachine::new("n1", [MAC]);
    spec.image = "web:edge".parse().ok();
    let machine = Arc::new(Machine { id: MachineId(1), revision: 1, spec });
    let all = Snapshot::new(vec![machine.clone()], BTreeMap::new(), UnknownMachines::Hold);
    waits.settings = all.settings_of(machine.id).cloned();
    waits.machine = Some(machine);
    let script = script(&waits, &sighting(), None, None, &AT);
    assert!(script.contains("\necho * it is to run image web:edge\n"), "{script}");
}

#[test]
fn the_script_that_ipxe_asks_for_by_itself_gets_an_address_first_and_never_loops_for_ever() {
    let http = Sighting { firmware: Some(Firmware::UefiX64Http), ..sighting() };
    assert_eq!(
        autoexec(&http, &AT),
        "#!ipxe
set tries:int32 0
set n:int32 0
:look
isset ${net${n}/mac} || goto every
iseq ${net${n}/mac} 52:54:00:00:00:01 && goto one ||
inc n
goto look
:one
dhcp net${n} && goto run ||
:every
dhcp && goto run ||
inc tries
iseq ${tries} 5 && goto failed ||
sleep 2
goto every
:failed
echo Kiln: no DHCP server gives an address; giving up
exit 1
:run
set tries:int32 0
:script
iseq ${tries} 0 || sleep 10
echo Kiln: runs http://10.0.2.2:8080/script/52-54-00-00-00-01.ipxe?firmware=uefi-x64
chain --replace --autofree --timeout 20000 \
         http://10.0.2.2:8080/script/52-54-00-00-00-01.ipxe?firmware=uefi-x64 ||
inc tries
iseq ${tries} 60 || goto script
echo Kiln: the server does not answer; giving up
exit 1
"
    );
}
