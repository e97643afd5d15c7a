//! The command line, as clap reads it.

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser};

/// Hold the microVMs of this host for `creel` and for a spindle.
#[derive(Debug, Parser)]
#[command(
    name = "creeld",
    version,
    after_help = "\
Examples:
  systemctl start creeld           as a service, which is how it is meant to run
  creeld --check-config            every mistake of the configuration, with its line
  creeld --check-config --json | jq -r '.problems[].message'
  creeld --print-config            the configuration in force, defaults and all
  creeld --config ./creel.toml     by hand: serves `daemon.socket` of that file until Ctrl-C

Signals: SIGTERM and SIGINT end all machines, then creeld; SIGHUP reads the configuration again,
for new machines.
Environment: CREEL_<SECTION>__<KEY> overrides a key of the file, CREEL_LOG filters the log
(tracing's syntax, such as creel=debug).
Exit codes: 0 ended as asked, 2 bad usage or configuration, 3 this host can't, 125 creeld failed."
)]
pub(super) struct Args {
    /// Configuration file [default: /etc/creel/creel.toml as root, else $XDG_CONFIG_HOME/creel/creel.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Say what is wrong with the configuration and what to do about it, or `ok`; start nothing
    #[arg(long, conflicts_with = "print_config")]
    pub check_config: bool,
    /// With --check-config: as JSON on stdout
    #[arg(long, requires = "check_config")]
    pub json: bool,
    /// Print the configuration in force as a file that says the same; start nothing
    #[arg(long)]
    pub print_config: bool,
    /// Log more: -v how things are done, -vv everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// creeld's command line, for man pages and tests.
pub fn command_line() -> clap::Command {
    Args::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }
}
