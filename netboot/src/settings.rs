//! kiln.toml.
