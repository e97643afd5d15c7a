//! Parses the command line, sets up tracing and the async runtime, and calls the subcommand.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::args::{Cli, Command, DebugCommand};
use super::context::Context;
use super::failure::Failure;
use super::render::Palette;
use super::{debug, doctor, image, logs, machines, manual, mistakes, run, version, workflow};
use crate::exit::Exit;

/// How long work on other threads may go on once the command is done.
const LAST_WORK: Duration = Duration::from_secs(2);

/// What the `creel` program does.
pub fn main() -> ExitCode {
    // clap itself exits with 2 on bad usage and 0 on --help and --version.
    let cli = mistakes::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    init_tracing(cli.global.verbose);
    let tokio = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(tokio) => tokio,
        Err(error) => return report(&Failure::internal(format!("failed to start: {error}"))),
    };
    let code = match tokio.block_on(dispatch(cli)) {
        Ok(exit) => exit.into(),
        Err(failure) => report(&failure),
    };
    // What was interrupted on another thread frees its leases, but a slow disk does not keep the user.
    tokio.shutdown_timeout(LAST_WORK);
    code
}

async fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    // A kit is put together where there is nothing to configure yet, and packages are built anywhere.
    match cli.command {
        Command::Debug(DebugCommand::Kit { output, agent, keeper, vsock_helper }) => {
            return debug::kit(&output, agent, keeper, vsock_helper);
        }
        Command::Debug(DebugCommand::Man(arguments)) => return manual::man(&arguments),
        Command::Completions(arguments) => return manual::completions(&arguments),
        _ => {}
    }
    let context = Context::load(cli.global.config.as_deref())?;
    match cli.command {
        Command::Run(arguments) => run::run(&context, arguments).await,
        Command::Workflow(command) => workflow::workflow(&context, command),
        Command::Create(arguments) => machines::create(&context, arguments).await,
        Command::Exec(arguments) => machines::exec(&context, arguments).await,
        Command::Cp(arguments) => machines::cp(&context, arguments).await,
        Command::Shell(arguments) => machines::shell(&context, arguments).await,
        Command::Kill(arguments) => machines::kill(&context, arguments).await,
        Command::Ps(arguments) => machines::ps(&context, arguments).await,
        Command::Logs(arguments) => logs::logs(&context, &arguments).await,
        Command::Rm(arguments) => machines::rm(&context, arguments).await,
        Command::Inspect(arguments) => machines::inspect(&context, arguments).await,
        Command::Stats(arguments) => machines::stats(&context, arguments).await,
        Command::Events(arguments) => machines::events(&context, arguments).await,
        Command::Doctor(json) => doctor::doctor(&context, json.json).await,
        Command::Image(command) => image::image(&context, command).await,
        Command::Version(json) => version::version(&context, json.json).await,
        Command::Debug(DebugCommand::State { ids, json }) => debug::state(&context, &ids, json.json),
        Command::Debug(_) | Command::Completions(_) => Ok(Exit::Success),
    }
}

fn report(failure: &Failure) -> ExitCode {
    eprintln!("creel: {failure}");
    failure.exit.into()
}

/// Diagnostics go to stderr; warnings always, more by -v or `CREEL_LOG` (tracing's filter syntax).
fn init_tracing(verbose: u8) {
    let default = match verbose {
        0 => "warn",
        1 => "creel=info,warn",
        2 => "creel=debug,info",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("CREEL_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(Palette::of_stderr().coloured())
        .with_target(false)
        .init();
}
