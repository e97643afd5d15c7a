//! What creeld counts and measures, and how it is written down for Prometheus (OpenMetrics text).
//!
//! - `book`: every metric with its help, and the text of a scrape;
//! - `record`: what others call where something happens;
//! - `labels`: the values that labels may have; `process`: this process's own.
//!
//! Labels are bounded: the kind of an outcome, a phase, a method of the API; never an id or a name that a caller chose.
//! Nothing here knows who scrapes, and nobody who records waits for anything.

mod book;
mod labels;
mod process;
mod record;
#[cfg(test)]
mod tests;

pub use book::{CONTENT_TYPE, Metrics};
pub use labels::{GuestPort, Lease, MachineState};
