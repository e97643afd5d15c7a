//! Between the messages of `creel.v1` and the library's own types, both ways.
//!
//! To the wire nothing can fail; from the wire everything may, since anybody can write a message. What is converted
//! there and back is the same, to the microsecond.

pub(super) mod exec;
pub(super) mod log;
mod machine;
mod observe;
mod setup;
pub(super) mod shell;
#[cfg(test)]
mod tests;
mod time;
mod verdict;
pub(super) mod workflow;

pub(super) use machine::machine_id;
pub use time::{from_epoch_us, microseconds, since_epoch_us};

/// A message that makes no sense. The text names the field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

impl Malformed {
    fn missing(field: &str) -> Self {
        Self(format!("`{field}` is missing"))
    }

    fn unknown(field: &str, value: i32) -> Self {
        Self(format!("`{field}` has the unknown value {value}"))
    }
}

/// A field that proto3 lets a writer leave out, and that must be there.
fn required<T>(field: Option<T>, name: &str) -> Result<T, Malformed> {
    field.ok_or_else(|| Malformed::missing(name))
}
