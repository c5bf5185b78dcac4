//! What the standard library does not say about memory.

/// Gives large pieces of memory back as soon as they are free. The C library would learn from the first of them to keep
/// such pieces, for every thread on its own, and a build would take twice the memory.
#[cfg(target_env = "gnu")]
pub(crate) fn give_memory_back() {
    const LARGE: nix::libc::c_int = 1 << 20;
    // SAFETY: it sets a number of the allocator, under the allocator's own lock. An old one that refuses it returns 0,
    // and all stays as it was.
    unsafe { nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, LARGE) };
}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_memory_back() {}
