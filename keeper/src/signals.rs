//! Signals as a descriptor: SIGCHLD and SIGTERM are read, everything a terminal might send is ignored.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// Sent by terminals and broken pipes, or of no meaning here; PID 1 is immune anyway, a plain keeper must be too.
const IGNORED: [i32; 7] =
    [libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE, libc::SIGUSR1, libc::SIGUSR2, libc::SIGTSTP];

/// The keeper's signal descriptor.
#[derive(Debug)]
pub(crate) struct Signals(OwnedFd);

impl Signals {
    /// Blocks SIGCHLD and SIGTERM for good and opens the descriptor.
    pub(crate) fn take_over() -> io::Result<Self> {
        let set = set_of(&[libc::SIGCHLD, libc::SIGTERM]);
        // SAFETY: both pointers are to initialised sets or null; the process has one thread. An ignored SIGCHLD would
        // make the kernel reap the children unseen, so its disposition is made the default one.
        let fd = unsafe {
            for signal in IGNORED {
                libc::signal(signal, libc::SIG_IGN);
            }
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            if libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) < 0 {
                return Err(io::Error::last_os_error());
            }
            libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd returned a new descriptor.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Empties the descriptor; true if SIGTERM was among the signals.
    pub(crate) fn drain_saw_sigterm(&self) -> bool {
        const SIZE: usize = size_of::<libc::signalfd_siginfo>();
        const SIGNO_BYTES: usize = size_of::<u32>();
        let mut terminated = false;
        let mut info = [0u8; SIZE];
        while let Ok(SIZE) = rustix::io::read(&self.0, &mut info) {
            // `ssi_signo` is the first member (signalfd(2)).
            let mut number = [0; SIGNO_BYTES];
            number.copy_from_slice(&info[..SIGNO_BYTES]);
            terminated |= u32::from_ne_bytes(number) == libc::SIGTERM.unsigned_abs();
        }
        terminated
    }
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set, sigaddset takes an initialised one and valid signal numbers.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}
