//! Kiln's server: it gives machines addresses, loaders, scripts, kernels and initrds, and keeps the timeline of
//! every boot.
//!
//! ```text
//!  dhcp ──┐                                   ┌── sightings, transfers, phone-home ──▶ boots ──▶ inventory
//!  tftp ──┼──▶ view (snapshot of inventory ◀──┤
//!  http ──┘    and images) ──▶ decide         └── explain: the same answers, printed
//! ```
//!
//! [`serve`] puts the parts together from checked [`settings`]; [`cli`] is the command line around it.

pub mod api;
pub mod bake;
pub mod boots;
pub mod breakdown;
pub mod cli;
pub mod demo;
pub mod dhcp;
pub mod discovery;
pub mod doctor;
pub mod explain;
pub mod facts;
pub mod files;
pub mod hear;
pub mod http;
pub mod import;
pub mod lab;
pub mod loaders;
pub mod made;
mod memory;
pub mod metadata;
pub mod net;
pub mod notify;
pub mod observe;
pub mod orders;
#[cfg(feature = "otel")]
mod otel;
pub mod pieces;
pub mod router;
pub mod secrets;
pub mod serve;
pub mod settings;
pub mod simulate;
mod sys;
pub mod tftp;
pub mod tls;
mod trouble;
pub mod verdict;
pub mod view;
pub mod webhook;
