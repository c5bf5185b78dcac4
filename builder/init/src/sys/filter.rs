//! Filters for system calls.

use nix::errno::Errno;
use nix::libc;
use seccompiler::sock_filter;

/// Puts a filter in front of every system call that this process makes from now on (`seccomp(2)`).
///
/// # Errors
///
/// The kernel takes it from a process that has `CAP_SYS_ADMIN` or has given up new privileges; and
/// only if the program is well formed.
pub(crate) fn install_filter(program: &[sock_filter], flags: u32) -> nix::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: the kernel copies `len` instructions from `filter`, which the slice has, and writes
    // nothing; `sock_filter` of either library is the structure of linux/filter.h.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            std::ptr::from_ref(&program),
        )
    };
    Errno::result(result).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_without_an_end_is_refused_by_the_kernel() {
        // BPF_LD | BPF_W | BPF_ABS of the number of the call, and nothing after it.
        let program = [sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 }];
        assert!(install_filter(&program, 0).is_err());
        assert!(install_filter(&[], 0).is_err());
    }
}
