//! System calls that nothing in a machine has a use for: refused with EPERM. (seccomp(2))
//!
//! A deny list, since an allow list would have to know the next QEMU's calls. QEMU puts its own filter on top (`-sandbox`),
//! which is stricter in its way and comes later; this one stands from the program's first instruction on, and for the
//! helper and the keeper too.

use std::io;

/// `SECCOMP_RET_*` and `BPF_*` of linux/seccomp.h and linux/bpf_common.h.
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const GREATER_OR_EQUAL: u16 = 0x35;
const ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`. Arguments are 64 bits; the lower half comes first on these architectures.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

/// `AUDIT_ARCH_*` of linux/audit.h.
#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

/// x32's calls have this bit; nothing native has a number that high.
const X32: u32 = 0x4000_0000;

/// Refused whatever their arguments.
const DENIED: &[libc::c_long] = &[
    // Other ways to do what is denied below, past any filter.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Parts of the kernel that attackers like.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_fanotify_init,
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    // Files past their paths, and device nodes.
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_mknodat,
    // The host as a whole.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_lookup_dcookie,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
];

/// clone(2): each makes a namespace.
const NAMESPACE_FLAGS: u32 = 0x0002_0000
    | 0x0200_0000
    | 0x0400_0000
    | 0x0800_0000
    | 0x1000_0000
    | 0x2000_0000
    | 0x4000_0000
    | 0x0000_0080;

/// TIOCSTI and TIOCLINUX, typing into a terminal and the console's selection: both have been ways out of sandboxes.
const DENIED_IOCTLS: [u32; 2] = [0x5412, 0x541c];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    operand: u32,
}

const fn statement(code: u16, operand: u32) -> Instruction {
    Instruction { code, if_true: 0, if_false: 0, operand }
}

/// Skips so many instructions when it holds, and so many when it does not.
const fn jump(code: u16, operand: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction { code, if_true, if_false, operand }
}

const fn refuse(errno: i32) -> Instruction {
    statement(RETURN, ERRNO | errno.cast_unsigned())
}

/// Installs it for good. `no_new_privs` has to be set.
pub(crate) fn install() -> io::Result<()> {
    #[repr(C)]
    struct Program {
        length: u16,
        instructions: *const Instruction,
    }
    let instructions = program();
    let length = u16::try_from(instructions.len()).map_err(io::Error::other)?;
    let program = Program { length, instructions: instructions.as_ptr() };
    const SET_MODE_FILTER: libc::c_uint = 1;
    // SAFETY: the program is valid for reading of its length, and laid out as the kernel has it (`struct sock_fprog`).
    let status = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, 0, &raw const program) };
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn program() -> Vec<Instruction> {
    let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
    let mut program = vec![
        // int 0x80 has 32-bit calls of its own numbers.
        statement(LOAD, ARCHITECTURE),
        jump(EQUAL, NATIVE, 1, 0),
        statement(RETURN, KILL_PROCESS),
        statement(LOAD, NUMBER),
        jump(GREATER_OR_EQUAL, X32, 0, 1),
        statement(RETURN, KILL_PROCESS),
    ];
    for call in DENIED {
        program.extend([jump(EQUAL, number(*call), 0, 1), refuse(libc::EPERM)]);
    }
    // Its flags lie in memory, which no filter sees: libc takes clone(2) then, which it can.
    program.extend([jump(EQUAL, number(libc::SYS_clone3), 0, 1), refuse(libc::ENOSYS)]);
    // Each block ends with what the next one looks at.
    program.extend([
        jump(EQUAL, number(libc::SYS_clone), 0, 4),
        statement(LOAD, argument(0)),
        jump(ANY_BIT, NAMESPACE_FLAGS, 0, 1),
        refuse(libc::EPERM),
        statement(LOAD, NUMBER),
    ]);
    // Unix sockets reach what has a name in the root, which is the machine's own.
    program.extend([
        jump(EQUAL, number(libc::SYS_socket), 1, 0),
        jump(EQUAL, number(libc::SYS_socketpair), 0, 4),
        statement(LOAD, argument(0)),
        jump(EQUAL, libc::AF_UNIX.cast_unsigned(), 1, 0),
        refuse(libc::EPERM),
        statement(LOAD, NUMBER),
    ]);
    let [first, second] = DENIED_IOCTLS;
    program.extend([
        jump(EQUAL, number(libc::SYS_ioctl), 0, 5),
        statement(LOAD, argument(1)),
        jump(EQUAL, first, 1, 0),
        jump(EQUAL, second, 0, 1),
        refuse(libc::EPERM),
        statement(LOAD, NUMBER),
    ]);
    program.push(statement(RETURN, ALLOW));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel makes of the program, for a call.
    fn judged(architecture: u32, number: u32, arguments: [u64; 2]) -> u32 {
        let program = program();
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let Instruction { code, if_true, if_false, operand } = program[at];
            at += 1;
            let mut branch = |holds: bool| at += usize::from(if holds { if_true } else { if_false });
            match code {
                LOAD => {
                    accumulator = match operand {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        16 => lower(arguments[0]),
                        24 => lower(arguments[1]),
                        other => panic!("loads {other}"),
                    }
                }
                EQUAL => branch(accumulator == operand),
                GREATER_OR_EQUAL => branch(accumulator >= operand),
                ANY_BIT => branch(accumulator & operand != 0),
                RETURN => return operand,
                other => panic!("code {other:#x}"),
            }
        }
    }

    fn lower(argument: u64) -> u32 {
        u32::try_from(argument & u64::from(u32::MAX)).unwrap()
    }

    fn native(call: libc::c_long, arguments: [u64; 2]) -> u32 {
        judged(NATIVE, u32::try_from(call).unwrap(), arguments)
    }

    const REFUSED: u32 = ERRNO | 1;

    #[test]
    fn what_is_denied_is_refused_and_what_qemu_does_all_day_is_not() {
        for call in DENIED {
            assert_eq!(native(*call, [0, 0]), REFUSED, "{call}");
        }
        for call in [libc::SYS_read, libc::SYS_ppoll, libc::SYS_futex, libc::SYS_mmap, libc::SYS_execve] {
            assert_eq!(native(call, [0, 0]), ALLOW, "{call}");
        }
    }

    #[test]
    fn arguments_decide_where_they_can_be_seen() {
        let thread = 0x0000_0100 | 0x0001_0000;
        assert_eq!(native(libc::SYS_clone, [thread, 0]), ALLOW);
        for shift in [7, 17, 25, 26, 27, 28, 29, 30] {
            assert_eq!(native(libc::SYS_clone, [thread | 1 << shift, 0]), REFUSED, "{shift}");
        }
        assert_eq!(native(libc::SYS_clone3, [0, 0]), ERRNO | libc::ENOSYS.cast_unsigned());
        for call in [libc::SYS_socket, libc::SYS_socketpair] {
            for family in 0..64u64 {
                let expected = if family == 1 { ALLOW } else { REFUSED };
                assert_eq!(native(call, [family, 0]), expected, "{family}");
            }
        }
        assert_eq!(native(libc::SYS_ioctl, [0, u64::from(DENIED_IOCTLS[0])]), REFUSED);
        assert_eq!(native(libc::SYS_ioctl, [0, u64::from(DENIED_IOCTLS[1])]), REFUSED);
        // The upper half of an argument that the kernel reads 32 bits of makes no difference.
        assert_eq!(native(libc::SYS_ioctl, [0, u64::from(DENIED_IOCTLS[0]) | 1 << 40]), REFUSED);
        // KVM_RUN.
        assert_eq!(native(libc::SYS_ioctl, [0, 0xae80]), ALLOW);
    }

    #[test]
    fn other_kinds_of_calls_end_the_process() {
        const I386: u32 = 0x4000_0003;
        assert_eq!(judged(I386, 1, [0, 0]), KILL_PROCESS);
        assert_eq!(judged(NATIVE, X32 | 1, [0, 0]), KILL_PROCESS);
        assert_eq!(judged(NATIVE, u32::MAX, [0, 0]), KILL_PROCESS);
    }
}
