//! The log of a workflow: masked, stored with offsets, replayed and followed.
//!
//! ```text
//! agent bytes --> Appender --> Masker --> frames in slots of one file --> Follower --> LineSplitter --> LogLine
//!  (raw offset)                             ^ Segments: which slots live, which are given up
//! ```
//!
//! - `forms`: the byte strings under which a secret may show up.
//! - `mask`: hides them in a stream, whatever the chunk borders.
//! - `skip`: where in a stream they may begin, many bytes at a time.
//! - `parts`: masked bytes cut into what fits into records.
//! - `frame`: records as bytes on disk; a torn tail is told from a record.
//! - `file`: making the log's file, and reading it back after a restart.
//! - `segments`: first and last parts of each step within bounds. Pure.
//! - `store`: the one writer; `append` returns what may be acknowledged.
//! - `follow`: any number of readers, none of which the writer waits for.
//! - `stream`: one stream of one step, from an offset of its own on.
//! - `growing`: the same for a log that another process writes.
//! - `line`: records as JSON lines.

mod file;
mod follow;
mod forms;
mod frame;
mod growing;
mod line;
mod mask;
mod parts;
mod segments;
mod skip;
mod store;
mod stream;

pub use follow::{ExpiredRange, FollowError, Follower};
pub use forms::{MAX_FORM_BYTES, MIN_SECRET_BYTES, forms};
pub use frame::{Control, Payload, Record, StepStatus, Stream};
pub use growing::Growth;
pub use line::{LineKind, LineSplitter, LogLine, MAX_LINE_BYTES, SETUP_STEP};
pub use mask::{MASK, Mask, MaskError, MaskedOutput, Masker};
pub use segments::Limits;
pub use store::{Acknowledged, Appender, LogError, LogStore, bytes_stored};
pub use stream::{StreamExpired, StreamFollower, StreamOffset, StreamPiece};

#[cfg(test)]
mod docs_tests;
#[cfg(test)]
mod growing_tests;
#[cfg(test)]
mod mask_tests;
#[cfg(test)]
mod resume_tests;
#[cfg(test)]
mod segments_tests;
#[cfg(test)]
mod store_tests;
#[cfg(test)]
mod stream_tests;
