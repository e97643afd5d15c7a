//! The table of keys: what may stand in the file and in the environment, what it means, how it is read and shown.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::settings::{Config, JailMode};
use super::units::Period;

/// The TOML type of a value. Variables are text in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Integer,
    Boolean,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub section: &'static str,
    pub name: &'static str,
    /// One sentence for `--print-config` and the documentation.
    pub meaning: &'static str,
    pub kind: Kind,
    /// What a value is, with an example.
    pub expects: &'static str,
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    /// None: not set, and there is no one default.
    pub(super) show: fn(&Config) -> Option<String>,
}

/// Every key, sections together, in the order of `--print-config`.
pub static KEYS: &[Key] = &[
    Key {
        section: "daemon",
        name: "socket",
        meaning: "Where creeld serves its API, and where `creel` looks for it.",
        kind: Kind::Text,
        expects: "an absolute path such as \"/run/creel/creel.sock\"",
        set: |config, text| read_present_path(text, &mut config.daemon.socket),
        show: |config| Some(show_path(&config.daemon.socket)),
    },
    Key {
        section: "daemon",
        name: "max_machines",
        meaning: "How many machines creeld has at most, those being set up included.",
        kind: Kind::Integer,
        expects: "a number from 1 to 4096",
        set: |config, text| read_number(text, 1..=4096, &mut config.daemon.max_machines),
        show: |config| show(&config.daemon.max_machines),
    },
    Key {
        section: "daemon",
        name: "log",
        meaning: "What creeld logs, in tracing's filter syntax; the variable CREEL_LOG wins.",
        kind: Kind::Text,
        expects: "a filter such as \"creel=debug,warn\"",
        set: |config, text| read(text, &mut config.daemon.log),
        show: |config| show(&config.daemon.log),
    },
    Key {
        section: "daemon",
        name: "log_format",
        meaning: "How creeld logs: `text` and `json` on stderr, `journal` to journald with fields; `auto` takes `journal` where stderr leads to it, else `text`.",
        kind: Kind::Text,
        expects: "\"auto\", \"text\", \"json\" or \"journal\"",
        set: |config, text| read(text, &mut config.daemon.log_format),
        show: |config| show(&config.daemon.log_format),
    },
    Key {
        section: "daemon",
        name: "metrics",
        meaning: "Where creeld serves metrics for Prometheus, over HTTP at /metrics; empty: nowhere.",
        kind: Kind::Text,
        expects: "\"unix:/run/creel/metrics.sock\", a loopback address such as \"127.0.0.1:9824\", or \"\"",
        set: |config, text| read(text, &mut config.daemon.metrics),
        show: |config| show(&config.daemon.metrics),
    },
    Key {
        section: "machine",
        name: "accel",
        meaning: "How guests run: `auto` takes KVM if a trial boot proves it, else TCG; `kvm` refuses to run without it.",
        kind: Kind::Text,
        expects: "\"auto\", \"kvm\" or \"tcg\"",
        set: |config, text| read(text, &mut config.machine.accel),
        show: |config| show(&config.machine.accel),
    },
    Key {
        section: "machine",
        name: "transport",
        meaning: "How guests reach creel: `kernel` by vhost-vsock, which needs root and the module, `hybrid` by unix sockets and a helper; `auto` takes `kernel` in creeld where there is vhost-vsock, else `hybrid`.",
        kind: Kind::Text,
        expects: "\"auto\", \"kernel\" or \"hybrid\"",
        set: |config, text| read(text, &mut config.machine.transport),
        show: |config| show(&config.machine.transport),
    },
    Key {
        section: "machine",
        name: "agent_timeout",
        meaning: "From the start of a machine to the first word of its agent.",
        kind: Kind::Text,
        expects: DURATION,
        set: |config, text| read(text, &mut config.machine.agent_timeout),
        show: |config| show(&config.machine.agent_timeout),
    },
    Key {
        section: "machine",
        name: "shutdown_timeout",
        meaning: "From the request to power off to the end by force; 30s at most.",
        kind: Kind::Text,
        expects: DURATION,
        set: |config, text| {
            let mut timeout = config.machine.shutdown_timeout;
            read(text, &mut timeout)?;
            // The end of a machine is promised within a minute, and has more to do than this.
            if timeout > Period::from_secs(30) {
                return Err(format!("`{text}` is more than the 30s that a guest may take"));
            }
            config.machine.shutdown_timeout = timeout;
            Ok(())
        },
        show: |config| show(&config.machine.shutdown_timeout),
    },
    Key {
        section: "machine",
        name: "allow_tcg",
        meaning: "Whether creeld runs guests emulated where KVM can't be used; QEMU does not promise to isolate those, and `creel run` without creeld only warns.",
        kind: Kind::Boolean,
        expects: BOOLEAN,
        set: |config, text| read(text, &mut config.machine.allow_tcg),
        show: |config| show(&config.machine.allow_tcg),
    },
    Key {
        section: "cgroups",
        name: "mode",
        meaning: "Whether creeld runs machines that have no cgroup and so no limits: `required` refuses, `auto` says what is missing.",
        kind: Kind::Text,
        expects: "\"required\" or \"auto\"",
        set: |config, text| read(text, &mut config.cgroups.mode),
        show: |config| show(&config.cgroups.mode),
    },
    Key {
        section: "cgroups",
        name: "root",
        meaning: "The cgroup of creel-machines.service, in which creeld makes one for each machine.",
        kind: Kind::Text,
        expects: DIRECTORY,
        set: |config, text| read_present_path(text, &mut config.cgroups.root),
        show: |config| Some(show_path(&config.cgroups.root)),
    },
    Key {
        section: "cgroups",
        name: "memory_overhead",
        meaning: "What a machine may take of the host's memory beside its guest's; emulation has 256 MiB more.",
        kind: Kind::Text,
        expects: "a size such as \"160MiB\"",
        set: |config, text| read(text, &mut config.cgroups.memory_overhead),
        show: |config| show(&config.cgroups.memory_overhead),
    },
    Key {
        section: "cgroups",
        name: "max_pids",
        meaning: "How many processes and threads a machine may have on the host; QEMU needs one a CPU, and up to 64 for disks.",
        kind: Kind::Integer,
        expects: "a number from 1 to 100000",
        set: |config, text| read_number(text, 1..=100_000, &mut config.cgroups.max_pids),
        show: |config| show(&config.cgroups.max_pids),
    },
    Key {
        section: "cgroups",
        name: "cpu_weight",
        meaning: "A machine's share of contended CPU time.",
        kind: Kind::Integer,
        expects: WEIGHT,
        set: |config, text| read_number(text, 1..=10_000, &mut config.cgroups.cpu_weight),
        show: |config| show(&config.cgroups.cpu_weight),
    },
    Key {
        section: "cgroups",
        name: "io_weight",
        meaning: "A machine's share of contended disk time.",
        kind: Kind::Integer,
        expects: WEIGHT,
        set: |config, text| read_number(text, 1..=10_000, &mut config.cgroups.io_weight),
        show: |config| show(&config.cgroups.io_weight),
    },
    Key {
        section: "vsock_ports",
        name: "agent",
        meaning: "Where guests' agents reach creel; below 1024 no other user of the host can take it.",
        kind: Kind::Integer,
        expects: PORT,
        set: |config, text| read_number(text, 1..=MAX_PORT, &mut config.vsock_ports.agent),
        show: |config| show(&config.vsock_ports.agent),
    },
    Key {
        section: "vsock_ports",
        name: "nix_read",
        meaning: "Where guests will read from the Nix cache; below 1024 no other user of the host can take it.",
        kind: Kind::Integer,
        expects: PORT,
        set: |config, text| read_number(text, 1..=MAX_PORT, &mut config.vsock_ports.nix_read),
        show: |config| show(&config.vsock_ports.nix_read),
    },
    Key {
        section: "vsock_ports",
        name: "nix_upload",
        meaning: "Where guests will upload to the Nix cache; below 1024 no other user of the host can take it.",
        kind: Kind::Integer,
        expects: PORT,
        set: |config, text| read_number(text, 1..=MAX_PORT, &mut config.vsock_ports.nix_upload),
        show: |config| show(&config.vsock_ports.nix_upload),
    },
    Key {
        section: "vsock_ports",
        name: "dns",
        meaning: "Where guests will ask for names; below 1024 no other user of the host can take it.",
        kind: Kind::Integer,
        expects: PORT,
        set: |config, text| read_number(text, 1..=MAX_PORT, &mut config.vsock_ports.dns),
        show: |config| show(&config.vsock_ports.dns),
    },
    Key {
        section: "jail",
        name: "mode",
        meaning: "What confines QEMU and its helpers: `required` takes all layers, or runs no machine; `auto` those that this host and user can have; `off` none, which is for tests of QEMU itself. If it is not set, `required` in creeld and `auto` in `creel run`.",
        kind: Kind::Text,
        expects: "\"required\", \"auto\" or \"off\"",
        set: |config, text| {
            let mut mode = JailMode::Required;
            read(text, &mut mode)?;
            config.jail.mode = Some(mode);
            Ok(())
        },
        show: |config| config.jail.mode.as_ref().and_then(show),
    },
    Key {
        section: "jail",
        name: "first_uid",
        meaning: "The first of the users, and groups of the same numbers, that machines of root run as, each of its own. Nobody else may be one of them.",
        kind: Kind::Integer,
        expects: "a number from 65536 to 4000000000",
        set: |config, text| read_number(text, 65_536..=4_000_000_000, &mut config.jail.first_uid),
        show: |config| show(&config.jail.first_uid),
    },
    Key {
        section: "jail",
        name: "uid_count",
        meaning: "How many there are: more than machines at a time.",
        kind: Kind::Integer,
        expects: "a number from 1 to 1000000",
        set: |config, text| read_number(text, 1..=1_000_000, &mut config.jail.uid_count),
        show: |config| show(&config.jail.uid_count),
    },
    Key {
        section: "images",
        name: "dir",
        meaning: "Where images are built, and looked for before /var/lib/creel/images and /usr/lib/creel/images.",
        kind: Kind::Text,
        expects: DIRECTORY,
        set: |config, text| read_path(text, &mut config.directories.images),
        show: |config| config.places.images.first().map(show_path),
    },
    Key {
        section: "images",
        name: "default",
        meaning: "The image of a workflow that names none.",
        kind: Kind::Text,
        expects: "the name of an image, such as \"tiny\"",
        set: |config, text| match text {
            "" => Err("an image has a name, such as `tiny`".to_owned()),
            name => read(name, &mut config.images.default),
        },
        show: |config| show(&config.images.default),
    },
    Key {
        section: "engine",
        name: "workflow_timeout",
        meaning: "How long a workflow may take when `--timeout` says nothing.",
        kind: Kind::Text,
        expects: DURATION,
        set: |config, text| read(text, &mut config.engine.workflow_timeout),
        show: |config| show(&config.engine.workflow_timeout),
    },
    Key {
        section: "scheduler",
        name: "slots",
        meaning: "How many workflows run at once, each in a machine of its own; more wait for their turn. If it is not set, one a CPU.",
        kind: Kind::Integer,
        expects: "a number from 1 to 4096",
        set: |config, text| {
            let mut slots = 0;
            read_number(text, 1..=4096, &mut slots)?;
            config.scheduler.slots = Some(slots);
            Ok(())
        },
        show: |config| config.scheduler.slots.as_ref().and_then(show),
    },
    Key {
        section: "logs",
        name: "max_step",
        meaning: "How much of a step's output is kept: half of it the first, half the last; 256KiB at least.",
        kind: Kind::Text,
        expects: "a size such as \"64MiB\"",
        set: |config, text| read(text, &mut config.logs.max_step),
        show: |config| show(&config.logs.max_step),
    },
    Key {
        section: "logs",
        name: "keep_for",
        meaning: "How long records and logs of runs are kept after their end.",
        kind: Kind::Text,
        expects: "a duration such as \"30d\"",
        set: |config, text| read(text, &mut config.logs.keep_for),
        show: |config| show(&config.logs.keep_for),
    },
    Key {
        section: "logs",
        name: "max_total",
        meaning: "How much records and logs of all runs may take on the disk; beyond, the oldest that have ended go.",
        kind: Kind::Text,
        expects: "a size such as \"2GiB\"",
        set: |config, text| read(text, &mut config.logs.max_total),
        show: |config| show(&config.logs.max_total),
    },
    Key {
        section: "logs",
        name: "max_runs",
        meaning: "How many runs are remembered; beyond, the oldest that have ended go.",
        kind: Kind::Integer,
        expects: "a number from 1 to 100000",
        set: |config, text| read_number(text, 1..=100_000, &mut config.logs.max_runs),
        show: |config| show(&config.logs.max_runs),
    },
    Key {
        section: "kit",
        name: "dir",
        meaning: "Kernel, agent and helpers, looked for here before /var/lib/creel/kit and /usr/lib/creel/kit.",
        kind: Kind::Text,
        expects: DIRECTORY,
        set: |config, text| read_path(text, &mut config.directories.kit),
        show: |config| config.places.kit.first().map(show_path),
    },
    Key {
        section: "run",
        name: "dir",
        meaning: "Sockets and machines' directories; sockets need it short.",
        kind: Kind::Text,
        expects: DIRECTORY,
        set: |config, text| read_path(text, &mut config.directories.run),
        show: |config| Some(show_path(&config.places.run)),
    },
    Key {
        section: "state",
        name: "dir",
        meaning: "Images, records and logs.",
        kind: Kind::Text,
        expects: DIRECTORY,
        set: |config, text| read_path(text, &mut config.directories.state),
        show: |config| Some(show_path(&config.places.state)),
    },
    Key {
        section: "cache",
        name: "dir",
        meaning: "What can be made again, and the nameless files of runs: disks and source trees.",
        kind: Kind::Text,
        expects: DIRECTORY,
        set: |config, text| read_path(text, &mut config.directories.cache),
        show: |config| Some(show_path(&config.places.cache)),
    },
    Key {
        section: "qemu",
        name: "path",
        meaning: "The QEMU program; if it is not set, `qemu-system-<architecture>` is looked for on PATH.",
        kind: Kind::Text,
        expects: "an absolute path such as \"/usr/bin/qemu-system-x86_64\"",
        set: |config, text| read_path(text, &mut config.qemu.path),
        show: |config| config.qemu.path.as_ref().map(show_path),
    },
];

const DURATION: &str = "a duration such as \"90s\" or \"1h30m\"";
const BOOLEAN: &str = "true or false";
const WEIGHT: &str = "a number from 1 to 10000, where 100 is a cgroup's default";
const PORT: &str = "a number from 1 to 4294967294";

/// The last but one: that is `VMADDR_PORT_ANY` (vsock(7)).
const MAX_PORT: u32 = u32::MAX - 1;
const DIRECTORY: &str = "an absolute path such as \"/srv/creel\"";

impl Key {
    /// Its name in the environment: `CREEL_MACHINE__ACCEL`.
    pub fn variable(&self) -> String {
        format!("CREEL_{}__{}", self.section.to_uppercase(), self.name.to_uppercase())
    }
}

impl Config {
    /// The configuration in force, as a file that says the same.
    pub fn render_toml(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for key in KEYS {
            if key.section != section {
                section = key.section;
                text += &format!("{}[{section}]\n", if text.is_empty() { "" } else { "\n" });
            }
            text += &format!("# {}\n", key.meaning);
            text += &match (key.show)(self) {
                Some(value) if key.kind == Kind::Text => {
                    format!("{} = {}\n", key.name, toml::Value::String(value))
                }
                Some(value) => format!("{} = {value}\n", key.name),
                None => format!("# {} is not set\n", key.name),
            };
        }
        text
    }
}

fn read<T: FromStr<Err: Display>>(text: &str, into: &mut T) -> Result<(), String> {
    *into = text.parse().map_err(|error: T::Err| error.to_string())?;
    Ok(())
}

fn read_number<T>(text: &str, range: RangeInclusive<T>, into: &mut T) -> Result<(), String>
where
    T: FromStr + PartialOrd + Display + Copy,
{
    match text.parse() {
        Ok(number) if range.contains(&number) => {
            *into = number;
            Ok(())
        }
        _ => Err(format!("`{text}` is no number from {} to {}", range.start(), range.end())),
    }
}

fn read_present_path(text: &str, into: &mut PathBuf) -> Result<(), String> {
    let mut path = None;
    read_path(text, &mut path)?;
    into.clone_from(&path.unwrap_or_default());
    Ok(())
}

fn read_path(text: &str, into: &mut Option<PathBuf>) -> Result<(), String> {
    if !Path::new(text).is_absolute() {
        return Err(format!("`{text}` is not an absolute path; begin it with `/`"));
    }
    *into = Some(text.into());
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "the type of `Key::show`")]
fn show(value: &impl Display) -> Option<String> {
    Some(value.to_string())
}

fn show_path(path: impl AsRef<Path>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}
