//! The loaders that firmware fetches.
