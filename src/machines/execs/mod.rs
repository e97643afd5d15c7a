//! Execs that callers hold: each is owned by a task with its streams and its verdict, and one caller is attached to it or
//! nobody is.
//!
//! ```text
//!                    its caller is gone, and it lingers
//!   start ─▶ held ◀──────────────────────────────────────▶ waiting ──▶ given up: cancelled, forgotten
//!             │ ▲      somebody attaches by its id             │  too long, too many of them, or the machine has ended
//!             │ └─ another caller attaches: the former's call ends
//!             ▼
//!   told: output and verdict were handed to the caller ─▶ waiting, as above, for one who did not get them; or forgotten
//! ```
//!
//! Nothing goes around the owner's task: what a caller says is heeded in the order in which it was said, and nothing of it
//! once another caller is attached. What waits for a reader is bounded for each exec (see [`crate::runtime::streams`]), and
//! so is how many execs wait.

mod attachment;
mod owner;
mod start;
mod table;

pub use attachment::{Ask, Asks, Attachment, News, NewsReader};
pub use start::{Fingerprint, HeldExec, Holding, MAX_LINGER};
pub(super) use table::Execs;
pub use table::MAX_WAITING_EXECS;
