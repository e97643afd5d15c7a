//! Measures creel beside its peers, on one machine in one run.
//!
//! ```text
//! args ─▶ rows (one file each: what is measured) ─▶ harness (ours, peer, ours, peer …) ─▶ report.json ─▶ table
//!           │                                                                                └─▶ page: docs/performance.md
//!           └─ world: what rows share, started when first asked for, ended by pid
//!                creeld ── native machines (an agent as a plain process) | emulated microVMs      ours
//!                docker ── a dockerd of the bench's own                                           the peer
//! ```

#![forbid(unsafe_code)]

mod api;
mod args;
mod creeld;
mod data;
mod docker;
mod figures;
mod harness;
mod host;
mod native;
mod page;
mod programs;
mod report;
mod root;
mod row;
mod rows;
mod service;
mod table;
mod world;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Args, Command};

fn main() -> ExitCode {
    let args = Args::parse();
    // Before there is a second thread: it takes a descriptor that it inherited.
    let result = match args.command {
        Some(Command::NativeMachine(native)) => native::serve(&native).map(|()| ExitCode::SUCCESS),
        None => harness::main(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("creel-bench: {error}");
        ExitCode::FAILURE
    })
}
