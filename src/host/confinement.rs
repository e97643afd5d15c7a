//! What confines a process, as the kernel tells it now (proc(5)), whatever was asked for when it was started.
//!
//! Of a process of another user most of it takes CAP_SYS_PTRACE. Landlock is missing: the kernel tells no process's.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The confinement of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    pub pid: u32,
    /// Of its program file, cut at 15 bytes.
    pub name: String,
    /// Real, effective, saved and file system's, as this process's user namespace has them.
    pub uids: [u32; 4],
    pub gids: [u32; 4],
    pub groups: Vec<u32>,
    pub capabilities: Capabilities,
    /// No program that it executes gives it any (PR_SET_NO_NEW_PRIVS).
    pub no_new_privileges: bool,
    /// Of its own or inherited; `None` where it has filters and the kernel, before 5.9, does not count them.
    pub seccomp_filters: Option<u32>,
    pub namespaces: Vec<Namespace>,
    pub mounts: Vec<Mount>,
    pub limits: Vec<Limit>,
    pub descriptors: Vec<Descriptor>,
    /// Bytes that it was started with.
    pub environment_bytes: u64,
    /// In the cgroup v2 hierarchy; `None` where it is in none.
    pub cgroup: Option<String>,
    /// What AppArmor or SELinux call it; `None` where there is neither.
    pub label: Option<String>,
}

/// Its five sets, a bit for each (capabilities(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    pub inheritable: u64,
    pub permitted: u64,
    pub effective: u64,
    pub bounding: u64,
    pub ambient: u64,
}

/// A namespace that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// As /proc/PID/ns has it, such as `net`.
    pub kind: String,
    pub inode: u64,
    /// It is also that of the process which looks.
    pub shared: bool,
}

/// What it finds at a path (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// In its own root directory.
    pub at: PathBuf,
    /// In the file system that it is of.
    pub of: PathBuf,
    pub file_system: String,
    pub read_only: bool,
    pub set_id: bool,
    pub devices: bool,
    pub execution: bool,
}

/// A resource limit; `None`: there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// As proc_pid_limits(5) has it, without `Max`, such as `open files`.
    pub resource: String,
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

/// Something that it has open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    pub number: u32,
    /// As the kernel names it: a path, or such as `socket:[1234]`.
    pub what: PathBuf,
    pub directory: bool,
}

impl Confinement {
    /// Looks at a process. `None`: there is none of this number (any more).
    ///
    /// # Errors
    /// Those of reading /proc, with the file's name; of another user's process mostly EACCES.
    pub fn of(pid: u32) -> io::Result<Option<Self>> {
        match read(pid) {
            Ok(confinement) => Ok(Some(confinement)),
            // A process that ends shows one or the other, depending on the file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn read(pid: u32) -> io::Result<Confinement> {
    let directory = PathBuf::from(format!("/proc/{pid}"));
    // A process gives itself a name of any bytes (PR_SET_NAME of prctl(2)).
    let text = |file: &str| match fs::read(directory.join(file)) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => Err(named(&directory, file, error)),
    };
    let status = Status(text("status")?);
    let environment =
        fs::read(directory.join("environ")).map_err(|error| named(&directory, "environ", error))?;
    let label = text("attr/current").ok().map(|label| label.trim_end_matches(['\0', '\n']).to_owned());
    status
        .parse(pid)
        .map(|confinement| {
            Ok(Confinement {
                namespaces: namespaces(&directory)?,
                mounts: text("mountinfo")?.lines().filter_map(mount).collect(),
                limits: text("limits")?.lines().skip(1).filter_map(limit).collect(),
                descriptors: descriptors(&directory)?,
                environment_bytes: environment.len() as u64,
                cgroup: text("cgroup")?.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned),
                label: label.filter(|label| !label.is_empty()),
                ..confinement
            })
        })
        .ok_or_else(|| named(&directory, "status", io::Error::other("it can't be understood")))?
}

/// With the file's name, and still of its kind and number: both decide what is made of it.
fn named(directory: &Path, file: &str, error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => error,
        _ if error.raw_os_error() == Some(libc::ESRCH) => error,
        kind => io::Error::new(kind, format!("failed to read `{}`: {error}", directory.join(file).display())),
    }
}

/// proc_pid_status(5).
struct Status(String);

impl Status {
    fn field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
    }

    fn numbers(&self, name: &str) -> Option<Vec<u32>> {
        self.field(name)?.split_ascii_whitespace().map(|number| number.parse().ok()).collect()
    }

    /// What the status tells; the rest is empty.
    fn parse(&self, pid: u32) -> Option<Confinement> {
        let set = |name| u64::from_str_radix(self.field(name)?, 16).ok();
        let filtered = self.field("Seccomp")? == "2";
        let filters = self.field("Seccomp_filters").and_then(|count| count.parse().ok());
        Some(Confinement {
            pid,
            name: self.field("Name")?.to_owned(),
            uids: self.numbers("Uid")?.try_into().ok()?,
            gids: self.numbers("Gid")?.try_into().ok()?,
            groups: self.numbers("Groups")?,
            capabilities: Capabilities {
                inheritable: set("CapInh")?,
                permitted: set("CapPrm")?,
                effective: set("CapEff")?,
                bounding: set("CapBnd")?,
                ambient: set("CapAmb")?,
            },
            no_new_privileges: self.field("NoNewPrivs")? == "1",
            seccomp_filters: if filtered { filters } else { Some(0) },
            namespaces: Vec::new(),
            mounts: Vec::new(),
            limits: Vec::new(),
            descriptors: Vec::new(),
            environment_bytes: 0,
            cgroup: None,
            label: None,
        })
    }
}

/// namespaces(7). Those for children (`pid_for_children`) are not its own.
fn namespaces(directory: &Path) -> io::Result<Vec<Namespace>> {
    let failed = |error| named(directory, "ns", error);
    let mut namespaces = Vec::new();
    for entry in fs::read_dir(directory.join("ns")).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(kind) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if kind.ends_with("_for_children") {
            continue;
        }
        let of = |path: &Path| fs::metadata(path).map(|status| (status.dev(), status.ino()));
        let its = of(&path).map_err(failed)?;
        let shared = of(&Path::new("/proc/self/ns").join(kind)).is_ok_and(|ours| ours == its);
        namespaces.push(Namespace { kind: kind.to_owned(), inode: its.1, shared });
    }
    namespaces.sort_by(|a, b| a.kind.cmp(&b.kind));
    Ok(namespaces)
}

/// `36 35 98:0 /of /at ro,nosuid … - ext4 /dev/root rw`
fn mount(line: &str) -> Option<Mount> {
    let (fields, file_system) = line.split_once(" - ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let options: Vec<&str> = fields.get(5)?.split(',').collect();
    let has = |option| options.contains(&option);
    Some(Mount {
        at: unescaped(fields.get(4)?),
        of: unescaped(fields.get(3)?),
        file_system: file_system.split(' ').next()?.to_owned(),
        read_only: has("ro"),
        set_id: !has("nosuid"),
        devices: !has("nodev"),
        execution: !has("noexec"),
    })
}

/// Space, tab, newline and backslash are three octal digits there.
fn unescaped(path: &str) -> PathBuf {
    let mut parts = path.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                text.push(char::from(byte));
                text += &part[3..];
            }
            None => {
                text.push('\\');
                text += part;
            }
        }
    }
    text.into()
}

/// `Max open files            1024                 524288               files     `
fn limit(line: &str) -> Option<Limit> {
    let rest = line.strip_prefix("Max ")?;
    let (resource, values) = rest.split_once("  ")?;
    let mut values = values.split_ascii_whitespace();
    let mut value = || values.next().map(|value| value.parse().ok());
    Some(Limit { resource: resource.to_owned(), soft: value()?, hard: value()? })
}

fn descriptors(directory: &Path) -> io::Result<Vec<Descriptor>> {
    let failed = |error| named(directory, "fd", error);
    let mut descriptors = Vec::new();
    for entry in fs::read_dir(directory.join("fd")).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        // One that was closed meanwhile is not open.
        let (Some(number), Ok(what)) = (number, fs::read_link(&path)) else { continue };
        let directory = fs::metadata(&path).is_ok_and(|status| status.is_dir());
        descriptors.push(Descriptor { number, what, directory });
    }
    descriptors.sort_by_key(|descriptor| descriptor.number);
    Ok(descriptors)
}

/// Of capabilities(7), by number.
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// The names of a set, without `CAP_` and in small letters; a number for one that is newer than this program.
pub fn capability_names(set: u64) -> Vec<String> {
    let has = (0..64).filter(|bit| set >> bit & 1 == 1);
    has.map(|bit| CAPABILITIES.get(bit).map_or_else(|| bit.to_string(), |name| (*name).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_as_it_says_itself() {
        let own = Confinement::of(std::process::id()).unwrap().unwrap();
        assert_eq!(own.uids[1], rustix::process::geteuid().as_raw());
        assert!(own.namespaces.len() >= 7 && own.namespaces.iter().all(|namespace| namespace.shared));
        assert!(own.mounts.iter().any(|mount| mount.at == Path::new("/")), "{:?}", own.mounts);
        let files = own.limits.iter().find(|limit| limit.resource == "open files").unwrap();
        assert_eq!(files.soft, rustix::process::getrlimit(rustix::process::Resource::Nofile).current);
        assert!(own.descriptors.len() >= 3, "{:?}", own.descriptors);
        let directory = fs::File::open("/").unwrap();
        let with = Confinement::of(std::process::id()).unwrap().unwrap();
        assert!(with.descriptors.iter().any(|open| open.directory && open.what == Path::new("/")));
        drop(directory);
        // No pid is this high.
        assert_eq!(Confinement::of(u32::MAX).unwrap(), None);
    }

    #[test]
    fn a_confined_process_s_status_is_understood() {
        let status = Status(
            "Name:\tqemu-system-x86\nUid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nGroups:\t106 \nCapInh:\t0000000000000000\n\
             CapPrm:\t0000000000000020\nCapEff:\t0000000000000020\nCapBnd:\t0000000000000000\n\
             CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n"
                .into(),
        );
        let parsed = status.parse(12).unwrap();
        assert_eq!((parsed.uids, parsed.groups, parsed.seccomp_filters), ([7; 4], vec![106], Some(3)));
        assert_eq!(capability_names(parsed.capabilities.effective), ["kill"]);
        assert_eq!(Status("Name:\tx\n".into()).parse(1), None);
    }

    #[test]
    fn mounts_and_limits_are_understood() {
        let line = "41 30 0:26 /a\\040b /dev/kvm rw,nosuid,noexec shared:2 - devtmpfs udev rw,size=4k";
        let found = mount(line).unwrap();
        assert_eq!((found.of, found.at), ("/a b".into(), "/dev/kvm".into()));
        assert_eq!(
            (found.read_only, found.set_id, found.devices, found.execution),
            (false, false, true, false)
        );
        let line = "Max core file size        1                    unlimited            bytes     ";
        let found = limit(line).unwrap();
        assert_eq!((found.resource.as_str(), found.soft, found.hard), ("core file size", Some(1), None));
        assert_eq!(unescaped("a\\9b\\"), Path::new("a\\9b\\"));
    }

    #[test]
    fn all_capabilities_have_names() {
        assert_eq!(capability_names(1 << 40 | 1 << 41 | 1), ["chown", "checkpoint_restore", "41"]);
    }
}
