//! `creel cp`: files between here and a machine, or an archive of them.
//!
//! - `command`: the command, and what it says at its end;
//! - `place`: `MACHINE:PATH`, a path here, or `-`;
//! - `fetch` and `send`: from a machine, and to one; `call` is how something is done in one;
//! - `pipe`: between async streams and threads that read and write files;
//! - `told`: progress, and what is wrong on the way.
//!
//! The machine's side is untrusted: its archive is unpacked below the destination and nowhere else (crate `creel-tree`), and
//! what it says is shown as text that no terminal obeys.

mod call;
mod command;
mod fetch;
mod pipe;
mod place;
mod send;
#[cfg(test)]
mod tests;
mod told;

pub(in crate::cli) use command::cp;
