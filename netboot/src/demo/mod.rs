//! `kiln demo`.
