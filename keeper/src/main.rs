//! creel-keeper: the small parent of one machine's processes.
//!
//! creel starts it with a plan in a memfd, as PID 1 of the machine's pid namespace where one can be made. It starts
//! QEMU and its helpers, reaps them, writes how they ended into the machine's directory, and drains the console so
//! that no guest ever blocks on it or fills a disk. It takes no commands: creel watches the files, and SIGTERM ends it.
//! It exists so that creel can be restarted without losing a machine, and be killed without leaving one behind.
//!
//! `--plan-fd N`: that. Exit status: 0 when the machine ended by itself or by SIGTERM, 1 when it did not start, 2 for a
//! bad plan.
//!
//! `--hold`: it is the [holder](hold) of `creel-machines.service` instead, the cgroup that creeld's machines live in. Exit
//! status: 0 after SIGTERM, 1 when the cgroup can't be held.
//!
//! `--version`: prints its own version and that of the plans it reads.

mod child;
mod hold;
mod inherited;
mod jail;
mod leave_out;
mod ready;
mod reap;
mod recorder;
mod signals;
mod supervisor;

use std::error::Error;
use std::process::ExitCode;

use creel_keeper::{Ending, PLAN_VERSION, Plan};

/// The largest plan that is read.
const MAX_PLAN_BYTES: u64 = 1024 * 1024;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--version"] => {
            println!("creel-keeper {} plan {PLAN_VERSION}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        ["--hold"] => match hold::run(&hold::WANTED) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("creel-keeper: {}", with_causes(&error));
                ExitCode::from(1)
            }
        },
        ["--plan-fd", number] => {
            match number.parse().map_err(|_| format!("`{number}` is no descriptor")).and_then(keep) {
                Ok(Ending::StartFailed { .. }) => ExitCode::from(1),
                Ok(_) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("creel-keeper: {error}");
                    ExitCode::from(2)
                }
            }
        }
        _ => {
            eprintln!(
                "usage: creel-keeper --plan-fd N | --hold | --version (creel and systemd start it; it is no command for \
                 people)"
            );
            ExitCode::from(2)
        }
    }
}

fn keep(plan_fd: i32) -> Result<Ending, String> {
    // First of all, so that no signal is lost or fatal while the plan is read.
    let signals =
        signals::Signals::take_over().map_err(|error| format!("failed to take over signals: {error}"))?;
    let json = inherited::read_plan(plan_fd, MAX_PLAN_BYTES)
        .map_err(|error| format!("failed to read the plan from descriptor {plan_fd}: {error}"))?;
    let plan = Plan::parse(&json).map_err(|error| with_causes(&error))?;
    drop(json);
    let inherited = inherited::Inherited::take(&plan.fds(), signals.fd())?;
    supervisor::run(plan, inherited, signals)
}

/// An error and what is behind it, as one line.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
