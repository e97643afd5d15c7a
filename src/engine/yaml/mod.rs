//! YAML text to a tree that remembers where everything stood.
//!
//! A general deserialiser would lose what a good error needs: the line, the column, and how a scalar was written (`1.10`
//! is not `1.1`, when it becomes an environment variable). So the tree is built from `saphyr-parser`'s events, and the
//! meaning of a plain scalar is asked for only where it matters ([`Scalar::resolve`]).

mod json;
mod load;
mod node;
mod problem;
mod scalar;

#[cfg(test)]
mod tests;

pub use json::{JsonError, to_json};
pub use load::{Limits, Loaded, load};
pub use node::{Entry, Key, Node, Span, Tree};
pub use scalar::{Resolved, Scalar, Style};
