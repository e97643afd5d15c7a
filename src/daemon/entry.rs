//! The `creeld` program: command line, configuration, log, runtime; and how the rest's end becomes an exit code.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use tracing::{error, info};

use super::args::Args;
use super::check;
use super::failure::Failure;
use super::life::{self, Origin};
use super::logging;
use crate::config::Environment;
use crate::error::with_causes;
use crate::exit::Exit;
use crate::host::activation;

/// How long work on other threads may go on once all is done.
const LAST_WORK: Duration = Duration::from_secs(2);

/// What the `creeld` program does.
pub fn main() -> ExitCode {
    // clap itself exits with 2 on bad usage and 0 on --help and --version.
    let args = Args::parse();
    // While there is one thread.
    let inherited = activation::take();
    let origin = Origin { environment: Environment::from_process(), file: args.config };
    let config = origin.load();
    if args.check_config {
        return check::tell(&origin, &config, args.json);
    }
    if args.print_config {
        return match config {
            Ok(config) => print(&config.render_toml()),
            Err(_) => check::tell(&origin, &config, false),
        };
    }
    let log = logging::init(args.verbose, config.as_ref().ok());
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            logging::each_problem(&error, |problem| error!("{problem}"));
            return Exit::Usage.into();
        }
    };
    let run = || {
        let inherited = inherited?;
        let tokio =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::Start)?;
        let ended = tokio.block_on(life::live(origin, config, inherited, log));
        tokio.shutdown_timeout(LAST_WORK);
        ended
    };
    match run() {
        Ok(()) => {
            info!("creeld ended");
            Exit::Success.into()
        }
        Err(failure) => {
            error!("{}", with_causes(&failure));
            failure.exit().into()
        }
    }
}

/// A reader that has gone (`creeld --print-config | head`) is no failure.
fn print(text: &str) -> ExitCode {
    use std::io::Write as _;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Exit::Broken.into(),
        _ => Exit::Success.into(),
    }
}
