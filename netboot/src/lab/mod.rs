//! A private network with virtual machines.
