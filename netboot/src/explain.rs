//! What a machine would get, and why.
