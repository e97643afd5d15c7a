//! The command line, as clap reads it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
124 timed out, 125 the machine or creel failed, 130 cancelled."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
pub struct Global {
    /// Configuration file [default: /etc/creel/creel.toml as root, else $XDG_CONFIG_HOME/creel/creel.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Say more: -v what creel does, -vv how, -vvv everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run workflow files in microVMs, here and now
    Run(RunArgs),
    /// Say what this host can and can't do, and what to do about it
    Doctor(JsonArg),
    /// List, build, inspect and remove images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Print the versions of creel and its parts
    Version(JsonArg),
    /// Parts of creel, alone
    #[command(subcommand)]
    Debug(DebugCommand),
}

#[derive(Debug, Args)]
pub struct JsonArg {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs workflow files of the repository around the current directory. Without NAMES and -f: every
/// file of `.tangled/workflows` whose `when` matches the event. A file that is named runs whatever
/// its `when` says. Steps see the repository's HEAD at /workspace/repo.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  creel run                              what a manual trigger would run
  creel run --event push --branch main   what a push to main would run
  creel run -f examples/hello.yml --env GREETING=hi
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
    #[arg(long, value_name = "B")]
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
    #[arg(long, value_name = "I")]
    pub image: Option<String>,
    /// The runtime that machines come from
    #[arg(long, value_name = "R", default_value = "microvm")]
    pub runtime: String,
    /// Limit for each workflow: its wait, setup and steps, e.g. 90s or 10m
    #[arg(long, value_name = "D")]
    pub timeout: Option<crate::config::Period>,
    /// Take the work tree as it is (without ignored files) instead of HEAD
    #[arg(long)]
    pub dirty: bool,
    /// Run without a daemon (the only way so far)
    #[arg(long)]
    pub embedded: bool,
    /// JSON lines on stdout: the log, and a report at the end
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EventArg {
    Manual,
    Push,
    #[value(name = "pull_request")]
    PullRequest,
}

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// List the images that workflows can name
    Ls(JsonArg),
    /// Build an image from what is installed on this machine
    #[command(subcommand)]
    Build(BuildCommand),
    /// Show an image's specification and files
    Inspect {
        /// The image's name
        name: String,
        #[command(flatten)]
        json: JsonArg,
    },
    /// Remove an image; running machines keep its files until they end
    Rm {
        /// The image's name
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum BuildCommand {
    /// Busybox and creel's agent: a shell and little else, booted in the blink of an eye
    Tiny(TinyArgs),
}

#[derive(Debug, Args)]
pub struct TinyArgs {
    /// What workflows call it
    #[arg(long, default_value = "tiny")]
    pub name: String,
    /// The guest's memory
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub memory_mib: u32,
    /// The size of /workspace
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub workspace_mib: u32,
    /// A directory whose files are laid over the image's root
    #[arg(long, value_name = "DIR")]
    pub overlay: Option<PathBuf>,
    /// A program in the image that becomes PID 1 in the agent's place; it has to start
    /// /usr/lib/creel/creel-agent itself
    #[arg(long, value_name = "PATH")]
    pub init: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum DebugCommand {
    /// Put a kit together: kernel and modules from this machine, creel's own programs
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
}
