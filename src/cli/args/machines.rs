//! Commands on machines and on runs that are remembered.

use clap::Args;

use super::{JsonArg, SocketArg};

#[derive(Debug, Args)]
#[command(after_help = "\
The machine lives until `creel rm` or --max-age. What goes on is told on stderr.

Examples:
  creel create                                 a machine of the default image
  id=$(creel create --image tiny --max-age 1h)
  creel exec \"$id\" -- uname -a
  creel rm \"$id\"")]
pub struct CreateArgs {
    /// The image [default: `images.default` of the configuration]
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// The guest's memory [default: the image's]
    #[arg(long, value_name = "MIB")]
    pub memory_mib: Option<u32>,
    /// The guest's CPUs [default: the image's]
    #[arg(long, value_name = "N")]
    pub vcpus: Option<u32>,
    /// What the machine may take of the host's memory [default: the guest's and `cgroups.memory_overhead`]
    #[arg(long, value_name = "MIB")]
    pub memory_limit_mib: Option<u32>,
    /// End the machine when it is this old, e.g. 2h
    #[arg(long, value_name = "TIME")]
    pub max_age: Option<crate::config::Period>,
    /// How long it may take until the machine is ready, e.g. 30s
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<crate::config::Period>,
    #[command(flatten)]
    pub socket: SocketArg,
    #[command(flatten)]
    pub json: JsonArg,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The program's output comes here as it is written, and its exit code is this command's; 128 and more
is a signal. A machine that ends under it gives the codes of `creel run`. SIGINT, SIGTERM and SIGHUP
end the program in the machine too, with all that it has started: SIGTERM first, and SIGKILL two
seconds later. So does a reader of its output that goes away. With -it Ctrl-C is the program's.

Examples:
  creel exec k3v9w0x2ma -- ls -l /workspace
  creel exec -it k3v9w0x2ma -- sh
  tar c src | creel exec -i k3v9w0x2ma -- tar x
  creel exec --id build k3v9w0x2ma -- make     `creel kill --exec build` reaches it
  creel exec -e CI=1 --cwd /tmp k3v9w0x2ma -- sh -c 'echo $CI; pwd'")]
pub struct ExecArgs {
    /// The machine, as `creel ps` lists it
    #[arg(value_name = "ID")]
    pub id: String,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<String>,
    /// Let it read stdin, up to its end; without this its input is empty
    #[arg(short, long)]
    pub interactive: bool,
    /// Run it on a terminal of its own, of the kind and size of this one
    #[arg(short, long)]
    pub tty: bool,
    /// A variable in the program's environment
    #[arg(short, long, value_name = "K=V")]
    pub env: Vec<String>,
    /// Where it runs [default: /workspace]
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// Whom it runs as, never root [default: the workflow user]
    #[arg(long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// End it after this time, e.g. 90s
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<crate::config::Period>,
    /// What `creel kill --exec` calls it, once in the machine's life [default: one that -v tells]
    #[arg(long = "id", value_name = "NAME")]
    pub exec_id: Option<String>,
    #[command(flatten)]
    pub socket: SocketArg,
}

#[derive(Debug, Args)]
#[command(after_help = "\
It is a login shell of the workflow user, on a terminal of its own, and its exit code is this
command's. When this command ends, the shell does too, with all that it has started. Without a
terminal here what stdin says is typed, and its end is Ctrl-D.

Examples:
  creel shell k3v9w0x2ma
  echo 'df -h; exit' | creel shell k3v9w0x2ma")]
pub struct ShellArgs {
    /// The machine, as `creel ps` lists it
    #[arg(value_name = "ID")]
    pub id: String,
    #[command(flatten)]
    pub socket: SocketArg,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Machines end as by `creel rm --force`, and nothing is said where that went well. With --exec the
signal goes to one program in one machine, and to the process group that it leads.

Examples:
  creel kill k3v9w0x2ma
  creel kill --exec build k3v9w0x2ma           SIGTERM to what `creel exec --id build` runs
  creel kill --exec build -s INT k3v9w0x2ma")]
pub struct KillArgs {
    /// The machines, as `creel ps` lists them
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
    /// The program to signal, as `creel exec --id` named it
    #[arg(long, value_name = "NAME")]
    pub exec: Option<String>,
    /// The signal, by name or number
    #[arg(short, long, value_name = "SIG", default_value = "TERM", requires = "exec")]
    pub signal: String,
    #[command(flatten)]
    pub socket: SocketArg,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  creel ps
  creel ps -a             also those that have ended, with how they did
  creel ps --json | jq -r '.[].id'")]
pub struct PsArgs {
    /// Also those that have ended: creeld's last machines, and this user's runs
    #[arg(short, long)]
    pub all: bool,
    #[command(flatten)]
    pub socket: SocketArg,
    #[command(flatten)]
    pub json: JsonArg,
}

/// A step's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum StreamArg {
    #[default]
    Stdout,
    Stderr,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Shows what the steps of a run have written: their stdout on stdout, their stderr on stderr,
and where each begins on stderr. Secrets read ***, as they did when it ran.

Examples:
  creel logs                      the last run
  creel logs -f test              the last run of workflow test, as it goes on
  creel logs k3v9 --step build    one step of the run whose id begins so
  creel logs -f --step 0 --offset 65536 >>out    its stdout alone, from where a file stopped
  creel logs --json | jq -r 'select(.stream == \"stderr\").content'
  creel logs --console -f k3v9w0x2ma   what the guest's kernel says, of a living machine")]
pub struct LogsArgs {
    /// A run's id, the beginning of one, or a workflow's name for its last run [default: the last run]
    #[arg(value_name = "ID")]
    pub id: Option<String>,
    /// Go on until the run ends
    #[arg(short, long)]
    pub follow: bool,
    /// Begin with this record of the log (`record` in --json)
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub from: u64,
    /// Only this step, by its number from 0 or its name
    #[arg(long, value_name = "N|NAME")]
    pub step: Option<String>,
    /// Only this stream of --step, and nothing beside it
    #[arg(long, value_enum, requires = "step", conflicts_with_all = ["from", "json"])]
    pub stream: Option<StreamArg>,
    /// Begin with this byte of the stream, as the log has it [default stream: stdout]
    #[arg(long, value_name = "BYTE", requires = "step", conflicts_with_all = ["from", "json"])]
    pub offset: Option<u64>,
    /// The console of machine ID instead, byte for byte: its guest wrote it
    #[arg(long, requires = "id", conflicts_with_all = ["from", "step", "json"])]
    pub console: bool,
    /// JSON lines
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub socket: SocketArg,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Frees all that a machine holds. One that has ended already is no error.

Examples:
  creel rm k3v9w0x2ma
  creel rm --force $(creel ps --json | jq -r '.[].id')")]
pub struct RmArgs {
    /// The machines, as `creel ps` lists them
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
    /// At once, instead of letting the guest power off first
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub socket: SocketArg,
}

/// Shows what a machine is, its limits and processes, how its setup went, and how it ended.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  creel inspect k3v9w0x2ma
  creel inspect --console k3v9w0x2ma            also the end of the guest's console
  sudo creel inspect --jail k3v9w0x2ma          also what confines its processes
  creel inspect --json k3v9w0x2ma | jq .limits")]
pub struct InspectArgs {
    /// The machine, as `creel ps -a` lists it
    #[arg(value_name = "ID")]
    pub id: String,
    /// Also the last 8 KiB of the guest's console
    #[arg(long)]
    pub console: bool,
    /// Also what confines each of its processes, read from the kernel now: user, capabilities, namespaces, root directory, limits,
    /// descriptors. Machines of creeld are root's to look at
    #[arg(long)]
    pub jail: bool,
    #[command(flatten)]
    pub socket: SocketArg,
    #[command(flatten)]
    pub json: JsonArg,
}

/// Shows memory, CPU time, processes and I/O of machines: once, or with -w each second until it is interrupted. CPU% is
/// of one CPU, since the line before. WAITED is how long the machine was held up for want of CPU, memory and I/O.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  creel stats
  creel stats -w k3v9w0x2ma
  creel stats --json | jq '.[] | [.id, .memory_bytes]'
  creel stats -w --json              one JSON array a line, each second")]
pub struct StatsArgs {
    /// The machines [default: all that live]
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Again each second
    #[arg(short, long)]
    pub watch: bool,
    #[command(flatten)]
    pub socket: SocketArg,
    #[command(flatten)]
    pub json: JsonArg,
}

/// Tells what happened to machines lately (the last 1024 things of each creeld or run), and with -f what happens from
/// now on, until it is interrupted or nobody is left who could tell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  creel events
  creel events -f --json | jq -r 'select(.event == \"ended\") | .machine'")]
pub struct EventsArgs {
    /// Go on with what happens
    #[arg(short, long)]
    pub follow: bool,
    #[command(flatten)]
    pub socket: SocketArg,
    /// Print JSON, one event a line
    #[arg(long)]
    pub json: bool,
}
