//! The builder: an image specification in, kernel and initrd segments out.

pub mod bundle;
pub mod cpio;
pub mod deb;
pub mod fetch;
pub mod hash;
pub mod init_binary;
pub mod kernel;
pub mod manifest;
pub mod modules;
pub mod progress;
pub mod segment;
pub mod spec;
pub mod store;
pub mod tree;
