//! Who has ended, and how to end the rest.

use std::mem::MaybeUninit;

use creel_keeper::{ProcessEnd, Usage};

/// A child that was waited for.
#[derive(Debug)]
pub(crate) struct Reaped {
    pub(crate) pid: libc::pid_t,
    pub(crate) end: ProcessEnd,
    pub(crate) usage: Usage,
}

/// What one attempt to reap found.
#[derive(Debug)]
pub(crate) enum Attempt {
    Reaped(Reaped),
    /// All children live.
    NoneEnded,
    NoChildren,
}

/// Waits for one ended child, without blocking. It may be an orphan that came to the keeper as PID 1 or subreaper.
pub(crate) fn reap_one() -> Attempt {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are valid for writing.
    let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, usage.as_mut_ptr()) };
    match pid {
        0 => Attempt::NoneEnded,
        pid if pid < 0 => Attempt::NoChildren,
        pid => {
            // SAFETY: zeroed is a valid rusage, and wait4 has filled it.
            let usage = unsafe { usage.assume_init() };
            Attempt::Reaped(Reaped { pid, end: end_of(status), usage: usage_of(&usage) })
        }
    }
}

fn end_of(status: i32) -> ProcessEnd {
    if libc::WIFSIGNALED(status) {
        ProcessEnd::Signalled { signal: libc::WTERMSIG(status), core_dumped: libc::WCOREDUMP(status) }
    } else {
        ProcessEnd::Exited { code: libc::WEXITSTATUS(status) }
    }
}

fn usage_of(usage: &libc::rusage) -> Usage {
    let us = |time: libc::timeval| u64::try_from(time.tv_sec * 1_000_000 + time.tv_usec).unwrap_or(0);
    Usage {
        user_us: us(usage.ru_utime),
        system_us: us(usage.ru_stime),
        max_rss_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0),
    }
}

/// SIGKILL for `children`, their process groups, and every orphan that the keeper has inherited.
pub(crate) fn kill_all(children: &[libc::pid_t]) {
    // SAFETY: kill touches no memory. The pids are children that were not waited for, so they are still theirs. As PID
    // 1 of a namespace, -1 is everything in it; elsewhere it would be the user's whole session, and is not used.
    unsafe {
        if libc::getpid() == 1 {
            libc::kill(-1, libc::SIGKILL);
            return;
        }
        for pid in children {
            libc::kill(-pid, libc::SIGKILL);
            libc::kill(*pid, libc::SIGKILL);
        }
    }
    // The list needs CONFIG_PROC_CHILDREN (proc(5)); without it the parent-death signal has to do.
    let me = std::process::id();
    let adopted = std::fs::read_to_string(format!("/proc/self/task/{me}/children")).unwrap_or_default();
    for pid in adopted.split_whitespace().filter_map(|pid| pid.parse::<libc::pid_t>().ok()) {
        // SAFETY: as above: a child of this process that was not waited for.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}
