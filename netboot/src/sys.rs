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

/// Lets all threads share a few heaps. The C library would give each its own, and keep what any of them once had.
#[cfg(target_env = "gnu")]
pub(crate) fn share_memory() {
    const M_ARENA_MAX: nix::libc::c_int = -8;
    // SAFETY: as above.
    unsafe { nix::libc::mallopt(M_ARENA_MAX, 2) };
}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn share_memory() {}

/// Gives every whole page back that is free now, of all heaps. It takes milliseconds for each 100 MB.
#[cfg(target_env = "gnu")]
pub(crate) fn give_free_memory_back() {
    // SAFETY: it holds the lock of each heap while it looks at it, as any allocation does.
    unsafe { nix::libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_free_memory_back() {}
