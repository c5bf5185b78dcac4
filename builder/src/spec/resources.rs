//! Limits of a container's control group (OCI runtime specification, `linux.resources`).
//!
//! Keys are written as in the specification. The all lower-case forms are LinuxKit's, which decodes only those.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::Scalar;

/// Limits of the control group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct ResourcesSpec {
    /// Which devices can be used, rule by rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<DeviceRule>>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemorySpec>,
    /// Processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuSpec>,
    /// Processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<PidsSpec>,
    /// Disks.
    #[serde(rename = "blockIO", alias = "blockio", skip_serializing_if = "Option::is_none")]
    pub block_io: Option<BlockIoSpec>,
    /// Huge pages.
    #[serde(alias = "hugepagelimits", skip_serializing_if = "Option::is_none")]
    pub hugepage_limits: Option<Vec<HugepageLimit>>,
    /// Marks and priorities of packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkSpec>,
    /// RDMA, by the name of the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rdma: Option<BTreeMap<String, RdmaSpec>>,
    /// Files of cgroup v2 and what is written into them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unified: Option<BTreeMap<String, Scalar>>,
}

/// A rule about devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceRule {
    /// Whether they can be used.
    #[serde(default)]
    pub allow: bool,
    /// `c`, `b` or `a` for all.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Major number; any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major: Option<i64>,
    /// Minor number; any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minor: Option<i64>,
    /// Letters of `rwm`: read, write, make.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<String>,
}

/// Memory, in bytes; -1 for no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct MemorySpec {
    /// Most that can be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    /// What is given back first when memory is short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservation: Option<i64>,
    /// Most of memory and swap together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<i64>,
    /// Memory of the kernel (cgroup v1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<i64>,
    /// Memory of network buffers (cgroup v1).
    #[serde(rename = "kernelTCP", alias = "kerneltcp", skip_serializing_if = "Option::is_none")]
    pub kernel_tcp: Option<i64>,
    /// How readily it is swapped, 0 to 100 (cgroup v1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swappiness: Option<u64>,
    /// Whether nothing is killed when memory runs out (cgroup v1).
    #[serde(
        rename = "disableOOMKiller",
        alias = "disableoomkiller",
        skip_serializing_if = "Option::is_none"
    )]
    pub disable_oom_killer: Option<bool>,
    /// Whether groups below count too (cgroup v1).
    #[serde(alias = "usehierarchy", skip_serializing_if = "Option::is_none")]
    pub use_hierarchy: Option<bool>,
    /// Whether a limit below what is in use is refused.
    #[serde(alias = "checkbeforeupdate", skip_serializing_if = "Option::is_none")]
    pub check_before_update: Option<bool>,
}

/// Processors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct CpuSpec {
    /// Share against other groups; 1024 is usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shares: Option<u64>,
    /// Microseconds of each period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<i64>,
    /// Microseconds that can be saved up for later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// Length of a period in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<u64>,
    /// Microseconds of real-time scheduling in each period.
    #[serde(alias = "realtimeruntime", skip_serializing_if = "Option::is_none")]
    pub realtime_runtime: Option<i64>,
    /// Length of a real-time period in microseconds.
    #[serde(alias = "realtimeperiod", skip_serializing_if = "Option::is_none")]
    pub realtime_period: Option<u64>,
    /// Which processors, as in `0-3,7`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<String>,
    /// Which memory nodes, as in `0-1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mems: Option<String>,
    /// 1 to run only when nothing else wants to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<i64>,
}

/// Processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PidsSpec {
    /// Most at a time; -1 for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
}

/// Disks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct BlockIoSpec {
    /// Share against other groups, 10 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// The same for processes of the group itself (cgroup v1).
    #[serde(alias = "leafweight", skip_serializing_if = "Option::is_none")]
    pub leaf_weight: Option<u16>,
    /// Shares by disk.
    #[serde(alias = "weightdevice", skip_serializing_if = "Option::is_none")]
    pub weight_device: Option<Vec<WeightDevice>>,
    /// Bytes read a second, by disk.
    #[serde(alias = "throttlereadbpsdevice", skip_serializing_if = "Option::is_none")]
    pub throttle_read_bps_device: Option<Vec<ThrottleDevice>>,
    /// Bytes written a second, by disk.
    #[serde(alias = "throttlewritebpsdevice", skip_serializing_if = "Option::is_none")]
    pub throttle_write_bps_device: Option<Vec<ThrottleDevice>>,
    /// Reads a second, by disk.
    #[serde(
        rename = "throttleReadIOPSDevice",
        alias = "throttlereadiopsdevice",
        skip_serializing_if = "Option::is_none"
    )]
    pub throttle_read_iops_device: Option<Vec<ThrottleDevice>>,
    /// Writes a second, by disk.
    #[serde(
        rename = "throttleWriteIOPSDevice",
        alias = "throttlewriteiopsdevice",
        skip_serializing_if = "Option::is_none"
    )]
    pub throttle_write_iops_device: Option<Vec<ThrottleDevice>>,
}

/// Share of one disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct WeightDevice {
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// Share against other groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// The same for processes of the group itself (cgroup v1).
    #[serde(alias = "leafweight", skip_serializing_if = "Option::is_none")]
    pub leaf_weight: Option<u16>,
}

/// Rate of one disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ThrottleDevice {
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// Most a second.
    pub rate: u64,
}

/// Limit of huge pages of one size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HugepageLimit {
    /// Size of a page, as in `2MB`.
    #[serde(alias = "pagesize")]
    pub page_size: Scalar,
    /// Most bytes.
    pub limit: u64,
}

/// Marks and priorities of packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkSpec {
    /// Class of every packet (cgroup v1).
    #[serde(rename = "classID", alias = "classid", skip_serializing_if = "Option::is_none")]
    pub class_id: Option<u32>,
    /// Priority by interface (cgroup v1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priorities: Option<Vec<InterfacePriority>>,
}

/// Priority of packets on one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InterfacePriority {
    /// The interface.
    pub name: String,
    /// The priority.
    pub priority: u32,
}

/// Limits of one RDMA device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct RdmaSpec {
    /// Handles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hca_handles: Option<u32>,
    /// Objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hca_objects: Option<u32>,
}
