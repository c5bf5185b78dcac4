//! Programs that a control group asks about devices (`bpf(2)`).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

/// Numbers of linux/bpf.h.
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The beginning of `union bpf_attr` for loading a program; the kernel takes what is missing as zero.
#[repr(C)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
}

/// The same for attaching it.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// Lets the control group whose directory this is ask the program about every use of a device. It
/// does so as long as the group exists.
pub(crate) fn limit_devices(group: BorrowedFd<'_>, program: &[u64]) -> nix::Result<()> {
    let program = load(program)?;
    let attach = Attach {
        target: descriptor(group.as_raw_fd()),
        program: descriptor(program.as_raw_fd()),
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the kernel reads `size_of::<Attach>()` bytes, which are there, and writes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_ATTACH,
            std::ptr::from_ref(&attach),
            size_of::<Attach>(),
        )
    };
    Errno::result(result).map(|_| ())
}

fn load(program: &[u64]) -> nix::Result<OwnedFd> {
    let load = Load {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        instructions: program.as_ptr().addr() as u64,
        license: c"Apache".as_ptr().addr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
    };
    // SAFETY: the kernel reads `size_of::<Load>()` bytes, the instructions and the terminated
    // licence, which all live through the call, and writes nothing as there is no log.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, std::ptr::from_ref(&load), size_of::<Load>())
    };
    let fd = i32::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn descriptor(fd: i32) -> u32 {
    u32::try_from(fd).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_directory_that_is_no_control_group_is_refused() {
        let directory = std::fs::File::open("/tmp").unwrap();
        // Return 0: refuse everything. Without the right to load it the error is another one.
        let program = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];
        assert!(limit_devices(directory.as_fd(), &program).is_err());
    }
}
