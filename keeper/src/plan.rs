//! The plan: everything a keeper is ever told, as one JSON document in a memfd.
//!
//! Descriptors are named by the number they have in the keeper. Whatever is open in the keeper and not named here is
//! closed before the first process starts, and each named one is closed as soon as the last process that needs it has
//! its copy: a descriptor kept longer (a vhost-vsock device, say) would keep a dead machine alive.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::console::ConsoleSizes;

/// The only version of the plan that this build reads and writes.
pub const PLAN_VERSION: u32 = 4;

/// The highest descriptor number a process may be given; the default soft limit on open files is 1024.
pub const MAX_FD: i32 = 1000;

/// The largest head or tail region of a console or log file.
pub const MAX_REGION_BYTES: u32 = 64 * 1024 * 1024;

/// What one keeper does, from start to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`PLAN_VERSION`]; checked before anything else is looked at.
    pub version: u32,
    /// The machine's id, for the records.
    pub machine: String,
    /// The machine's directory. All files are made relative to it, and it is every process's working directory, so
    /// socket paths can be plain names.
    pub directory: i32,
    /// Present when the keeper must not outlive its owner.
    pub owner: Option<Owner>,
    /// The root directory of keeper and processes; without it, the host's. The keeper is then in a mount namespace of its
    /// own, and confines itself once its processes have started.
    pub root: Option<Root>,
    /// Descriptors that the keeper keeps until its end, and gives to nobody: leases that end with it.
    pub hold: Vec<i32>,
    /// Sizes of the file `console`.
    pub console: ConsoleSizes,
    /// The processes, in start order.
    pub processes: Vec<Process>,
}

/// A root directory: what is named, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    pub entries: Vec<Entry>,
}

/// One thing of the host in a machine's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its absolute path on the host; links are followed.
    pub from: String,
    /// Its absolute path in the root.
    pub at: String,
    pub kind: EntryKind,
    /// Where creel has looked at it before: what it has to be still.
    pub identity: Option<Identity>,
}

/// What may be done with it. All but devices and sockets are for reading only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A file that is executed, or mapped so.
    Program,
    File,
    /// A directory with all that is below it.
    Directory,
    /// A directory whose files may be executed.
    Programs,
    /// A character device.
    Device,
    /// A directory in which sockets are made.
    Sockets,
}

impl EntryKind {
    pub fn is_directory(self) -> bool {
        matches!(self, Self::Directory | Self::Programs | Self::Sockets)
    }
}

/// A file, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub device: u64,
    pub inode: u64,
}

/// What a process is confined by beside its root. Each layer that is asked for is there, or the process is not started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jail {
    /// `None`: it stays who the keeper is.
    pub user: Option<JailUser>,
    /// Restrict it to its root's files by Landlock.
    pub landlock: bool,
    /// It makes sockets in [`EntryKind::Sockets`].
    pub sockets: bool,
    /// Refuse system calls that it has no use for.
    pub seccomp: bool,
    /// How long it may make any file, in bytes (RLIMIT_FSIZE).
    pub max_file_bytes: u64,
}

/// A user that nobody else is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JailUser {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups: those of device nodes.
    pub groups: Vec<u32>,
    /// Processes and threads of this user, the machine's all together.
    pub max_processes: u32,
}

/// The life line of an embedded keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// Read end of a pipe whose write end only the owner holds: end of file means that the owner is dead.
    pub pipe: i32,
    /// The directory that holds the machine's directory; needed to remove the latter.
    pub parent: i32,
    /// The machine directory's name in `parent`.
    pub name: String,
}

/// One process of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Names its files: `exit-<name>.json`, `log-<name>`. Lower-case letters, digits and `-`, at most 32.
    pub name: String,
    pub program: Program,
    /// The whole argument vector, `argv[0]` included.
    pub argv: Vec<String>,
    /// The whole environment; normally empty.
    pub env: Vec<(String, String)>,
    /// What it gets beside standard input (`/dev/null`), output and error.
    pub fds: Vec<FdGrant>,
    /// The cgroup v2 directory that it is born in, by its number in the keeper; without it, the keeper's own cgroup. No
    /// process may be given this descriptor: with it, one could move itself out of its limits.
    pub cgroup: Option<i32>,
    pub stdout: Output,
    pub stderr: Output,
    /// Sizes of `log-<name>`, when [`Output::Log`] is used.
    pub log: ConsoleSizes,
    /// When it exits, the machine is over and the others are killed.
    pub ends_machine: bool,
    /// The next process starts when this holds.
    pub ready: Option<Ready>,
    /// Only with a [`Plan::root`].
    pub jail: Option<Jail>,
}

/// What is executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    Path(String),
    /// An open file, by its number in the keeper.
    Fd(i32),
}

/// One descriptor of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FdGrant {
    pub from: FdSource,
    /// Its number in the process: 3 to [`MAX_FD`].
    pub to: i32,
}

/// Where a process's descriptor comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FdSource {
    /// One that creel handed down, by its number in the keeper.
    Fd(i32),
    /// Write end of the console pipe.
    Console,
    /// The socket connected to the [`Ready`] socket of the named, earlier process.
    ReadySocketOf(String),
}

/// Where an output stream goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    Null,
    /// Into the machine's console history.
    Console,
    /// Into the process's own bounded log.
    Log,
}

/// A process is ready when this unix socket accepts a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// A file name in the machine's directory, or in a directory there.
    pub socket: String,
    /// How long it may take; the machine fails to start after that.
    pub timeout_ms: u32,
}

/// Why a plan is refused.
#[derive(Debug, Error)]
pub enum PlanError {
    #[error("the plan is no valid JSON for version {PLAN_VERSION}")]
    Syntax(#[source] serde_json::Error),
    #[error(
        "the plan has version {found}, this keeper reads {PLAN_VERSION}: install creel and its kit from one release"
    )]
    Version { found: u32 },
    #[error("the plan contradicts itself: {0}")]
    Contradiction(String),
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

impl Plan {
    /// Reads and checks a plan.
    ///
    /// # Errors
    /// A foreign version is told apart from a broken document, since the remedy differs.
    pub fn parse(json: &[u8]) -> Result<Self, PlanError> {
        let VersionOnly { version } = serde_json::from_slice(json).map_err(PlanError::Syntax)?;
        if version != PLAN_VERSION {
            return Err(PlanError::Version { found: version });
        }
        let plan: Self = serde_json::from_slice(json).map_err(PlanError::Syntax)?;
        plan.validate()?;
        Ok(plan)
    }

    /// # Errors
    /// Serialisation of these types does not fail; the error is passed on rather than hidden.
    pub fn to_json(&self) -> Result<Vec<u8>, PlanError> {
        serde_json::to_vec(self).map_err(PlanError::Syntax)
    }

    /// Every descriptor of the keeper that the plan names.
    pub fn fds(&self) -> BTreeSet<i32> {
        let mut fds: BTreeSet<i32> = self.processes.iter().flat_map(Process::fds).collect();
        fds.insert(self.directory);
        fds.extend(&self.hold);
        if let Some(owner) = &self.owner {
            fds.extend([owner.pipe, owner.parent]);
        }
        fds
    }

    /// Checks what the types can't say; both sides do, so that creel reports its own mistakes before a fork.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn validate(&self) -> Result<(), PlanError> {
        let wrong = |what: String| Err(PlanError::Contradiction(what));
        if !self.processes.iter().any(|process| process.ends_machine) {
            return wrong("no process ends the machine".into());
        }
        if let Some(owner) = &self.owner
            && !is_file_name(&owner.name)
        {
            return wrong(format!("`{}` is no file name", owner.name));
        }
        if let Some(fd) = self.fds().into_iter().find(|fd| *fd < 3) {
            return wrong(format!("descriptor {fd} is a standard stream"));
        }
        let cgroups: BTreeSet<i32> = self.processes.iter().filter_map(|process| process.cgroup).collect();
        for process in &self.processes {
            if let Some(fd) = cgroups.iter().find(|fd| process.is_handed(**fd)) {
                return wrong(format!(
                    "process `{}` is given descriptor {fd}, which is a cgroup",
                    process.name
                ));
            }
        }
        check_sizes("console", self.console)?;
        for entry in self.root.iter().flat_map(|root| &root.entries) {
            if let Some(path) = [&entry.from, &entry.at].into_iter().find(|path| !is_plain_path(path)) {
                return wrong(format!("`{path}` is no absolute path, or has `..` in it"));
            }
        }
        if let Some(process) =
            self.processes.iter().find(|process| process.jail.is_some() && self.root.is_none())
        {
            return wrong(format!("process `{}` has a jail and no root", process.name));
        }
        let mut names = BTreeSet::new();
        let mut ready = BTreeSet::new();
        for process in &self.processes {
            process.validate(&ready)?;
            if !names.insert(process.name.as_str()) {
                return wrong(format!("two processes are named `{}`", process.name));
            }
            if process.ready.is_some() {
                ready.insert(process.name.as_str());
            }
        }
        Ok(())
    }
}

impl Process {
    /// The keeper's descriptors that this process needs.
    pub fn fds(&self) -> BTreeSet<i32> {
        let program = match self.program {
            Program::Fd(fd) => Some(fd),
            Program::Path(_) => None,
        };
        let granted = self.fds.iter().filter_map(|grant| match grant.from {
            FdSource::Fd(fd) => Some(fd),
            FdSource::Console | FdSource::ReadySocketOf(_) => None,
        });
        granted.chain(program).chain(self.cgroup).collect()
    }

    fn is_handed(&self, fd: i32) -> bool {
        self.program == Program::Fd(fd) || self.fds.iter().any(|grant| grant.from == FdSource::Fd(fd))
    }

    fn validate(&self, ready: &BTreeSet<&str>) -> Result<(), PlanError> {
        let name = &self.name;
        let wrong = |what: String| Err(PlanError::Contradiction(format!("process `{name}`: {what}")));
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 32 || !name.bytes().all(plain) {
            return wrong("the name is not made of 1 to 32 of a-z, 0-9 and `-`".into());
        }
        if self.argv.is_empty() {
            return wrong("it has no argv[0]".into());
        }
        let mut texts = self.argv.iter().chain(self.env.iter().flat_map(|(key, value)| [key, value]));
        let path_has_nul = matches!(&self.program, Program::Path(path) if path.contains('\0'));
        if path_has_nul || texts.any(|text| text.contains('\0')) {
            return wrong("an argument or variable holds a NUL byte".into());
        }
        check_sizes(name, self.log)?;
        let mut targets = BTreeSet::new();
        for grant in &self.fds {
            if !(3..=MAX_FD).contains(&grant.to) {
                return wrong(format!("descriptor number {} is not in 3..={MAX_FD}", grant.to));
            }
            if !targets.insert(grant.to) {
                return wrong(format!("descriptor number {} is given twice", grant.to));
            }
            if let FdSource::ReadySocketOf(other) = &grant.from
                && !ready.contains(other.as_str())
            {
                return wrong(format!("no earlier process `{other}` has a ready socket"));
            }
        }
        match &self.ready {
            Some(ready) if !ready.socket.split('/').all(is_file_name) => {
                wrong(format!("`{}` is no file name", ready.socket))
            }
            _ => Ok(()),
        }
    }
}

fn check_sizes(of: &str, sizes: ConsoleSizes) -> Result<(), PlanError> {
    if sizes.head_bytes > MAX_REGION_BYTES || sizes.tail_bytes > MAX_REGION_BYTES {
        return Err(PlanError::Contradiction(format!(
            "a region of `{of}` is larger than {MAX_REGION_BYTES} bytes"
        )));
    }
    Ok(())
}

fn is_plain_path(path: &str) -> bool {
    path.strip_prefix('/')
        .is_some_and(|rest| rest.split('/').all(|part| part != ".." && !part.contains('\0')))
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name.len() < 108 && name != "." && name != ".." && !name.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let sizes = ConsoleSizes { head_bytes: 16, tail_bytes: 16 };
        let process = |name: &str, ends_machine| Process {
            name: name.into(),
            program: Program::Path("/bin/true".into()),
            argv: vec!["true".into()],
            env: vec![],
            fds: vec![],
            cgroup: Some(8),
            stdout: Output::Console,
            stderr: Output::Log,
            log: sizes,
            ends_machine,
            ready: None,
            jail: Some(Jail {
                user: None,
                landlock: true,
                sockets: false,
                seccomp: true,
                max_file_bytes: 1 << 30,
            }),
        };
        let mut helper = process("vsock", false);
        helper.ready = Some(Ready { socket: "vhost.sock".into(), timeout_ms: 5000 });
        let mut qemu = process("qemu", true);
        qemu.fds = vec![
            FdGrant { from: FdSource::Fd(7), to: 3 },
            FdGrant { from: FdSource::ReadySocketOf("vsock".into()), to: 4 },
        ];
        Plan {
            version: PLAN_VERSION,
            machine: "m".into(),
            directory: 4,
            owner: Some(Owner { pipe: 6, parent: 5, name: "m-1".into() }),
            hold: vec![9],
            root: Some(Root {
                entries: vec![Entry {
                    from: "/usr/bin/true".into(),
                    at: "/bin/true".into(),
                    kind: EntryKind::Program,
                    identity: Some(Identity { device: 1, inode: 2 }),
                }],
            }),
            console: sizes,
            processes: vec![helper, qemu],
        }
    }

    #[test]
    fn survives_its_own_json_and_names_its_descriptors() {
        let plan = plan();
        let read = Plan::parse(&plan.to_json().expect("plain data")).expect("a valid plan");
        assert_eq!(read, plan);
        assert_eq!(read.fds(), BTreeSet::from([4, 5, 6, 7, 8, 9]));
    }

    #[test]
    fn a_foreign_version_is_named_even_when_its_fields_are_unknown() {
        let error = Plan::parse(br#"{"version": 7, "new": 1}"#).expect_err("a foreign version");
        assert!(matches!(error, PlanError::Version { found: 7 }));
    }

    #[test]
    fn unknown_keys_and_contradictions_are_refused() {
        let mut value: serde_json::Value =
            serde_json::from_slice(&plan().to_json().expect("plain data")).expect("JSON");
        value["typo"] = 1.into();
        assert!(matches!(Plan::parse(value.to_string().as_bytes()), Err(PlanError::Syntax(_))));

        type Spoil = fn(&mut Plan);
        let spoils: [(Spoil, &str); 10] = [
            (|plan| plan.root = None, "a jail and no root"),
            (|plan| plan.root.as_mut().unwrap().entries[0].at = "/../x".into(), "no absolute path"),
            (|plan| plan.processes[1].ends_machine = false, "ends the machine"),
            (|plan| plan.processes[0].name = "qemu".into(), "no earlier process `vsock`"),
            (|plan| plan.processes[0].name = "a/b".into(), "1 to 32"),
            (|plan| plan.processes[1].fds[1].to = 3, "given twice"),
            (|plan| plan.processes[1].fds[1].to = 2, "not in 3..="),
            (
                |plan| plan.processes[0].ready = Some(Ready { socket: "../x".into(), timeout_ms: 1 }),
                "file name",
            ),
            (|plan| plan.processes[1].argv.push("a\0b".into()), "NUL"),
            (|plan| plan.processes[1].fds[0].from = FdSource::Fd(8), "which is a cgroup"),
        ];
        for (spoil, expected) in spoils {
            let mut plan = plan();
            spoil(&mut plan);
            let error = plan.validate().expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
