//! The builder: an image specification in, kernel and initrd segments out.

pub mod deb;
pub mod fetch;
pub mod progress;
pub mod tree;
