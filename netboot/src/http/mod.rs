//! The boot plane over HTTP.
