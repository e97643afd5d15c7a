//! Turns the files of a keeper, and its end, into events.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use creel_keeper::records::{DONE_FILE, MAX_RECORD_BYTES, exit_file};
use creel_keeper::{DoneRecord, ExitRecord};
use rustix::fs::{Mode, OFlags, openat};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use super::{KeeperEnd, KeeperEvent};
use crate::host::{Child, inotify};

/// Enough to say what went wrong.
const MAX_MESSAGE_BYTES: usize = 4096;

/// A machine's directory under watch.
#[derive(Debug)]
pub(super) struct Watch {
    directory: OwnedFd,
    /// `None` when the user has no inotify watch left; records are then read at the keeper's end.
    changes: Option<inotify::Watch>,
    /// Processes whose end was not seen yet.
    pending: Vec<String>,
}

impl Watch {
    pub(super) fn new(directory: OwnedFd, processes: Vec<String>) -> Self {
        // The keeper renames each record into place once it is whole.
        let changes = inotify::watch(directory.as_fd(), inotify::Events::MOVED_TO)
            .inspect_err(|error| {
                tracing::warn!(%error, "failed to watch a machine's directory: is fs.inotify.max_user_watches too low?");
            })
            .ok();
        Self { directory, changes, pending: processes }
    }

    /// Watches until the keeper has ended, in a task of its own.
    pub(super) fn run(
        self,
        keeper: Child,
        stderr: File,
    ) -> (mpsc::Receiver<KeeperEvent>, watch::Receiver<Option<KeeperEnd>>) {
        // Room for everything that can come, so the task never waits for a reader.
        let (sender, events) = mpsc::channel(self.pending.len() + 1);
        let (gone_sender, gone) = watch::channel(None);
        tokio::spawn(self.follow(keeper, stderr, sender, gone_sender));
        (events, gone)
    }

    async fn follow(
        mut self,
        mut keeper: Child,
        stderr: File,
        events: mpsc::Sender<KeeperEvent>,
        gone: watch::Sender<Option<KeeperEnd>>,
    ) {
        let exit = loop {
            tokio::select! {
                exit = keeper.wait() => break exit,
                () = changed(&mut self.changes) => self.report_new(&events),
            }
        };
        self.report_new(&events);
        let end = KeeperEnd {
            exit: exit.ok(),
            done: self.read::<DoneRecord>(DONE_FILE),
            message: message_in(&stderr),
        };
        // Nobody need be listening.
        let _ = events.try_send(KeeperEvent::Gone(end.clone()));
        gone.send_replace(Some(end));
    }

    fn report_new(&mut self, events: &mpsc::Sender<KeeperEvent>) {
        let mut found: Vec<ExitRecord> = Vec::new();
        let pending = std::mem::take(&mut self.pending);
        for name in pending {
            match self.read(&exit_file(&name)) {
                Some(record) => found.push(record),
                None => self.pending.push(name),
            }
        }
        found.sort_by_key(|record| record.ended_at_unix_ns);
        for record in found {
            let _ = events.try_send(KeeperEvent::ProcessEnded(record));
        }
    }

    /// A record, if it is there and whole.
    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = openat(&self.directory, name, flags, Mode::empty()).ok()?;
        let mut json = Vec::new();
        let record = File::from(file)
            .take(MAX_RECORD_BYTES)
            .read_to_end(&mut json)
            .and_then(|_| serde_json::from_slice(&json).map_err(io::Error::from));
        record.inspect_err(|error| tracing::warn!(name, %error, "failed to read a record of the keeper")).ok()
    }
}

fn message_in(stderr: &File) -> String {
    let mut bytes = [0; MAX_MESSAGE_BYTES];
    let length = stderr.read_at(&mut bytes, 0).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..length]).trim_end().to_owned()
}

/// Returns when something was renamed into the directory. What it was does not matter: the names are known.
async fn changed(changes: &mut Option<inotify::Watch>) {
    match changes {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}
