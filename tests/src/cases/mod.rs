//! The cases, one file per subject.

mod addresses;
mod agent;
mod beside;
mod boot;
mod broken;
mod build;
mod cards;
mod carry;
mod clients;
mod command;
mod containers;
mod crash;
mod discovery;
mod disk;
mod doctor;
mod explain;
mod facts;
mod firmware;
mod fresh;
mod given;
mod https;
mod images;
mod ipv6;
mod kernel_image;
mod layers;
mod layouts;
mod leases;
mod leases6;
mod linuxkit_tar;
mod loaders;
mod many;
mod metadata;
mod networkd;
mod networks;
mod orders;
mod outage;
mod package;
mod packed;
mod pi;
mod refusal;
mod registry;
mod reproducible;
mod scenario;
mod services;
mod shared;
mod start;
mod state_disk;
mod tftp;
mod uki;
mod userspace;

use crate::rig::Case;

/// Returns every case, the longest first so that two at a time end together.
pub(crate) fn all() -> Vec<Case> {
    let mut all: Vec<Case> = [
        boot::cases(),
        loaders::cases(),
        beside::cases(),
        networks::cases(),
        package::cases(),
        cards::cases(),
        firmware::cases(),
        ipv6::cases(),
        orders::cases(),
        outage::cases(),
        https::cases(),
        uki::cases(),
        broken::cases(),
        scenario::cases(),
        explain::cases(),
        discovery::cases(),
        facts::cases(),
        fresh::cases(),
        given::cases(),
        images::cases(),
        refusal::cases(),
        build::cases(),
        carry::cases(),
        reproducible::cases(),
        disk::cases(),
        doctor::cases(),
        crash::cases(),
        layers::cases(),
        linuxkit_tar::cases(),
        metadata::cases(),
        pi::cases(),
        containers::cases(),
        addresses::cases(),
        leases::cases(),
        shared::cases(),
        clients::cases(),
        networkd::cases(),
        leases6::cases(),
        many::cases(),
        tftp::cases(),
        agent::cases(),
        services::cases(),
        start::cases(),
        userspace::cases(),
        layouts::cases(),
        kernel_image::cases(),
        packed::cases(),
        registry::cases(),
        state_disk::cases(),
        command::cases(),
    ]
    .into_iter()
    .flatten()
    .collect();
    all.extend(crate::matrix::cases(&all));
    all
}
