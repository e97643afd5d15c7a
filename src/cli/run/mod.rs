//! `creel run`, embedded: no daemon, no root, nothing left behind.
//!
//! [`inputs`] reads flags, [`select`] finds the files, [`prepare`] makes jobs of them, [`execute`]
//! runs and shows them, [`signals`] turns Ctrl-C into a cancel.

mod execute;
mod inputs;
mod prepare;
mod select;
mod signals;

pub(super) use execute::run;
pub(super) use prepare::image_failure;
