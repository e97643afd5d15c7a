//! The command line.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::Parser;

/// Measures creel beside its peers: ours, peer, ours, peer …, several times each, in one run.
#[derive(Debug, Parser)]
#[command(name = "creel-bench", version)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Only these rows
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    pub rows: Vec<String>,
    /// How often each side is measured
    #[arg(long, value_name = "N", default_value = "5")]
    pub runs: NonZeroU32,
    /// Smaller sizes: to try things out, not to publish
    #[arg(long)]
    pub quick: bool,
    /// The report on stdout instead of a table
    #[arg(long)]
    pub json: bool,
    /// Only say which rows there are
    #[arg(long)]
    pub list: bool,
    /// Only write docs/performance.md and its charts from the report of the last run
    #[arg(long)]
    pub write_docs: bool,
    /// The directory of the `creel` and `creeld` to measure [default: that of this program]
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
    /// The kit [default: $CREEL_KIT__DIR, else `../kit` from the programs]
    #[arg(long, value_name = "DIR")]
    pub kit: Option<PathBuf>,
    /// Where the report goes
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub output: PathBuf,
    /// Where the documentation is
    #[arg(long, value_name = "DIR", default_value = "docs")]
    pub docs: PathBuf,
}

/// What the bench runs itself as.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// The place of QEMU in a native machine
    #[command(hide = true)]
    NativeMachine(NativeMachine),
}

/// See `native`.
#[derive(Debug, clap::Args)]
pub struct NativeMachine {
    /// What runs the agent
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub agent: Vec<String>,
}
