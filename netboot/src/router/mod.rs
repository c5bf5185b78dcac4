//! Router advertisements (RFC 4861): by them machines learn that there is IPv6, and whether to ask for addresses.
//!
//! Only on interfaces whose subnets ask for them. A machine sends nothing elsewhere by us unless a subnet says so.

mod message;
mod server;

pub use message::{Announcement, Prefix};
pub use server::{Router, RouterError, bind, serve};
