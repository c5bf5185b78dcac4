//! What the Kernel Self-Protection Project recommends (its wiki, "Recommended Settings"), as facts: names, values, and
//! in our words what each is for.

use kiln_types::Arch;

use super::{Rule, Want};

const X86: Option<Arch> = Some(Arch::X86_64);
const ARM: Option<Arch> = Some(Arch::Arm64);
const ON: Want = Want::Is("y");
const OFF: Want = Want::Off;

const fn rule(name: &'static str, want: Want, why: &'static str) -> Rule {
    Rule { name, want, arch: None, by_config: None, why }
}

const fn only(arch: Option<Arch>, name: &'static str, want: Want, why: &'static str) -> Rule {
    Rule { name, want, arch, by_config: None, why }
}

/// A rule that an option of the kernel fulfils as well.
const fn or(
    name: &'static str,
    want: Want,
    option: &'static str,
    value: Want,
    why: &'static str,
) -> Rule {
    Rule { name, want, arch: None, by_config: Some((option, value)), why }
}

/// Options that a kernel is built with.
pub(super) const CONFIG: &[Rule] = &[
    rule("BUG", ON, "a detected error ends the task that caused it"),
    rule("STRICT_KERNEL_RWX", ON, "code of the kernel cannot be written, its data cannot be run"),
    rule("STRICT_MODULE_RWX", ON, "the same for modules"),
    rule("DEBUG_WX", ON, "warns at start of memory that is writable and executable"),
    rule("STACKPROTECTOR_STRONG", ON, "notices overwritten return addresses"),
    rule("STRICT_DEVMEM", ON, "/dev/mem shows devices only"),
    rule("IO_STRICT_DEVMEM", ON, "/dev/mem shows no device that is in use"),
    rule("SYN_COOKIES", ON, "keeps accepting connections under a flood"),
    rule("LIST_HARDENED", ON, "checks linked lists before they are changed"),
    rule("DEBUG_SG", ON, "checks scatter lists of devices"),
    rule("DEBUG_NOTIFIERS", ON, "checks chains of callbacks"),
    rule("DEBUG_VIRTUAL", ON, "checks conversions of addresses"),
    rule("SCHED_STACK_END_CHECK", ON, "notices the overflow of a kernel stack"),
    rule("SECCOMP", ON, "lets programs give up system calls"),
    rule("SECCOMP_FILTER", ON, "lets programs filter system calls"),
    rule("SECURITY", ON, "security modules can be used"),
    rule("SECURITY_YAMA", ON, "limits who may trace whom"),
    rule("SECURITY_LANDLOCK", ON, "lets programs fence themselves in"),
    rule("SECURITY_LOCKDOWN_LSM", ON, "root cannot change the running kernel"),
    rule("SECURITY_LOCKDOWN_LSM_EARLY", ON, "from the first moment on"),
    rule("LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY", ON, "root cannot read the kernel's secrets"),
    rule("SECURITY_SELINUX_BOOTPARAM", OFF, "SELinux cannot be switched off at start"),
    rule("SECURITY_SELINUX_DEVELOP", OFF, "SELinux enforces its rules"),
    rule("SECURITY_WRITABLE_HOOKS", OFF, "hooks of security modules stay as they are"),
    rule("HARDENED_USERCOPY", ON, "checks lengths of copies to and from programs"),
    rule("RANDOMIZE_KSTACK_OFFSET_DEFAULT", ON, "each system call has its stack elsewhere"),
    rule("SLAB_FREELIST_RANDOM", ON, "the order of allocations cannot be foreseen"),
    rule("SLAB_FREELIST_HARDENED", ON, "lists of free objects are protected"),
    rule("RANDOM_KMALLOC_CACHES", ON, "objects of one size lie in several caches"),
    rule("SLAB_BUCKETS", ON, "objects whose size programs choose lie apart"),
    rule("SLAB_MERGE_DEFAULT", OFF, "objects of different kinds do not share caches"),
    rule("SHUFFLE_PAGE_ALLOCATOR", ON, "pages come in no order"),
    rule("FORTIFY_SOURCE", ON, "checks lengths of copies inside the kernel"),
    rule("INIT_ON_ALLOC_DEFAULT_ON", ON, "memory is empty when it is handed out"),
    rule("INIT_ON_FREE_DEFAULT_ON", ON, "memory is emptied when it is given back"),
    rule("INIT_STACK_ALL_ZERO", ON, "variables on the stack begin empty"),
    rule("ZERO_CALL_USED_REGS", ON, "functions leave nothing in registers"),
    rule("UBSAN_BOUNDS", ON, "checks indexes of arrays"),
    rule("UBSAN_SANITIZE_ALL", ON, "in all of the kernel"),
    rule("UBSAN_TRAP", ON, "and ends the task that oversteps"),
    rule("KFENCE", ON, "finds uses of freed memory by sampling"),
    rule("VMAP_STACK", ON, "kernel stacks have guard pages"),
    rule("RESET_ATTACK_MITIGATION", ON, "firmware empties memory after a reset"),
    rule("EFI_DISABLE_PCI_DMA", ON, "devices cannot write to memory before the IOMMU is set up"),
    rule("IOMMU_SUPPORT", ON, "devices reach only the memory that they are given"),
    rule("IOMMU_DEFAULT_DMA_STRICT", ON, "and lose it at once"),
    rule("BUG_ON_DATA_CORRUPTION", ON, "broken structures end the task"),
    rule("PANIC_ON_OOPS", ON, "the kernel stops after an error of its own"),
    rule("PANIC_TIMEOUT", Want::Is("-1"), "and the machine starts again"),
    rule("MODULE_SIG", ON, "modules are signed"),
    rule("MODULE_SIG_FORCE", ON, "and no other is loaded"),
    rule("GCC_PLUGIN_LATENT_ENTROPY", ON, "gathers randomness at start"),
    rule("DEFAULT_MMAP_MIN_ADDR", Want::AtLeast(32_768), "nothing can be mapped near address 0"),
    rule("LDISC_AUTOLOAD", OFF, "terminals load no modules for programs"),
    rule("COMPAT_BRK", OFF, "the heap begins anywhere"),
    rule("ACPI_CUSTOM_METHOD", OFF, "root cannot write to memory by ACPI"),
    rule("PROC_KCORE", OFF, "memory cannot be read by /proc/kcore"),
    rule("INET_DIAG", OFF, "sockets of others cannot be listed"),
    rule("KEXEC", OFF, "root cannot start an unsigned kernel"),
    rule("HIBERNATION", OFF, "memory is not written to a disk"),
    rule("LEGACY_PTYS", OFF, "no old kind of terminals"),
    rule("LEGACY_TIOCSTI", OFF, "nobody types into the terminals of others"),
    rule("BINFMT_MISC", OFF, "no interpreters for unknown programs"),
    rule("MODIFY_LDT_SYSCALL", OFF, "no segments of programs' own"),
    rule("DEVMEM", OFF, "there is no /dev/mem at all"),
    only(X86, "RANDOMIZE_BASE", ON, "the kernel lies anywhere"),
    only(X86, "RANDOMIZE_MEMORY", ON, "its data as well"),
    only(X86, "LEGACY_VSYSCALL_NONE", ON, "no code at a fixed address in programs"),
    only(X86, "MITIGATION_PAGE_TABLE_ISOLATION", ON, "programs do not map the kernel"),
    only(X86, "X86_KERNEL_IBT", ON, "indirect jumps end only where they may"),
    only(X86, "X86_USER_SHADOW_STACK", ON, "programs may keep return addresses apart"),
    only(X86, "INTEL_IOMMU_DEFAULT_ON", ON, "the IOMMU is used"),
    only(X86, "AMD_IOMMU", ON, "the IOMMU of AMD is used"),
    only(X86, "X86_VSYSCALL_EMULATION", OFF, "no vsyscall page"),
    only(X86, "X86_MSR", OFF, "root cannot write to model-specific registers"),
    only(X86, "X86_X32_ABI", OFF, "no third set of system calls"),
    only(X86, "IA32_EMULATION", OFF, "no system calls of 32 bits"),
    only(X86, "COMPAT_VDSO", OFF, "no code at a fixed address in programs of 32 bits"),
    only(ARM, "RANDOMIZE_BASE", ON, "the kernel lies anywhere"),
    only(ARM, "RANDOMIZE_MODULE_REGION_FULL", ON, "modules lie anywhere"),
    only(ARM, "ARM64_SW_TTBR0_PAN", ON, "the kernel reaches programs' memory only on purpose"),
    only(ARM, "UNMAP_KERNEL_AT_EL0", ON, "programs do not map the kernel"),
    only(ARM, "SHADOW_CALL_STACK", ON, "return addresses are kept apart"),
    only(ARM, "ARM64_PTR_AUTH_KERNEL", ON, "return addresses are signed"),
    only(ARM, "ARM64_BTI_KERNEL", ON, "indirect jumps end only where they may"),
    only(ARM, "ARM64_EPAN", ON, "code of programs cannot be read by mistake"),
    only(ARM, "ARM64_E0PD", ON, "programs cannot time the kernel's addresses"),
    only(ARM, "COMPAT", OFF, "no system calls of 32 bits"),
];

/// Arguments of the kernel.
pub(super) const CMDLINE: &[Rule] = &[
    or(
        "init_on_alloc",
        Want::Is("1"),
        "INIT_ON_ALLOC_DEFAULT_ON",
        ON,
        "memory is empty when it is handed out",
    ),
    or(
        "init_on_free",
        Want::Is("1"),
        "INIT_ON_FREE_DEFAULT_ON",
        ON,
        "memory is emptied when it is given back",
    ),
    or(
        "slab_nomerge",
        Want::Is(""),
        "SLAB_MERGE_DEFAULT",
        OFF,
        "objects of different kinds do not share caches",
    ),
    rule("page_alloc.shuffle", Want::Is("1"), "pages come in no order"),
    or(
        "randomize_kstack_offset",
        Want::Is("on"),
        "RANDOMIZE_KSTACK_OFFSET_DEFAULT",
        ON,
        "each system call has its stack elsewhere",
    ),
    or(
        "iommu.passthrough",
        Want::Is("0"),
        "IOMMU_DEFAULT_PASSTHROUGH",
        OFF,
        "devices reach only the memory that they are given",
    ),
    or("iommu.strict", Want::Is("1"), "IOMMU_DEFAULT_DMA_STRICT", ON, "and lose it at once"),
    rule(
        "mitigations",
        Want::Is("auto,nosmt"),
        "all work-arounds for the processor, and no shared cores",
    ),
    only(X86, "pti", Want::Is("on"), "programs do not map the kernel"),
    Rule {
        name: "vsyscall",
        want: Want::Is("none"),
        arch: X86,
        by_config: Some(("LEGACY_VSYSCALL_NONE", ON)),
        why: "no code at a fixed address in programs",
    },
];

/// Parameters of the running kernel.
pub(super) const SYSCTL: &[Rule] = &[
    rule("kernel.kptr_restrict", Want::Is("2"), "addresses of the kernel are shown to nobody"),
    or(
        "kernel.dmesg_restrict",
        Want::Is("1"),
        "SECURITY_DMESG_RESTRICT",
        ON,
        "its messages are for root",
    ),
    rule("kernel.perf_event_paranoid", Want::AtLeast(3), "only root measures performance"),
    rule("kernel.kexec_load_disabled", Want::Is("1"), "no other kernel is started from this one"),
    rule("kernel.yama.ptrace_scope", Want::AtLeast(2), "programs do not trace each other"),
    rule("user.max_user_namespaces", Want::Is("0"), "nobody becomes root of a namespace"),
    or(
        "dev.tty.ldisc_autoload",
        Want::Is("0"),
        "LDISC_AUTOLOAD",
        OFF,
        "terminals load no modules for programs",
    ),
    or(
        "dev.tty.legacy_tiocsti",
        Want::Is("0"),
        "LEGACY_TIOCSTI",
        OFF,
        "nobody types into the terminals of others",
    ),
    rule(
        "kernel.unprivileged_bpf_disabled",
        Want::AtLeast(1),
        "only root loads programs into the kernel",
    ),
    rule("net.core.bpf_jit_harden", Want::Is("2"), "constants in such programs are hidden"),
    rule("kernel.warn_limit", Want::Is("1"), "the kernel stops after its first warning"),
    rule("kernel.oops_limit", Want::Is("1"), "and after its first error"),
    rule("vm.unprivileged_userfaultfd", Want::Is("0"), "only root handles page faults"),
    rule("fs.protected_symlinks", Want::Is("1"), "links in shared folders are not followed"),
    rule("fs.protected_hardlinks", Want::Is("1"), "files of others cannot be linked"),
    rule("fs.protected_fifos", Want::Is("2"), "pipes of others in shared folders are not opened"),
    rule("fs.protected_regular", Want::Is("2"), "nor are files"),
    rule("fs.suid_dumpable", Want::Is("0"), "privileged programs leave no dumps"),
    rule("kernel.randomize_va_space", Want::Is("2"), "programs lie anywhere"),
];
