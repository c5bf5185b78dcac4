//! Processors and memory.

use std::collections::BTreeSet;

use kiln_types::facts::CpuFacts;

use super::tree::Tree;

/// More than any machine has.
const MOST_THREADS: usize = 8192;
/// The list of processors of a large machine is long; the first one says what matters.
const CPUINFO: u64 = 64 << 10;
/// What programs and images are chosen by, of x86 and of Arm.
const FLAGS: &[&str] = &[
    "aes",
    "amx_tile",
    "asimd",
    "atomics",
    "avx",
    "avx2",
    "avx512f",
    "bti",
    "crc32",
    "fma",
    "hypervisor",
    "lm",
    "nx",
    "paca",
    "pmull",
    "rdrand",
    "sev",
    "sgx",
    "sha2",
    "sha_ni",
    "sse4_2",
    "sve",
    "svm",
    "tdx_guest",
    "vmx",
];

pub(super) fn cpu(tree: &Tree, by_firmware: &str) -> CpuFacts {
    let bytes = tree.bytes("proc/cpuinfo", CPUINFO).unwrap_or_default();
    let info = String::from_utf8_lossy(&bytes);
    let value = |wanted: &str| {
        let found = info.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == wanted).then(|| value.trim())
        });
        found.unwrap_or_default()
    };
    let model = [
        value("model name").to_owned(),
        by_firmware.to_owned(),
        arm_model(tree, value("CPU implementer"), value("CPU part")),
    ]
    .into_iter()
    .find(|model| !model.is_empty())
    .unwrap_or_default();
    let flags = [value("flags"), value("Features")].join(" ");
    let had: BTreeSet<&str> = flags.split_whitespace().collect();
    let (mut sockets, mut cores, mut threads) = (BTreeSet::new(), BTreeSet::new(), 0);
    for name in tree.names("sys/devices/system/cpu", MOST_THREADS) {
        let number = name.strip_prefix("cpu").filter(|number| !number.is_empty());
        if !number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit())) {
            continue;
        }
        let topology = format!("sys/devices/system/cpu/{name}/topology");
        // One that is switched off has no topology.
        let Some(core) = tree.number(&format!("{topology}/core_id")) else { continue };
        let package = tree.text(&format!("{topology}/physical_package_id"));
        threads += 1;
        cores.insert((package.clone(), core));
        sockets.insert(package);
    }
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    CpuFacts {
        model,
        arch: std::env::consts::ARCH.to_owned(),
        sockets: count(sockets.len()),
        cores: count(cores.len()),
        threads,
        flags: FLAGS.iter().filter(|flag| had.contains(*flag)).map(ToString::to_string).collect(),
    }
}

/// Arm has no names of models: the device tree may say, else there are the numbers of the maker and the part.
fn arm_model(tree: &Tree, maker: &str, part: &str) -> String {
    let compatible = tree.text("sys/firmware/devicetree/base/cpus/cpu@0/compatible");
    if compatible.is_empty() && !part.is_empty() {
        return format!("implementer {maker} part {part}");
    }
    compatible
}

/// Returns the bytes of memory that the kernel has.
pub(super) fn memory(tree: &Tree) -> u64 {
    let bytes = tree.bytes("proc/meminfo", 4096).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = total.and_then(|total| total.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default().saturating_mul(1024)
}
