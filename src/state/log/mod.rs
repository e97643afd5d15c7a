//! The log of a workflow: masked, stored with offsets, replayed and followed.
//!
//! ```text
//! agent bytes --> Appender --> Masker --> frames in slots of one file --> Follower --> LineSplitter --> LogLine
//!  (raw offset)                             ^ Segments: which slots live, which are given up
//! ```
//!
//! - `forms`: the byte strings under which a secret may show up.
//! - `mask`: hides them in a stream, whatever the chunk borders.
//! - `frame`: records as bytes on disk; a torn tail is told from a record.
//! - `file`: making the log's file, and reading it back after a restart.
//! - `segments`: first and last parts of each step within bounds. Pure.
//! - `store`: the one writer; `append` returns what may be acknowledged.
//! - `follow`: any number of readers, none of which the writer waits for.
//! - `line`: records as JSON lines.

mod file;
mod follow;
mod forms;
mod frame;
mod line;
mod mask;
mod segments;
mod store;

pub use follow::{ExpiredRange, FollowError, Follower};
pub use forms::MIN_SECRET_BYTES;
pub use frame::{Control, Payload, Record, StepStatus, Stream};
pub use line::{LineKind, LineSplitter, LogLine, MAX_LINE_BYTES, SETUP_STEP};
pub use mask::{MASK, Mask, MaskError, Masker};
pub use segments::Limits;
pub use store::{Acknowledged, Appender, LogError, LogStore};

#[cfg(test)]
mod mask_tests;
#[cfg(test)]
mod store_tests;
