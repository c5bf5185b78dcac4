//! What the servers look at.
