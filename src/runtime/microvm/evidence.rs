//! What is known about a machine's end, and the cause that it proves. Pure.
//!
//! A machine that dies says so in several places, in no fixed order: the agent's connection breaks,
//! QMP sends a last event and closes, the keeper records an exit status. Reading the first one alone
//! gives the wrong verdict (a panic looks like a lost agent). So evidence is collected until the cause
//! is proven, or until it has been waited for ([`Evidence::patience`]), and then the strongest decides.
//! Console text is never among it: the guest writes that.

use std::time::Duration;

use crate::runtime::{CrashCause, OutOfMemory, Outcome};

/// How long the first sign of an end waits for stronger evidence, which may never come: the agent's connection breaks alone.
pub const SETTLE: Duration = Duration::from_millis(800);

/// How long it waits where the rest is certain to come: QEMU's end ends its keeper, and QMP with it. That takes milliseconds
/// on an idle host, and seconds on one that swaps, whose verdicts must be no others.
pub const LAST_WORDS: Duration = Duration::from_secs(5);

/// How `qemu_thread_create` ends a QEMU that gets no thread (`error_exit` in util/qemu-thread-posix.c).
const SIGABRT: i32 = 6;

/// What QEMU's `host-signal` was, or it was one of those that it takes in the same way (`termsig_handler`).
const SIGTERM: i32 = 15;

/// One piece of evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sign {
    /// QMP `SHUTDOWN`: `guest` says who asked, `reason` is QAPI's `ShutdownCause`.
    Shutdown { guest: bool, reason: String },
    /// QMP `GUEST_PANICKED`, from pvpanic.
    GuestPanicked,
    /// QMP `BLOCK_IO_ERROR`.
    DiskError { device: String, no_space: bool, reason: String },
    /// QMP has closed: no more events will come from it.
    QmpClosed,
    /// The keeper recorded QEMU's end.
    QemuEnded(ProcessEnd),
    /// The keeper recorded a helper's end.
    HelperEnded { name: String, end: ProcessEnd },
    /// The keeper itself is gone.
    KeeperGone { how: String },
    /// The keeper ended the machine since somebody else than creel told it to.
    HolderStopped,
    /// The kernel killed the machine at its cgroup's limit (`oom_kill` of `memory.events`).
    MemoryLimit { limit_mib: u64, peak_mib: u64 },
    /// The kernel killed the machine, which was not at its own limit, since the memory of the host or of a cgroup above ran
    /// out.
    HostMemory,
    /// A fork or a new thread was refused at the cgroup's limit (`max` of `pids.events`).
    PidsLimit { limit: u64 },
    /// The agent's connection has ended.
    AgentClosed { detail: String },
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessEnd {
    Exited(i32),
    Signalled(i32),
    /// It never ran; the text says why.
    FailedToStart(String),
}

/// What the evidence amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Nothing speaks against a living machine.
    Alive,
    /// Something has ended; stronger evidence may be on its way.
    Unsettled,
    Ended(Outcome),
}

/// All that was seen so far.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    guest_ended: Option<CrashCause>,
    disk_error: Option<Outcome>,
    qmp_closed: bool,
    qemu: Option<ProcessEnd>,
    helper: Option<(String, ProcessEnd)>,
    keeper_gone: Option<String>,
    holder_stopped: bool,
    host_signal: bool,
    memory_limit: Option<OutOfMemory>,
    host_memory: bool,
    pids_limit: Option<u64>,
    agent_closed: Option<String>,
}

impl Evidence {
    /// Adds a sign. The first of its kind stands: what comes later is its consequence.
    pub fn add(&mut self, sign: Sign) {
        match sign {
            Sign::GuestPanicked => self.guest_end(CrashCause::GuestResetOrPanic),
            Sign::Shutdown { guest: true, reason } => self.guest_end(match reason.as_str() {
                "guest-shutdown" => CrashCause::GuestPoweredOff,
                _ => CrashCause::GuestResetOrPanic,
            }),
            // A signal's doing, of which QEMU makes exit status 0. A QMP quit is ours.
            Sign::Shutdown { guest: false, reason } => self.host_signal |= reason == "host-signal",
            Sign::DiskError { device, no_space, reason } => {
                self.disk_error.get_or_insert(if no_space {
                    Outcome::HostDiskFull { detail: format!("no room for what the guest wrote to {device}") }
                } else {
                    Outcome::internal(format_args!("device {device} failed: {reason}"))
                });
            }
            Sign::QmpClosed => self.qmp_closed = true,
            Sign::QemuEnded(end) => {
                self.qemu.get_or_insert(end);
            }
            Sign::HelperEnded { name, end } => {
                self.helper.get_or_insert((name, end));
            }
            Sign::KeeperGone { how } => {
                self.keeper_gone.get_or_insert(how);
            }
            Sign::HolderStopped => self.holder_stopped = true,
            Sign::MemoryLimit { limit_mib, peak_mib } => {
                self.memory_limit.get_or_insert(OutOfMemory::MachineLimit { limit_mib, peak_mib });
            }
            Sign::HostMemory => self.host_memory = true,
            Sign::PidsLimit { limit } => {
                self.pids_limit.get_or_insert(limit);
            }
            Sign::AgentClosed { detail } => {
                self.agent_closed.get_or_insert(detail);
            }
        }
    }

    /// Adds what may be there.
    pub fn extend(&mut self, signs: impl IntoIterator<Item = Sign>) {
        signs.into_iter().for_each(|sign| self.add(sign));
    }

    fn guest_end(&mut self, cause: CrashCause) {
        self.guest_ended.get_or_insert(cause);
    }

    /// What is proven now.
    pub fn finding(&self) -> Finding {
        match self.proven() {
            Some(outcome) => Finding::Ended(outcome),
            None if self.any() => Finding::Unsettled,
            None => Finding::Alive,
        }
    }

    /// How long to wait for more, from the first sign on.
    pub fn patience(&self) -> Duration {
        if self.qmp_closed || self.qemu.is_some() { LAST_WORDS } else { SETTLE }
    }

    /// What to believe once [`Self::patience`] is over.
    pub fn settled(&self) -> Outcome {
        if let Some(outcome) = self.proven() {
            return outcome;
        }
        // QEMU's end without the end of QMP, then what QEMU's end would have caused, then the agent.
        if let Some(outcome) = self.qemu.as_ref().map(|end| self.qemu_outcome(end)) {
            return outcome;
        }
        if let Some((name, end)) = &self.helper {
            return Outcome::MachineCrashed {
                cause: CrashCause::HelperEnded { name: name.clone(), how: end.to_string() },
            };
        }
        match &self.agent_closed {
            Some(detail) => Outcome::AgentLost { detail: detail.clone() },
            None => Outcome::internal("QMP closed while QEMU lives"),
        }
    }

    fn proven(&self) -> Option<Outcome> {
        if let Some(outcome) = &self.disk_error {
            return Some(outcome.clone());
        }
        // `memory.oom.group` makes it the end of the whole machine.
        if let Some(scope) = &self.memory_limit {
            return Some(Outcome::OutOfMemory { scope: scope.clone() });
        }
        if self.host_memory {
            return Some(crashed(CrashCause::HostOutOfMemory));
        }
        if self.holder_stopped {
            return Some(crashed(CrashCause::HolderStopped));
        }
        if let Some(cause) = &self.guest_ended {
            return Some(crashed(cause.clone()));
        }
        match (&self.qemu, &self.keeper_gone) {
            // Whether the keeper was told to end the machine, by who ended the whole service, is about to be heard.
            (Some(ProcessEnd::Signalled(_)), None) => None,
            (Some(_), None) if self.host_signal => None,
            // Its last event may still be on the way as long as QMP is open.
            (Some(end), _) if self.qmp_closed || matches!(end, ProcessEnd::FailedToStart(_)) => {
                Some(self.qemu_outcome(end))
            }
            (None, Some(how)) => Some(match &self.helper {
                Some((name, end)) => Outcome::MachineCrashed {
                    cause: CrashCause::HelperEnded { name: name.clone(), how: format!("{end}; {how}") },
                },
                None => Outcome::internal(format_args!("the machine's keeper ended: {how}")),
            }),
            _ => None,
        }
    }

    /// A QEMU that may not have another thread aborts, or says so and exits; that it was refused one is a fact of the
    /// kernel's, not a guess. Another signal is not its own doing, however long ago it was refused one.
    fn qemu_outcome(&self, end: &ProcessEnd) -> Outcome {
        let gave_up = matches!(end, ProcessEnd::Exited(1..) | ProcessEnd::Signalled(SIGABRT));
        if let Some(limit) = self.pids_limit.filter(|_| gave_up) {
            return crashed(CrashCause::PidsLimit { limit });
        }
        match end {
            ProcessEnd::Exited(0) if self.host_signal => {
                crashed(CrashCause::QemuSignalled { signal: SIGTERM })
            }
            ProcessEnd::Exited(status) => crashed(CrashCause::QemuExited { status: *status }),
            ProcessEnd::Signalled(signal) => crashed(CrashCause::QemuSignalled { signal: *signal }),
            ProcessEnd::FailedToStart(why) => Outcome::internal(format_args!("QEMU did not start: {why}")),
        }
    }

    fn any(&self) -> bool {
        self.qmp_closed || self.qemu.is_some() || self.helper.is_some() || self.agent_closed.is_some()
    }
}

fn crashed(cause: CrashCause) -> Outcome {
    Outcome::MachineCrashed { cause }
}

impl std::fmt::Display for ProcessEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exit status {status}"),
            Self::Signalled(signal) => write!(f, "signal {signal}"),
            Self::FailedToStart(why) => write!(f, "failed to start: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(signs: &[Sign]) -> Evidence {
        let mut evidence = Evidence::default();
        signs.iter().cloned().for_each(|sign| evidence.add(sign));
        evidence
    }

    fn agent_closed() -> Sign {
        Sign::AgentClosed { detail: "closed".into() }
    }

    fn guest_reset() -> Sign {
        Sign::Shutdown { guest: true, reason: "guest-reset".into() }
    }

    #[test]
    fn no_sign_means_alive() {
        assert_eq!(Evidence::default().finding(), Finding::Alive);
    }

    #[test]
    fn a_closed_agent_waits_for_better_evidence_and_is_lost_without() {
        let evidence = after(&[agent_closed()]);
        assert_eq!(evidence.finding(), Finding::Unsettled);
        assert_eq!(evidence.settled(), Outcome::AgentLost { detail: "closed".into() });
    }

    #[test]
    fn a_killed_qemu_is_told_by_its_signal() {
        let signs = [agent_closed(), Sign::QmpClosed, Sign::QemuEnded(ProcessEnd::Signalled(9))];
        let expected = crashed(CrashCause::QemuSignalled { signal: 9 });
        let mut evidence = after(&signs);
        assert_eq!(evidence.finding(), Finding::Unsettled, "its keeper may have been told to");
        assert_eq!(evidence.settled(), expected);
        evidence.add(Sign::KeeperGone { how: "exit status 0".into() });
        assert_eq!(evidence.finding(), Finding::Ended(expected));
    }

    #[test]
    fn what_is_certain_to_come_is_waited_for_longer() {
        assert_eq!(after(&[agent_closed()]).patience(), SETTLE);
        assert_eq!(after(&[agent_closed(), Sign::QmpClosed]).patience(), LAST_WORDS);
        let killed = Sign::QemuEnded(ProcessEnd::Signalled(9));
        assert_eq!(after(std::slice::from_ref(&killed)).patience(), LAST_WORDS);
        // A holder that is stopped kills QEMU first, and the keeper's word of it comes late on a busy host.
        let stopped = after(&[agent_closed(), Sign::QmpClosed, killed, Sign::HolderStopped]);
        assert_eq!(stopped.finding(), Finding::Ended(crashed(CrashCause::HolderStopped)));
    }

    #[test]
    fn qemu_s_end_waits_for_qmp_s_last_word() {
        let mut evidence = after(&[Sign::QemuEnded(ProcessEnd::Exited(0))]);
        assert_eq!(evidence.finding(), Finding::Unsettled);
        evidence.add(guest_reset());
        assert_eq!(evidence.finding(), Finding::Ended(crashed(CrashCause::GuestResetOrPanic)));
    }

    #[test]
    fn a_full_disk_stands_above_what_it_causes() {
        let full = Sign::DiskError { device: "volume0".into(), no_space: true, reason: "ENOSPC".into() };
        let evidence = after(&[agent_closed(), full]);
        assert!(matches!(evidence.finding(), Finding::Ended(Outcome::HostDiskFull { .. })));
    }

    #[test]
    fn a_keeper_that_is_gone_without_a_record_is_our_fault() {
        let evidence = after(&[Sign::QmpClosed, Sign::KeeperGone { how: "signal 9".into() }]);
        assert!(matches!(evidence.finding(), Finding::Ended(Outcome::Internal { .. })));
    }

    #[test]
    fn a_dead_helper_is_named() {
        let end = ProcessEnd::Signalled(11);
        let evidence = after(&[agent_closed(), Sign::HelperEnded { name: "vsock".into(), end }]);
        let how = "signal 11".to_owned();
        assert_eq!(evidence.settled(), crashed(CrashCause::HelperEnded { name: "vsock".into(), how }));
    }

    #[test]
    fn a_machine_at_its_memory_limit_is_told_by_limit_and_peak_whatever_else_is_heard() {
        let limit = Sign::MemoryLimit { limit_mib: 200, peak_mib: 199 };
        let killed = Sign::QemuEnded(ProcessEnd::Signalled(9));
        let evidence = after(&[agent_closed(), Sign::QmpClosed, killed, limit]);
        let scope = OutOfMemory::MachineLimit { limit_mib: 200, peak_mib: 199 };
        assert_eq!(evidence.finding(), Finding::Ended(Outcome::OutOfMemory { scope }));
    }

    #[test]
    fn a_machine_that_the_kernel_chose_below_its_own_limit_is_not_at_fault() {
        let killed = Sign::QemuEnded(ProcessEnd::Signalled(9));
        let evidence = after(&[agent_closed(), Sign::QmpClosed, killed, Sign::HostMemory]);
        assert_eq!(evidence.finding(), Finding::Ended(crashed(CrashCause::HostOutOfMemory)));
    }

    #[test]
    fn a_qemu_that_got_no_thread_is_told_by_the_limit_and_one_that_lives_on_is_not() {
        let limit = Sign::PidsLimit { limit: 8 };
        assert_eq!(after(std::slice::from_ref(&limit)).finding(), Finding::Alive);
        let aborted = Sign::QemuEnded(ProcessEnd::Signalled(6));
        let gone = Sign::KeeperGone { how: "exit status 0".into() };
        let evidence = after(&[limit.clone(), Sign::QmpClosed, aborted, gone]);
        assert_eq!(evidence.finding(), Finding::Ended(crashed(CrashCause::PidsLimit { limit: 8 })));
        let gone = Sign::KeeperGone { how: "exit status 0".into() };
        let killed =
            after(&[limit.clone(), Sign::QmpClosed, Sign::QemuEnded(ProcessEnd::Signalled(9)), gone]);
        assert_eq!(killed.finding(), Finding::Ended(crashed(CrashCause::QemuSignalled { signal: 9 })));
        let orderly = after(&[limit, Sign::QmpClosed, Sign::QemuEnded(ProcessEnd::Exited(0))]);
        assert_eq!(orderly.finding(), Finding::Ended(crashed(CrashCause::QemuExited { status: 0 })));
    }

    #[test]
    fn a_machine_that_others_ended_is_no_fault_of_qemu() {
        let evidence =
            after(&[Sign::QmpClosed, Sign::QemuEnded(ProcessEnd::Signalled(15)), Sign::HolderStopped]);
        assert_eq!(evidence.finding(), Finding::Ended(crashed(CrashCause::HolderStopped)));
    }

    fn any_end() -> impl Strategy<Value = ProcessEnd> {
        prop_oneof![(0..256i32).prop_map(ProcessEnd::Exited), (1..64i32).prop_map(ProcessEnd::Signalled)]
    }

    proptest! {
        /// The three ways a machine's death is heard of may come in any order.
        #[test]
        fn a_panic_is_a_panic_in_whatever_order_it_is_heard(
            order in Just(vec![
                agent_closed(), Sign::QmpClosed, guest_reset(), Sign::QemuEnded(ProcessEnd::Exited(0)),
                Sign::HelperEnded { name: "vsock".into(), end: ProcessEnd::Exited(0) },
            ]).prop_shuffle(),
        ) {
            // QMP closes after its last event: it is one stream.
            prop_assume!(order.iter().position(|s| *s == Sign::QmpClosed)
                > order.iter().position(|s| *s == guest_reset()));
            let mut evidence = Evidence::default();
            for sign in order {
                evidence.add(sign);
                if let Finding::Ended(outcome) = evidence.finding() {
                    prop_assert_eq!(outcome, crashed(CrashCause::GuestResetOrPanic));
                }
            }
            prop_assert_eq!(evidence.settled(), crashed(CrashCause::GuestResetOrPanic));
        }

        #[test]
        fn qemu_s_recorded_end_decides_when_the_guest_said_nothing(
            end in any_end(),
            order in Just(vec![0, 1, 2, 3]).prop_shuffle(),
        ) {
            let gone = Sign::KeeperGone { how: "exit status 0".into() };
            let signs = [agent_closed(), Sign::QmpClosed, Sign::QemuEnded(end.clone()), gone];
            // Everything that the keeper recorded is heard before its end.
            prop_assume!(order.iter().position(|at| *at == 2) < order.iter().position(|at| *at == 3));
            let evidence = after(&order.into_iter().map(|at| signs[at].clone()).collect::<Vec<_>>());
            let cause = match end {
                ProcessEnd::Exited(status) => CrashCause::QemuExited { status },
                ProcessEnd::Signalled(signal) => CrashCause::QemuSignalled { signal },
                ProcessEnd::FailedToStart(why) => panic!("not generated: {why}"),
            };
            prop_assert_eq!(evidence.finding(), Finding::Ended(crashed(cause)));
        }
    }
}
