//! The command line, as clap reads it.

mod cp;
mod image;
mod machines;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use cp::CpArgs;
use image::IMAGE;
pub use image::{BuildCommand, DebianArgs, ImageCommand, TinyArgs};
pub use machines::{
    CreateArgs, EventsArgs, ExecArgs, InspectArgs, KillArgs, LogsArgs, PsArgs, RmArgs, ShellArgs, StatsArgs,
    StreamArg,
};

/// Run CI workflows in disposable microVMs.
#[derive(Debug, Parser)]
#[command(
    name = "creel",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  creel doctor                   what this host can do, and what to do about the rest
  creel image build tiny         a small image to run things in
  creel run                      every workflow of .tangled/workflows for a manual run
  creel run -f ci.yml            one file, with the repository's HEAD
  creel run test --dirty         .tangled/workflows/test.yml, with the work tree as it is

Exit codes: 0 success, 1 the workflow failed, 2 bad usage or input, 3 this host can't,
124 timed out, 125 the machine or creel failed, 130 cancelled.
Environment: CREEL_<SECTION>__<KEY> overrides a key of the configuration, CREEL_LOG filters
diagnostics (such as creel=debug), NO_COLOR switches colour off."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Below a command's own options.
const GLOBAL: &str = "Options of every command";

#[derive(Debug, Args)]
pub struct Global {
    /// Configuration file [default: /etc/creel/creel.toml as root, else $XDG_CONFIG_HOME/creel/creel.toml]
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub config: Option<PathBuf>,
    /// Say more: -v what creel does, -vv how, -vvv everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = GLOBAL)]
    pub verbose: u8,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run workflow files in microVMs, here and now
    Run(RunArgs),
    /// Say what workflow files there are, and which of them an event would run
    #[command(subcommand)]
    Workflow(WorkflowCommand),
    /// Start a machine of creeld and print its id
    Create(CreateArgs),
    /// Run a program in a machine
    Exec(ExecArgs),
    /// Copy files from and to a machine
    Cp(CpArgs),
    /// Open a shell in a machine
    Shell(ShellArgs),
    /// End machines at once, or signal a program in one
    Kill(KillArgs),
    /// List machines and runs: those of creeld and of your own `creel run`s
    Ps(PsArgs),
    /// Show the output of a run that goes on or has ended
    Logs(LogsArgs),
    /// End machines
    Rm(RmArgs),
    /// Show all that is known of a machine
    Inspect(InspectArgs),
    /// Show what machines take of this host
    Stats(StatsArgs),
    /// Tell what happens to machines
    Events(EventsArgs),
    /// Say what this host can and can't do, and what to do about it
    #[command(after_help = DOCTOR)]
    Doctor(JsonArg),
    /// List, build, inspect, verify and remove images
    #[command(subcommand, after_help = IMAGE)]
    Image(ImageCommand),
    /// Print the versions of creel and its parts
    #[command(after_help = VERSION)]
    Version(JsonArg),
    /// Print a shell's completions of creel's commands and options
    Completions(super::manual::CompletionsArgs),
    /// Parts of creel, alone: what creeld has written down, what packages are made with
    #[command(subcommand)]
    Debug(DebugCommand),
}

const DOCTOR: &str = "\
Each line is ok, limited or missing, says what follows from that, and what to do about it.

Examples:
  creel doctor
  creel doctor --json | jq -r '.[] | select(.status == \"missing\").remedy'";

const VERSION: &str = "\
Examples:
  creel version          of creel, the kit, its kernel, and QEMU
  creel version --json   for a bug report";

#[derive(Debug, Args)]
pub struct JsonArg {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Runs workflow files of the repository around the current directory. Without NAMES and -f: every
file of .tangled/workflows whose `when` matches the event. A file that is named runs whatever its
`when` says. Steps see the repository's HEAD at /workspace/repo. A creeld that answers on this host
provides the machines; otherwise they end with this process.

Examples:
  creel run                              what a manual trigger would run
  creel run --event push --branch main   what a push to main would run
  creel run -f examples/hello.yml --env GREETING=hi
  creel run test --keep                  if a step fails, its machine stays for 30 minutes
  creel run test --secret TOKEN          the value of $TOKEN, masked in the output
  creel run test --secret KEY=@key.pem   the content of a file, masked in the output")]
pub struct RunArgs {
    /// Workflows of `.tangled/workflows`, by file name with or without .yml
    #[arg(value_name = "NAMES", conflicts_with = "file")]
    pub names: Vec<String>,
    /// A workflow file
    #[arg(short, long, value_name = "FILE")]
    pub file: Vec<PathBuf>,
    /// The trigger that the workflows see
    #[arg(long, value_enum, default_value_t = EventArg::Manual)]
    pub event: EventArg,
    /// The branch that the trigger names [default: the one checked out]
    #[arg(long, value_name = "BRANCH")]
    pub branch: Option<String>,
    /// An input of a manual run, as TANGLED_INPUT_<K> in the environment
    #[arg(long, value_name = "K=V")]
    pub input: Vec<String>,
    /// A variable in the environment of every step
    #[arg(long, value_name = "K=V")]
    pub env: Vec<String>,
    /// A secret, masked in the output: K (its value from this process's environment) or K=@FILE
    #[arg(long, value_name = "K | K=@FILE")]
    pub secret: Vec<String>,
    /// The image, whatever the workflow names
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// The runtime that machines come from
    #[arg(long, value_name = "RUNTIME", default_value = "microvm")]
    pub runtime: String,
    /// Limit for each workflow: its wait, setup and steps, e.g. 90s or 10m
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<crate::config::Period>,
    /// Take the work tree as it is (without ignored files) instead of HEAD
    #[arg(long)]
    pub dirty: bool,
    /// Keep the machine of a workflow whose step has failed, to look into it
    #[arg(long)]
    pub keep: bool,
    /// For how long, e.g. 2h; creel stays as long
    #[arg(long, value_name = "D", default_value = "30m", requires = "keep")]
    pub keep_for: crate::config::Period,
    /// Run here, in machines that end with this process, even where creeld answers
    #[arg(long, conflicts_with = "socket")]
    pub embedded: bool,
    /// Run in machines of the creeld behind this socket, or not at all
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// JSON lines on stdout: the log, and a report at the end
    #[arg(long)]
    pub json: bool,
}

/// Who is asked.
#[derive(Debug, Args)]
pub struct SocketArg {
    /// Ask this socket alone [default: creeld's, `daemon.socket` of the configuration, and those of your `creel run`s]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EventArg {
    Manual,
    Push,
    #[value(name = "pull_request")]
    PullRequest,
}

#[derive(Debug, Subcommand)]
pub enum WorkflowCommand {
    /// List the files of .tangled/workflows, whether an event would run them, and if not, why
    Ls(WorkflowLsArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is run. A file with a mistake is listed with its first problem, and the exit code is then 2.

Examples:
  creel workflow ls                              for a manual run, what `creel run` would run
  creel workflow ls --event push --branch main
  creel workflow ls --event push --branch refs/tags/v1.0
  creel workflow ls --json | jq -r '.[] | select(.matches).name'")]
pub struct WorkflowLsArgs {
    /// What happened
    #[arg(long, value_enum, default_value_t = EventArg::Manual)]
    pub event: EventArg,
    /// The branch or tag (refs/tags/...) pushed, or a pull request's target [default: the branch checked out]
    #[arg(long, value_name = "BRANCH")]
    pub branch: Option<String>,
    #[command(flatten)]
    pub json: JsonArg,
}

#[derive(Debug, Subcommand)]
pub enum DebugCommand {
    /// Put a kit together: kernel and modules from this machine, creel's own programs
    #[command(after_help = DEBUG_KIT)]
    Kit {
        /// The directory to make or replace
        #[arg(long, value_name = "DIR")]
        output: PathBuf,
        /// creel-agent, statically linked
        #[arg(long, value_name = "FILE")]
        agent: PathBuf,
        /// creel-keeper, statically linked
        #[arg(long, value_name = "FILE")]
        keeper: PathBuf,
        /// vhost-device-vsock
        #[arg(long, value_name = "FILE")]
        vsock_helper: PathBuf,
    },
    /// Show what creeld has written down of its machines, whether it runs or not
    #[command(after_help = DEBUG_STATE)]
    State {
        /// Of these machines alone
        #[arg(value_name = "IDS")]
        ids: Vec<String>,
        #[command(flatten)]
        json: JsonArg,
    },
    /// Write the man pages of creel, its subcommands and creeld
    Man(super::manual::ManArgs),
}

const DEBUG_STATE: &str = "\
Reads the records below `state.dir` by itself, so it works where creeld is gone or stuck. A record
lives as long as its machine; KEEPER is the process that a machine's life hangs on, `gone` where
there is none of that number and start. A damaged record is named, and hides none of the others.

Examples:
  creel debug state
  creel debug state --json | jq '.[] | select(.stage == \"ending\")'";

const DEBUG_KIT: &str = "\
Examples:
  make kit   which builds the programs and calls this";
