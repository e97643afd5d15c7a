//! The machines that this process holds, by id.
//!
//! One task owns each machine from the first moment of its setup until everything that it held is free: it alone moves
//! the machine through its states, others give it orders and watch.
//!
//! ```text
//!            create                destroy, max_age, creator gone, death
//!  (admitted) --> setting up --> ready --> ending --> ended (the last 64 are kept)
//!                     \-- failed: forgotten, unless it had come far enough to have an outcome --> ended
//! ```
//!
//! *Ended* is said of no machine that is not gone: one that can't be destroyed is listed as ending, and counts as living.
//!
//! Nothing here knows of gRPC or of the service manager: creeld's API stands on it, and so can an embedded run.

mod console;
mod entry;
mod error;
mod events;
mod exec_ids;
mod execs;
mod inspect;
mod look;
mod owner;
mod registry;
mod runtime;
mod summary;
#[cfg(test)]
mod tests;
mod work;

pub use console::{ConsoleChunk, ConsoleReader};
pub use error::{ConsoleError, CreateError, DestroyError, Detached, ExecError, ShellError, SignalError};
pub use events::{EVENTS_KEPT, EventReader, Followed, Happening, MachineEvent, UnknownSequence};
pub use exec_ids::{MAX_CHOSEN_IDS, NamedBy};
pub use execs::{
    Ask, Asks, Attachment, Fingerprint, HeldExec, Holding, MAX_LINGER, MAX_WAITING_EXECS, News, NewsReader,
};
pub use inspect::{Inspection, MachineStats, PhaseRecord};
pub use registry::{Asker, Creation, ENDED_KEPT, Lifetime, Machines};
pub use runtime::ListedRuntime;
pub use summary::{Counts, State, Summary};
