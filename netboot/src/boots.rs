//! Follows every boot from the first packet to `healthy`.
