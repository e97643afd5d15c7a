//! What is made from the command line's definition, so that it can't fall behind it: man pages and completions.
//!
//! - `blocks`: the text below the options of `--help`, taken apart; its form is described there;
//! - `man`: a page for each command of creel and for creeld: `creel debug man`;
//! - `completions`: a script for each shell: `creel completions`.

mod blocks;
mod completions;
mod man;

pub use blocks::{Block, blocks, examples};
pub use completions::{CompletionsArgs, completions};
pub use man::{ManArgs, Page, man, pages};

#[cfg(test)]
mod tests;
