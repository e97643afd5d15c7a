//! Chooses between the agent's two lives.

use std::process::ExitCode;

use creel_agent::args::{Args, USAGE};
use creel_agent::{VERSION, files, init, log, service};

fn main() -> ExitCode {
    let args = Args::parse(std::env::args().skip(1));
    // The kernel hands words of its command line that it does not know to PID 1 as arguments: only
    // `--connect` can mean that a container, not a kernel, started this as its PID 1.
    let named_host = matches!(args, Ok(Args::Serve { connect: Some(_) }));
    if rustix::process::getpid().is_init() && !named_host {
        return init::run();
    }
    match args {
        Ok(Args::Serve { connect }) => match service::run(connect) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                log::error(format_args!("{error}"));
                ExitCode::FAILURE
            }
        },
        Ok(Args::Files(work)) => files::run(&work),
        Ok(Args::Version) => {
            println!("creel-agent {VERSION}");
            ExitCode::SUCCESS
        }
        Ok(Args::Help) => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprint!("creel-agent: {error}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}
