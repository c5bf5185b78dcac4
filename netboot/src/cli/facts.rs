//! What machines are made of, for people.

use kiln_types::facts::{CpuFacts, Facts, FirmwareFacts, NicFacts, SystemFacts};

use super::table::{ago, plain, size, table, text as lines};
use crate::boots::now_ms;
use crate::facts::ToldFacts;

/// Says in one line what a machine is.
pub(super) fn summary(facts: &Facts) -> String {
    let SystemFacts { vendor, product, serial, .. } = &facts.system;
    let serial = if serial.is_empty() { String::new() } else { format!("serial {serial}") };
    let parts = [
        format!("{vendor} {product}"),
        serial,
        counted(facts.cpu.threads as usize, "thread"),
        format!("{} memory", size(facts.memory.total)),
        counted(facts.disks.len(), "disk"),
        counted(facts.nics.len(), "network card"),
    ];
    joined(&parts)
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn joined(parts: &[String]) -> String {
    let parts: Vec<String> = parts.iter().map(|part| plain(part.trim())).collect();
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

/// Writes everything.
pub(super) fn text(told: &ToldFacts) -> String {
    let Facts { system, firmware, cpu, memory, disks, nics, kernel, virtualization } = &told.facts;
    let system_line = [
        format!("{} {} {}", system.vendor, system.product, system.version),
        named("serial", &system.serial),
        named("SKU", &system.sku),
        named("asset tag", &system.asset_tag),
        named("board", &system.board),
    ];
    let mut out = String::new();
    for (key, value) in [
        ("told", format!("{}, in boot {}", ago(told.at, now_ms()), told.boot)),
        ("system", joined(&system_line)),
        ("uuid", plain(&system.uuid)),
        ("firmware", joined(&firmware_parts(firmware))),
        ("cpu", joined(&cpu_parts(cpu))),
        ("memory", size(memory.total)),
        ("kernel", plain(kernel)),
        ("virtual", plain(virtualization)),
    ] {
        if !value.is_empty() {
            out.push_str(&format!("{key:<10}{value}\n"));
        }
    }
    let mut rows = table(&["memory", "size", "kind", "speed", "vendor", "part", "serial"]);
    for module in &memory.modules {
        let speed = module.speed.map_or_else(String::new, |speed| format!("{speed} MT/s"));
        let [slot, kind, vendor, part, serial] =
            [&module.slot, &module.kind, &module.vendor, &module.part, &module.serial]
                .map(|t| plain(t));
        rows.add_row([slot, size(module.size), kind, speed, vendor, part, serial]);
    }
    section(&mut out, memory.modules.len(), &rows);
    let mut rows = table(&["disk", "size", "transport", "model", "serial", "wwn", ""]);
    for disk in disks {
        let [name, transport, model, serial, wwn] =
            [&disk.name, &disk.transport, &disk.model, &disk.serial, &disk.wwn].map(|t| plain(t));
        let kind = [(disk.rotational, "rotates"), (disk.removable, "removable")];
        let kind: Vec<&str> =
            kind.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect();
        rows.add_row([name, size(disk.size), transport, model, serial, wwn, kind.join(", ")]);
    }
    section(&mut out, disks.len(), &rows);
    let mut rows = table(&["card", "mac", "driver", "link", "pci", "switch port"]);
    for nic in nics {
        let [name, driver] = [&nic.name, &nic.driver].map(|t| plain(t));
        let place = format!("{} {}", nic.pci, nic.bus);
        rows.add_row([name, mac(nic), driver, link(nic), plain(place.trim()), port(nic)]);
    }
    section(&mut out, nics.len(), &rows);
    out.trim_end().to_owned()
}

fn section(out: &mut String, count: usize, rows: &comfy_table::Table) {
    if count > 0 {
        out.push('\n');
        out.push_str(&lines(rows));
        out.push('\n');
    }
}

fn named(name: &str, value: &str) -> String {
    if value.is_empty() { String::new() } else { format!("{name} {value}") }
}

fn firmware_parts(firmware: &FirmwareFacts) -> [String; 4] {
    let FirmwareFacts { kind, vendor, version, date, secure_boot, tpm } = firmware;
    let kind = match kind.as_str() {
        "uefi" => "UEFI",
        "bios" => "BIOS",
        other => other,
    };
    [
        kind.to_owned(),
        format!("{vendor} {version} {date}"),
        named("Secure Boot", secure_boot),
        named("TPM", tpm),
    ]
}

fn cpu_parts(cpu: &CpuFacts) -> [String; 3] {
    let CpuFacts { model, arch, sockets, cores, threads, flags } = cpu;
    let count = format!(
        "{}, {}, {}",
        counted(*sockets as usize, "socket"),
        counted(*cores as usize, "core"),
        counted(*threads as usize, "thread")
    );
    [format!("{model} ({arch})"), count, flags.join(" ")]
}

fn mac(nic: &NicFacts) -> String {
    let permanent = &nic.permanent_mac;
    if permanent.is_empty() || *permanent == nic.mac {
        return plain(&nic.mac);
    }
    plain(&format!("{} (made as {permanent})", nic.mac))
}

fn link(nic: &NicFacts) -> String {
    match (nic.carrier, nic.speed) {
        _ if nic.down => "down".to_owned(),
        (false, _) => "none".to_owned(),
        (true, None) => "up".to_owned(),
        (true, Some(speed)) => format!("{speed} Mbit/s"),
    }
}

fn port(nic: &NicFacts) -> String {
    let Some(switch) = &nic.switch else { return String::new() };
    let name = if switch.system.is_empty() { &switch.chassis } else { &switch.system };
    let vlan = switch.vlan.map_or_else(String::new, |vlan| format!("VLAN {vlan}"));
    joined(&[format!("{name} {}", switch.port), switch.description.clone(), vlan])
}

#[cfg(test)]
mod tests {
    use kiln_types::facts::{DiskFacts, MemoryFacts, MemoryModule, SwitchPort};

    use super::*;

    fn facts() -> Facts {
        let text = str::to_owned;
        Facts {
            system: SystemFacts {
                vendor: text("ACME"),
                product: text("Box\u{1b}[31m"),
                serial: text("S-1"),
                ..SystemFacts::default()
            },
            firmware: FirmwareFacts {
                kind: text("uefi"),
                version: text("1.2"),
                secure_boot: text("disabled"),
                ..FirmwareFacts::default()
            },
            cpu: CpuFacts {
                model: text("Fast"),
                arch: text("x86_64"),
                sockets: 1,
                cores: 2,
                threads: 4,
                flags: vec![text("aes"), text("vmx")],
            },
            memory: MemoryFacts {
                total: 2_000_000_000,
                modules: vec![MemoryModule {
                    slot: text("A1"),
                    size: 1 << 31,
                    ..Default::default()
                }],
            },
            disks: vec![DiskFacts {
                name: text("sda"),
                size: 1_000_000_000,
                serial: text("D\u{202e}1"),
                rotational: true,
                ..DiskFacts::default()
            }],
            nics: vec![
                NicFacts {
                    name: text("eth0"),
                    mac: text("52:54:00:00:00:01"),
                    carrier: true,
                    speed: Some(1000),
                    switch: Some(SwitchPort {
                        system: text("tor\n-3"),
                        port: text("7"),
                        vlan: Some(40),
                        ..SwitchPort::default()
                    }),
                    ..NicFacts::default()
                },
                NicFacts { name: text("eth1"), down: true, ..NicFacts::default() },
            ],
            kernel: text("6.12"),
            virtualization: String::new(),
        }
    }

    #[test]
    fn a_machine_is_summed_up_in_one_line() {
        let line = "ACME Box[31m, serial S-1, 4 threads, 2.0 GB memory, 1 disk, 2 network cards";
        assert_eq!(summary(&facts()), line);
        assert_eq!(summary(&Facts::default()), "0 threads, 0 B memory, 0 disks, 0 network cards");
    }

    #[test]
    fn everything_is_shown_and_nothing_plays_tricks_on_the_terminal() {
        let shown = text(&ToldFacts { boot: 7, at: now_ms(), facts: facts() });
        for line in [
            "system    ACME Box[31m, serial S-1",
            "firmware  UEFI, 1.2, Secure Boot disabled",
            "cpu       Fast (x86_64), 1 socket, 2 cores, 4 threads, aes vmx",
            "A1      2.1 GB",
            "sda   1.0 GB                    D1           rotates",
            "eth0  52:54:00:00:00:01          1000 Mbit/s       tor-3 7, VLAN 40",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}\nis not in\n{shown}");
        }
        let down = shown.lines().find(|line| line.starts_with("eth1"));
        assert!(down.is_some_and(|line| line.trim_end().ends_with("down")), "{shown}");
        assert!(!shown.contains(['\u{1b}', '\u{202e}']));
        text(&ToldFacts { boot: 7, at: 0, facts: Facts::default() });
    }
}
