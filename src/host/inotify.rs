//! Changes of files and directories, all by one inotify instance.
//!
//! A user may have 128 instances (`fs.inotify.max_user_instances`), and a daemon may have hundreds of machines, each with
//! several things to watch. So the process has one instance and one thread that reads it, begun by the first watch. The
//! thread belongs to no async runtime; whoever waits may do so in any.
//!
//! inotify(7) knows one watch descriptor an inode and instance: two watches on one inode share it. Here it is counted,
//! its mask only grows (`IN_MASK_ADD`), and each watch is woken by the events it asked for.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader};
use rustix::io::Errno;
use tokio::sync::Notify;

/// What can be watched for: the events of inotify(7).
pub use rustix::fs::inotify::WatchFlags as Events;

/// Room for many events at once; one with the longest file name takes 272 bytes.
const BUFFER_BYTES: usize = 4096;

static INSTANCE: Mutex<Option<Arc<Instance>>> = Mutex::new(None);

/// Watches what is open as `fd`, which may be closed afterwards and may be `O_PATH`. Only the events of `events` count;
/// flags such as `ONESHOT` do not.
///
/// What happens after this returns is seen by [`Watch::changed`], so look at the state of the thing after this, not
/// before.
///
/// # Errors
/// `ENOSPC` when the user has no watch left (`fs.inotify.max_user_watches`), `EMFILE` when the process is the first to ask
/// and the user has no instance left, `EACCES` when the thing can't be read.
pub fn watch(fd: BorrowedFd<'_>, events: Events) -> io::Result<Watch> {
    instance()?.add(fd, events & Events::ALL_EVENTS)
}

/// Something under watch, until this is dropped.
#[derive(Debug)]
pub struct Watch {
    instance: Arc<Instance>,
    descriptor: i32,
    listener: Arc<Listener>,
}

impl Watch {
    /// Returns when something has changed since this returned last, or since the watch began. Any number of changes may
    /// be told as one, and a change may be told that was none, as after an overflow of the kernel's queue. Safe to cancel.
    ///
    /// The end of what is watched is a change too, and the last one.
    pub async fn changed(&mut self) {
        // Each listener has one waiter at most, so that `notify_one` keeps what comes while nobody waits.
        self.listener.notify.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.instance.remove(self.descriptor, &self.listener);
    }
}

#[derive(Debug)]
struct Listener {
    events: Events,
    notify: Notify,
}

#[derive(Debug)]
struct Instance {
    fd: OwnedFd,
    /// By watch descriptor. The kernel hands them out in a circle (`idr_alloc_cyclic` in fs/notify/inotify), so that a
    /// late event of a removed watch does not meet a new one.
    watched: Mutex<HashMap<i32, Vec<Arc<Listener>>>>,
}

/// The process's instance, begun if there is none. A failure is not remembered: the next one may have more luck.
fn instance() -> io::Result<Arc<Instance>> {
    let mut shared = lock(&INSTANCE);
    if let Some(instance) = &*shared {
        return Ok(Arc::clone(instance));
    }
    let instance = Instance::begin()?;
    *shared = Some(Arc::clone(&instance));
    Ok(instance)
}

impl Instance {
    /// With the thread that reads it.
    fn begin() -> io::Result<Arc<Self>> {
        let instance =
            Arc::new(Self { fd: inotify::init(CreateFlags::CLOEXEC)?, watched: Mutex::new(HashMap::new()) });
        let read = Arc::clone(&instance);
        std::thread::Builder::new().name("inotify".into()).spawn(move || read.run())?;
        Ok(instance)
    }

    fn add(self: Arc<Self>, fd: BorrowedFd<'_>, events: Events) -> io::Result<Watch> {
        let listener = Arc::new(Listener { events, notify: Notify::new() });
        let mut watched = lock(&self.watched);
        // Under the lock: an event that comes at once waits for its listener to be entered.
        let descriptor = inotify::add_watch(
            &self.fd,
            format!("/proc/self/fd/{}", fd.as_raw_fd()),
            events | Events::MASK_ADD,
        )?;
        watched.entry(descriptor).or_default().push(Arc::clone(&listener));
        drop(watched);
        Ok(Watch { instance: self, descriptor, listener })
    }

    fn remove(&self, descriptor: i32, listener: &Arc<Listener>) {
        let mut watched = lock(&self.watched);
        let Some(listeners) = watched.get_mut(&descriptor) else { return };
        listeners.retain(|other| !Arc::ptr_eq(other, listener));
        if listeners.is_empty() {
            watched.remove(&descriptor);
            // Under the lock, lest somebody be given this descriptor before it goes. EINVAL: the inode went first.
            let _ = inotify::remove_watch(&self.fd, descriptor);
        }
    }

    /// Reads events as long as the process lives.
    fn run(&self) {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = Reader::new(&self.fd, &mut buffer);
        let error = loop {
            match reader.next() {
                Ok(event) => self.dispatch(event.wd(), event.events()),
                Err(Errno::INTR) => {}
                Err(error) => break error,
            }
        };
        tracing::error!(%error, "failed to read the changes of watched files: what waits for one now will not see it");
        *lock(&INSTANCE) = None;
        self.wake_all();
    }

    fn dispatch(&self, descriptor: i32, events: ReadFlags) {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            return self.wake_all();
        }
        let mut watched = lock(&self.watched);
        // Whatever ends a watch is told to all.
        let ended = events.intersects(ReadFlags::IGNORED | ReadFlags::UNMOUNT);
        for listener in watched.get(&descriptor).into_iter().flatten() {
            if ended || events.bits() & listener.events.bits() != 0 {
                listener.notify.notify_one();
            }
        }
        if events.contains(ReadFlags::IGNORED) {
            watched.remove(&descriptor);
        }
    }

    fn wake_all(&self) {
        lock(&self.watched).values().flatten().for_each(|listener| listener.notify.notify_one());
    }
}

/// No code that can panic runs under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
