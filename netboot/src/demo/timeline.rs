//! What is printed at the end.
#![allow(clippy::print_stdout, reason = "this is the output of a command")]

use std::path::Path;

use anyhow::Context;
use kiln_inventory::{Boot, Store};

use super::choice::Chosen;
use super::live::step;

/// Prints the timeline of the last boot of a machine.
pub(super) async fn print(
    chosen: &Chosen,
    boot: Option<&Boot>,
    inventory: &Store,
) -> anyhow::Result<()> {
    println!("\n{}  {}  {}", chosen.name, chosen.kind, chosen.mac);
    let Some(boot) = boot else {
        println!("  the server has not seen it");
        return Ok(());
    };
    let found = inventory.boot(boot.id).await.context("cannot read the timeline")?;
    for event in found.iter().flat_map(|(_, events)| events) {
        println!("  {}", step(boot, event));
    }
    Ok(())
}

/// Prints what can be done next; with the socket when the server goes on.
pub(super) fn print_next(socket: Option<&Path>) {
    println!("\nEvery machine is healthy.");
    match socket {
        Some(socket) => {
            let socket = socket.display();
            println!("They keep running until you press Ctrl-C. In another terminal:");
            println!("  kiln machine list --socket {socket}");
            println!("  kiln boot list --socket {socket}");
            println!("  kiln machine explain n1 --socket {socket}");
        }
        None => {
            println!("Next:");
            println!("  kiln demo --keep                  the same, and look around in it");
            println!("  kiln build IMAGE.yml              build an image of your own");
            println!("  kiln serve --config kiln.toml     serve a network of your own");
        }
    }
}
