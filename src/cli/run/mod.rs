//! `creel run`: in machines of a daemon where one answers, else embedded, without root and with nothing left behind.
//!
//! [`inputs`] reads flags, [`place`] decides where machines come from, [`select`] finds the files, [`prepare`] makes
//! jobs of them, [`serving`] lets other commands reach an embedded run, [`execute`] leads through all of it, [`runs`] runs
//! and shows jobs side by side, and [`recorded`] remembers them.

mod bounded;
mod execute;
mod inputs;
mod place;
mod prepare;
mod recorded;
mod runs;
mod select;
mod serving;

pub(super) use execute::run;
pub(super) use inputs::{pairs, trigger_of};
pub(super) use prepare::image_failure;
pub(super) use select::{Broken, Read, WORKFLOWS_DIRECTORY, read_all};
