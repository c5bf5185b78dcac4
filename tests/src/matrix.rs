//! Which case boots which firmware over which network by which loader: README.md has it as a table, and a run prints it
//! with what became of each row.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use anyhow::ensure;

use crate::rig::Case;

/// A row: firmware, network, loader, and the case.
type Row = (&'static str, &'static str, &'static str, &'static str);

/// Add a row with the case that shows it.
const ROWS: &[Row] = &[
    ("BIOS, x86_64", "server", "iPXE in the card's ROM", "boot::x86_64_bios_boots_by_pxe"),
    ("UEFI, x86_64", "server", "iPXE by PXE", "boot::x86_64_uefi_boots_by_pxe"),
    ("UEFI, x86_64", "server", "iPXE by HTTP Boot", "boot::x86_64_uefi_boots_by_http"),
    ("UEFI, arm64", "server", "iPXE by PXE", "boot::arm64_uefi_boots_by_pxe"),
    ("UEFI, arm64", "server", "iPXE by HTTP Boot", "boot::arm64_uefi_boots_by_http"),
    (
        "BIOS, x86_64",
        "proxy, port 67",
        "iPXE in the card's ROM",
        "beside::x86_64_bios_boots_beside_another_dhcp_server",
    ),
    (
        "UEFI, x86_64",
        "proxy, port 67",
        "iPXE by PXE",
        "beside::x86_64_uefi_boots_beside_another_dhcp_server",
    ),
    (
        "UEFI, x86_64",
        "proxy, port 67",
        "iPXE by HTTP Boot",
        "beside::x86_64_uefi_http_boots_beside_another_dhcp_server",
    ),
    (
        "UEFI, arm64",
        "proxy, port 67",
        "iPXE by PXE",
        "beside::arm64_uefi_boots_beside_another_dhcp_server",
    ),
    (
        "BIOS, x86_64",
        "proxy, port 4011",
        "iPXE in the card's ROM",
        "beside::x86_64_bios_boots_by_port_4011",
    ),
    ("UEFI, x86_64", "proxy, port 4011", "iPXE by PXE", "beside::x86_64_uefi_boots_by_port_4011"),
    ("UEFI, arm64", "proxy, port 4011", "iPXE by PXE", "beside::arm64_uefi_boots_by_port_4011"),
    (
        "BIOS, x86_64",
        "behind a relay",
        "iPXE in the card's ROM",
        "beside::x86_64_bios_boots_behind_a_relay",
    ),
    ("UEFI, x86_64", "behind a relay", "iPXE by PXE", "beside::x86_64_uefi_boots_behind_a_relay"),
    ("UEFI, arm64", "behind a relay", "iPXE by PXE", "beside::arm64_uefi_boots_behind_a_relay"),
    ("UEFI, x86_64", "IPv6", "iPXE by PXE", "ipv6::x86_64_uefi_boots_by_pxe"),
    ("UEFI, x86_64", "IPv6", "iPXE by HTTP Boot", "ipv6::x86_64_uefi_boots_by_http"),
    ("UEFI, arm64", "IPv6", "iPXE by PXE", "ipv6::arm64_uefi_boots_by_pxe"),
    (
        "UEFI, x86_64",
        "server",
        "iPXE by HTTPS Boot",
        "https::x86_64_uefi_boots_by_https_and_refuses_another_ca",
    ),
    ("UEFI, x86_64", "server", "one UKI by PXE", "loaders::x86_64_uefi_boots_one_file_by_pxe"),
    (
        "UEFI, x86_64",
        "server",
        "one UKI by HTTP Boot",
        "loaders::x86_64_uefi_boots_one_file_by_http",
    ),
    ("UEFI, arm64", "server", "one UKI by PXE", "loaders::arm64_uefi_boots_one_file_by_pxe"),
    ("UEFI, arm64", "server", "one UKI by HTTP Boot", "loaders::arm64_uefi_boots_one_file_by_http"),
    (
        "U-Boot, arm64",
        "server",
        "its own script by TFTP",
        "loaders::arm64_u_boot_boots_by_its_own_means",
    ),
    (
        "UEFI, x86_64",
        "proxy, port 67",
        "one UKI by PXE",
        "beside::uefi_one_file_boots_beside_another_dhcp_server",
    ),
    (
        "UEFI, x86_64",
        "proxy, port 4011",
        "one UKI by PXE",
        "beside::uefi_one_file_boots_by_port_4011",
    ),
    (
        "UEFI, x86_64",
        "behind a relay",
        "one UKI by PXE",
        "beside::uefi_one_file_boots_behind_a_relay",
    ),
    (
        "UEFI, arm64",
        "proxy, port 67",
        "one UKI by PXE",
        "beside::uefi_one_file_boots_beside_another_dhcp_server",
    ),
    (
        "UEFI, arm64",
        "proxy, port 4011",
        "one UKI by PXE",
        "beside::uefi_one_file_boots_by_port_4011",
    ),
    (
        "UEFI, arm64",
        "behind a relay",
        "one UKI by PXE",
        "beside::uefi_one_file_boots_behind_a_relay",
    ),
    (
        "UEFI, x86_64",
        "proxy, port 67",
        "one UKI by HTTP Boot",
        "beside::uefi_one_file_by_http_boots_beside_another_dhcp_server",
    ),
    (
        "UEFI, x86_64",
        "proxy, port 4011",
        "one UKI by HTTP Boot",
        "beside::uefi_one_file_by_http_boots_where_pxe_is_sent_to_port_4011",
    ),
    (
        "UEFI, arm64",
        "proxy, port 67",
        "one UKI by HTTP Boot",
        "beside::uefi_one_file_by_http_boots_beside_another_dhcp_server",
    ),
    (
        "UEFI, arm64",
        "proxy, port 4011",
        "one UKI by HTTP Boot",
        "beside::uefi_one_file_by_http_boots_where_pxe_is_sent_to_port_4011",
    ),
    ("UEFI, arm64", "IPv6", "iPXE by HTTP Boot", "ipv6::arm64_uefi_boots_by_http"),
    ("UEFI, arm64", "server", "iPXE by HTTPS Boot", "https::arm64_uefi_boots_by_https"),
    ("UEFI, x86_64", "IPv6", "iPXE by HTTPS Boot", "https::x86_64_uefi_boots_by_https_over_ipv6"),
    ("BIOS, x86_64", "server", "undionly.kpxe by PXE", "firmware::x86_64_bios_boots_by_undionly"),
    (
        "UEFI 2025.02, x86_64",
        "server",
        "iPXE by PXE",
        "firmware::x86_64_of_debian_13_boots_by_pxe_and_by_http",
    ),
    (
        "UEFI 2025.02, x86_64",
        "server",
        "iPXE by HTTP Boot",
        "firmware::x86_64_of_debian_13_boots_by_pxe_and_by_http",
    ),
    (
        "UEFI 2025.02, arm64",
        "server",
        "iPXE by PXE",
        "firmware::arm64_of_debian_13_boots_by_pxe_and_by_http",
    ),
    (
        "UEFI 2025.02, arm64",
        "server",
        "iPXE by HTTP Boot",
        "firmware::arm64_of_debian_13_boots_by_pxe_and_by_http",
    ),
    (
        "UEFI, x86_64, Secure Boot",
        "server",
        "shim and GRUB by PXE",
        "firmware::x86_64_secure_boot_by_shim_and_grub",
    ),
    (
        "UEFI, x86_64, Secure Boot",
        "server",
        "one signed UKI by PXE",
        "firmware::x86_64_secure_boot_by_a_uki_that_the_server_signs",
    ),
    (
        "UEFI, arm64, Secure Boot",
        "server",
        "shim and GRUB by PXE",
        "firmware::arm64_secure_boot_by_shim_and_grub",
    ),
    (
        "UEFI, arm64, Secure Boot",
        "server",
        "one signed UKI by PXE",
        "firmware::arm64_secure_boot_by_a_uki_that_the_server_signs",
    ),
    (
        "BIOS, x86_64, e1000",
        "server",
        "iPXE in the card's ROM",
        "cards::e1000_boots_by_bios_and_by_uefi",
    ),
    (
        "UEFI, x86_64, e1000",
        "server",
        "iPXE in the card's ROM, then ours",
        "cards::e1000_boots_by_bios_and_by_uefi",
    ),
    (
        "BIOS, x86_64, e1000e",
        "server",
        "iPXE in the card's ROM",
        "cards::e1000e_boots_by_bios_and_by_uefi",
    ),
    (
        "UEFI, x86_64, e1000e",
        "server",
        "iPXE in the card's ROM, then ours",
        "cards::e1000e_boots_by_bios_and_by_uefi",
    ),
    (
        "BIOS, x86_64, rtl8139",
        "server",
        "iPXE in the card's ROM",
        "cards::rtl8139_boots_by_bios_and_by_uefi",
    ),
    (
        "UEFI, x86_64, rtl8139",
        "server",
        "iPXE in the card's ROM, then ours",
        "cards::rtl8139_boots_by_bios_and_by_uefi",
    ),
    (
        "Raspberry Pi 4, replayed",
        "server",
        "its files by TFTP, signed boot.img by HTTP",
        "pi::a_raspberry_pi_4_gets_its_files_and_its_signed_image",
    ),
    (
        "Raspberry Pi 4, replayed",
        "server",
        "U-Boot by TFTP, then its script",
        "pi::a_raspberry_pi_4_starts_u_boot_where_there_is_one",
    ),
];

/// How the cases of this run ended.
static ENDED: Mutex<BTreeMap<String, bool>> = Mutex::new(BTreeMap::new());

/// Notes how a case ended.
pub(crate) fn note(case: &str, good: bool) {
    ENDED.lock().unwrap_or_else(PoisonError::into_inner).insert(case.to_owned(), good);
}

/// Prints what became of the rows whose cases ran.
pub(crate) fn print() {
    let ended = ENDED.lock().unwrap_or_else(PoisonError::into_inner);
    let ran = ROWS.iter().filter(|(.., case)| ended.contains_key(*case)).count();
    if ran == 0 {
        return;
    }
    eprintln!("What booted:");
    for (firmware, network, loader, case) in ROWS {
        let how = match ended.get(*case) {
            Some(true) => "ok",
            Some(false) => "FAILED",
            None => "not run",
        };
        eprintln!("  {firmware:<25} {network:<16} {loader:<30} {how}");
    }
    eprintln!();
}

/// Returns the table as README.md has it.
fn table() -> String {
    let mut table = "| firmware | network | loader | case |\n|---|---|---|---|\n".to_owned();
    for (firmware, network, loader, case) in ROWS {
        table += &format!("| {firmware} | {network} | {loader} | `{case}` |\n");
    }
    table
}

/// The case that compares the rows with the cases and with README.md.
pub(crate) fn cases(others: &[Case]) -> Vec<Case> {
    let names: Vec<String> = others.iter().map(|case| case.name.clone()).collect();
    vec![Case::new("matrix::every_row_has_its_case_and_readme_has_every_row", &[], move || {
        for (.., case) in ROWS {
            ensure!(names.iter().any(|name| name == case), "there is no case {case}");
        }
        let readme = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"));
        let table = table();
        ensure!(readme.contains(&table), "README.md has another table than\n{table}");
        Ok(())
    })]
}
