//! What is remembered of runs: one directory each, with its record and its log.
//!
//! ```text
//! <state dir>/runs/                     0700, its user's own
//!                  <id>/                locked (flock) for as long as the run's creel lives
//!                      /record.json     what it was and how it ended; replaced as a whole
//!                      /log             see `state::log`
//!                  .part-<id>-<n>/      one that is being made, or removed
//! ```
//!
//! The directory is made, and the record written, before anything else of the run is (intent before act). It is made under
//! another name and gets its own once it is locked and complete, so what has a run's name was made by creel, as a whole.
//! Its life is the lock: a run whose record says that it goes on while nobody holds the lock is *lost*, and no pid file can
//! say otherwise.
//!
//! - `record`: what is remembered.
//! - `directory`: the directories and their locks.
//! - `store`: reading them, and beginning a new one.
//! - `writer`: the record of a run that goes on.
//! - `retention`: which are kept for how long. Pure, but for the removing.

mod directory;
mod error;
mod record;
mod retention;
mod store;
mod writer;

pub use error::RecordError;
pub(in crate::state) use error::failed;
pub use record::{Record, RecordState, StepRecord};
pub use retention::{Pruned, Retention};
pub use store::{Damaged, Listed, Records};
pub use writer::RecordWriter;

#[cfg(test)]
mod tests;
