//! The few calls to the kernel for which there is no safe wrapper.

#![allow(unsafe_code, reason = "the only place that calls the kernel directly")]

mod cgroup;
mod filter;
mod interface;
mod loop_device;
mod packet;

pub(crate) use cgroup::limit_devices;
pub(crate) use filter::install_filter;
pub(crate) use interface::InterfaceControl;
pub(crate) use loop_device::LoopDevice;
pub(crate) use packet::{LldpSocket, permanent_address};
