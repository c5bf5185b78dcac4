//! The builder: an image specification in, kernel and initrd segments out.

pub mod tree;
