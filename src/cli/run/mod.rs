//! `creel run`, embedded: no daemon, no root, nothing left behind.
//!
//! [`inputs`] reads flags, [`select`] finds the files, [`prepare`] makes jobs of them, [`execute`]
//! leads through all of it, [`runs`] runs and shows jobs side by side, [`signals`] turns Ctrl-C into a cancel.

mod bounded;
mod execute;
mod inputs;
mod prepare;
mod runs;
mod select;
mod signals;

pub(super) use execute::run;
pub(super) use prepare::image_failure;
