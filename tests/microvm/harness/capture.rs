//! A stream of the program's output, read as it comes, with the time of each piece.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Shared with the thread that reads.
#[derive(Debug, Clone)]
pub struct Capture(Arc<(Mutex<Captured>, Condvar)>);

#[derive(Debug, Default)]
struct Captured {
    bytes: Vec<u8>,
    /// How many bytes there were at which time.
    times: Vec<(usize, Instant)>,
    closed: bool,
}

impl Capture {
    /// Reads until the end of the stream.
    pub fn of(mut stream: impl Read + Send + 'static) -> Self {
        let capture = Self(Arc::default());
        let shared = Arc::clone(&capture.0);
        thread::spawn(move || {
            let (state, changed) = &*shared;
            let mut piece = vec![0; 64 << 10];
            loop {
                let read = stream.read(&mut piece).unwrap_or(0);
                let now = Instant::now();
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                state.bytes.extend_from_slice(&piece[..read]);
                let length = state.bytes.len();
                state.times.push((length, now));
                state.closed = read == 0;
                changed.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        capture
    }

    /// When `text` had come; None if the stream ended, or `limit` passed, without it.
    pub fn wait_for(&self, text: &str, limit: Duration) -> Option<Instant> {
        let (state, changed) = &*self.0;
        let found = |state: &Captured| {
            let at = state.bytes.windows(text.len()).position(|bytes| bytes == text.as_bytes())?;
            let end = at + text.len();
            state.times.iter().find(|(length, _)| *length >= end).map(|(_, time)| *time)
        };
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |state: &mut Captured| !state.closed && found(state).is_none();
        let (state, _) =
            changed.wait_timeout_while(state, limit, waiting).unwrap_or_else(PoisonError::into_inner);
        found(&state)
    }

    /// Everything, once the stream has ended; None if it does not within `limit`: somebody holds it open.
    pub fn all(&self, limit: Duration) -> Option<Vec<u8>> {
        let (state, changed) = &*self.0;
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut state, _) = changed
            .wait_timeout_while(state, limit, |state| !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        state.closed.then(|| std::mem::take(&mut state.bytes))
    }

    /// Whether so many bytes came within `limit`.
    pub fn wait_for_bytes(&self, bytes: usize, limit: Duration) -> bool {
        let (state, changed) = &*self.0;
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |state: &mut Captured| !state.closed && state.bytes.len() < bytes;
        let (state, _) =
            changed.wait_timeout_while(state, limit, waiting).unwrap_or_else(PoisonError::into_inner);
        state.bytes.len() >= bytes
    }

    pub fn len(&self) -> usize {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).bytes.len()
    }

    /// What has come so far.
    pub fn so_far(&self) -> String {
        let state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&state.bytes).into_owned()
    }
}
