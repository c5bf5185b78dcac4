//! The few calls to the kernel for which there is no safe wrapper.

#![allow(unsafe_code, reason = "the only place that calls the kernel directly")]

mod arp;
mod block;
mod cgroup;
mod filter;
mod kexec;
mod loop_device;
mod packet;
mod passing;
mod router;
mod signals;
mod terminal;
mod watchdog;

pub(crate) use arp::ArpSocket;
pub(crate) use block::read_partitions_again;
pub(crate) use cgroup::limit_devices;
pub(crate) use filter::install_filter;
pub(crate) use kexec::{Mapped, Piece, kexec_by_file, kexec_load_files, kexec_load_pieces};
pub(crate) use loop_device::LoopDevice;
pub(crate) use packet::{LldpSocket, permanent_address};
pub(crate) use passing::{receive_files, send_files};
pub(crate) use router::RouterSocket;
pub(crate) use signals::let_pipes_end_programs;
pub(crate) use terminal::{
    Size, control_from, open_terminal, resize_terminal, show_terminal, terminal_size,
};
pub(crate) use watchdog::set_watchdog_time;
