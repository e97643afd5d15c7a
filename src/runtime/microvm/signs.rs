//! What the parts of a machine say of its end, as evidence.

use super::evidence::{ProcessEnd, Sign};
use super::keeper::{Ending, KeeperEnd, KeeperEvent};
use super::launch::QEMU;
use super::qemu::Event;
use crate::host::Exit;

/// What a keeper's event says of the machine.
pub(super) fn sign_of_keeper(event: KeeperEvent) -> Sign {
    match event {
        KeeperEvent::ProcessEnded(record) if record.name == QEMU => Sign::QemuEnded(record.end.into()),
        KeeperEvent::ProcessEnded(record) => Sign::HelperEnded { name: record.name, end: record.end.into() },
        // Ours comes when nobody judges any more.
        KeeperEvent::Gone(KeeperEnd { done: Some(done), .. }) if done.ending == Ending::Terminated => {
            Sign::HolderStopped
        }
        KeeperEvent::Gone(end) => {
            let failed = end.done.and_then(|done| match done.ending {
                Ending::StartFailed { process, error } => Some(format!("{process} did not start: {error}")),
                _ => None,
            });
            let how = match end.exit {
                Some(Exit::Code(code)) => format!("exit status {code}"),
                Some(Exit::Signal(signal)) => format!("signal {signal}"),
                None => "unknown".to_owned(),
            };
            let said = end.message.trim();
            let how = if said.is_empty() { how } else { format!("{how}: {said}") };
            Sign::KeeperGone { how: failed.unwrap_or(how) }
        }
    }
}

/// What QMP's event says of the machine, if it says anything of its end.
pub(super) fn sign_of(event: Event) -> Option<Sign> {
    match event {
        Event::Shutdown { guest, reason } => Some(Sign::Shutdown { guest, reason }),
        Event::GuestPanicked { .. } => Some(Sign::GuestPanicked),
        Event::BlockIoError { device, no_space, reason, .. } => {
            Some(Sign::DiskError { device, no_space, reason })
        }
        _ => None,
    }
}

impl From<creel_keeper::ProcessEnd> for ProcessEnd {
    fn from(end: creel_keeper::ProcessEnd) -> Self {
        match end {
            creel_keeper::ProcessEnd::Exited { code } => Self::Exited(code),
            creel_keeper::ProcessEnd::Signalled { signal, .. } => Self::Signalled(signal),
            creel_keeper::ProcessEnd::FailedToStart { error, .. } => Self::FailedToStart(error),
        }
    }
}
