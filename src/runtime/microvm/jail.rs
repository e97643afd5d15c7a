//! A machine's jail, as it is asked of the keeper: which layers this host has, what is in the root, and whose it is.
//!
//! What each layer does stands where it is taken on, in the keeper's `jail` and `child`. Here is decided once what there can
//! be ([`Layers`]), and for each machine what there has to be: the keeper refuses to start less.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use creel_keeper::{Entry, EntryKind, Identity, Jail, JailUser, Root};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::directory::{MachineDirectory, SOCKETS};
use crate::config::JailMode;
use crate::host::uids::{LOCKS, UidLease, UidRange};
use crate::host::{self, Namespaces, landlock};

/// Where QEMU finds what the guest boots.
pub const KERNEL: &str = "/kernel";
pub const INITRD: &str = "/initrd";

/// What QEMU opens by itself beside its libraries, where a host has it: firmware, and parts that it loads when it needs them.
const DATA: [&str; 2] = ["/usr/share/qemu", "/usr/share/seabios"];
const MODULES: &str = "qemu";

/// Where the loader finds libraries that are in none of its own directories (ldconfig(8)).
const LOADER_CACHE: &str = "/etc/ld.so.cache";

/// How long the loader may take to list what a program needs, once it runs: milliseconds.
const LISTING_TIMEOUT: Duration = Duration::from_secs(10);

/// More than QEMU's hundred libraries take, many times over.
const MOST_LISTED_BYTES: usize = 1 << 20;

const KVM: &str = "/dev/kvm";
const NULL: &str = "/dev/null";

/// How a machine is confined, as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JailSettings {
    pub mode: JailMode,
    pub uids: UidRange,
    /// Processes and threads of a leased user.
    pub max_processes: u32,
}

/// What this process can confine machines by, on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layers {
    /// Those of the keeper: pid, mount, network, IPC and host name, without root in a user namespace.
    pub namespaces: Namespaces,
    /// A leased user for each machine.
    pub user: bool,
    /// Landlock's ABI.
    pub landlock: Option<u32>,
}

/// A layer that is not to be had, and what that means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingLayer {
    pub layer: &'static str,
    pub consequence: &'static str,
}

impl fmt::Display for MissingLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no {}: {}", self.layer, self.consequence)
    }
}

impl Layers {
    /// Found out by trying. Takes some milliseconds.
    pub fn find() -> Self {
        let wanted = Namespaces::of_a_jail();
        let possible =
            host::namespaces::mounts_can_be_restricted() && host::namespaces::are_possible(wanted).is_ok();
        let namespaces = if possible { wanted } else { Namespaces::None };
        Self { namespaces, user: rustix::process::geteuid().is_root(), landlock: landlock::abi() }
    }

    /// What is not there.
    pub fn missing(&self) -> Vec<MissingLayer> {
        let missing = [
            (
                self.namespaces == Namespaces::None,
                "namespaces",
                "machines have no jail at all: a QEMU that is taken over is this user, with all files and processes that are \
                 his",
            ),
            (
                !self.user,
                "user of its own (that takes root)",
                "a QEMU that is taken over is this user, in namespaces where he has nothing; what it forks is bounded by his own limits \
                 alone",
            ),
            (
                self.landlock.is_none(),
                "Landlock",
                "only the root directory and the user keep a QEMU that is taken over from files",
            ),
        ];
        let missing = missing.into_iter().filter(|(is_missing, ..)| *is_missing);
        missing.map(|(_, layer, consequence)| MissingLayer { layer, consequence }).collect()
    }

    /// What machines get, as configured: `None` for nothing.
    ///
    /// # Errors
    /// When that is less than has to be.
    pub fn by(mode: JailMode) -> Result<Option<Self>, String> {
        if mode == JailMode::Off {
            return Ok(None);
        }
        let layers = Self::find();
        match (mode, layers.missing().first()) {
            (JailMode::Required, Some(missing)) => Err(format!(
                "the jail can't be made: {missing}; see `creel doctor`, or set `jail.mode` to \"auto\" to run machines in what \
                 there is"
            )),
            _ if layers.namespaces == Namespaces::None => Ok(None),
            _ => Ok(Some(layers)),
        }
    }
}

/// What the programs of a machine need to run, which is the same for all machines.
#[derive(Debug, Clone, Default)]
pub struct Contents(Vec<Entry>);

/// Why a program can't be put into a jail.
#[derive(Debug, thiserror::Error)]
#[error("failed to find out what `{}` needs to run: {source}", program.display())]
pub struct ContentsError {
    program: PathBuf,
    #[source]
    source: io::Error,
}

impl Contents {
    /// Asks the dynamic loader, which knows best. Blocking, for some milliseconds.
    ///
    /// # Errors
    /// When a program is none for this loader, such as a script.
    pub fn of(programs: &[&Path]) -> Result<Self, ContentsError> {
        let mut loaded = BTreeSet::new();
        for program in programs {
            let failed = |source| ContentsError { program: program.to_path_buf(), source };
            loaded.extend(libraries(program).map_err(failed)?);
        }
        let mut directories: BTreeSet<PathBuf> = DATA.iter().map(PathBuf::from).collect();
        // Beside its libraries (`CONFIG_QEMU_MODDIR`).
        let modules: BTreeSet<PathBuf> = loaded
            .iter()
            .filter_map(|file| Some(file.parent()?.canonicalize().ok()?.join(MODULES)))
            .collect();
        directories.retain(|path| path.is_dir());
        // Without it the loader looks where it was built to look, and nowhere else.
        let built_in = |path: &Path| {
            ["/lib", "/lib64", "/usr"].iter().any(|at| path.starts_with(at))
                && !path.starts_with("/usr/local")
        };
        let cache = loaded.iter().any(|path| !built_in(path)).then_some(Path::new(LOADER_CACHE));
        let cache = cache.filter(|path| path.is_file());
        let files: BTreeSet<PathBuf> =
            loaded.into_iter().chain(programs.iter().map(|program| program.to_path_buf())).collect();
        let entry = |path: &Path, kind| Some(entry(path.to_str()?, path.to_str()?, kind));
        let entries = files
            .iter()
            .filter_map(|path| entry(path, EntryKind::Program))
            .chain(directories.iter().filter_map(|path| entry(path, EntryKind::Directory)))
            .chain(
                modules
                    .iter()
                    .filter(|path| path.is_dir())
                    .filter_map(|path| entry(path, EntryKind::Programs)),
            )
            .chain(cache.into_iter().filter_map(|path| entry(path, EntryKind::File)))
            .chain([self::entry(NULL, NULL, EntryKind::Device)]);
        Ok(Self(entries.collect()))
    }
}

fn entry(from: &str, at: &str, kind: EntryKind) -> Entry {
    Entry { from: from.to_owned(), at: at.to_owned(), kind, identity: None }
}

/// ld.so(8), `--list`: the loader lists what it would load, itself among it, and runs nothing. One that is linked statically
/// has no loader, and needs nothing.
fn libraries(program: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(loader) = loader(program)? else { return Ok(Vec::new()) };
    let mut listing = Command::new(&loader);
    listing.arg("--list").arg(program).env_clear().stdin(Stdio::null()).stderr(Stdio::null());
    let listing = said_within(LISTING_TIMEOUT, &mut listing)?;
    let text = String::from_utf8_lossy(&listing);
    if let Some(line) = text.lines().find(|line| line.ends_with("not found")) {
        return Err(io::Error::other(format!("the loader says: {}", line.trim())));
    }
    // "\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x…)", "\t/lib64/ld-linux-x86-64.so.2 (0x…)", "\tlinux-vdso.so.1 (0x…)"
    let path = |line: &str| {
        let named = line.split_once("=> ").map_or(line, |(_, path)| path).trim();
        let path = named.rsplit_once(" (").map_or(named, |(path, _)| path);
        path.starts_with('/').then(|| PathBuf::from(path))
    };
    // The kernel starts the loader by this name, whatever it calls itself.
    Ok(text.lines().filter_map(path).chain([loader]).collect())
}

/// What a program writes to its standard output until it closes it. It is killed then, or when its time is over.
fn said_within(limit: Duration, command: &mut Command) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + limit;
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut said = Vec::new();
    let outcome = child.stdout.as_mut().map_or(Ok(()), |stdout| read_until(deadline, stdout, &mut said));
    // It may have ended; either way nothing is left of it.
    let _ = child.kill();
    child.wait()?;
    outcome.map(|()| said)
}

fn read_until(deadline: Instant, pipe: &mut (impl Read + AsFd), said: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 4096];
    while said.len() < MOST_LISTED_BYTES {
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now()))
            .map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match pipe.read(&mut chunk)? {
            0 => return Ok(()),
            length => said.extend_from_slice(&chunk[..length]),
        }
    }
    Err(io::Error::other("it says more than any list of libraries"))
}

/// The interpreter that a program names (elf(5), `PT_INTERP`).
fn loader(program: &Path) -> io::Result<Option<PathBuf>> {
    const PT_INTERP: u64 = 3;
    let no_elf = || {
        io::Error::other("it is no 64-bit ELF program; set `jail.mode` to \"off\" to run it without a jail")
    };
    let mut file = File::open(program)?;
    let mut header = [0; 64];
    file.read_exact(&mut header).map_err(|_| no_elf())?;
    // ELFCLASS64, and the byte order of this machine.
    if !header.starts_with(b"\x7fELF\x02") {
        return Err(no_elf());
    }
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let (at, size, count) = (number(&header[32..40]), number(&header[54..56]), number(&header[56..58]));
    for index in 0..count {
        let mut entry = [0; 56];
        file.read_exact_at(&mut entry, at + index * size)?;
        if number(&entry[..4]) != PT_INTERP {
            continue;
        }
        // With its closing zero; no path is longer.
        let length = usize::try_from(number(&entry[32..40])).unwrap_or(0).min(4096);
        let mut path = vec![0; length];
        file.read_exact_at(&mut path, number(&entry[8..16]))?;
        path.truncate(path.iter().position(|byte| *byte == 0).unwrap_or(length));
        return Ok(Some(PathBuf::from(OsString::from_vec(path))));
    }
    Ok(None)
}

/// One machine's.
#[derive(Debug)]
pub struct MachineJail {
    layers: Layers,
    settings: JailSettings,
    entries: Vec<Entry>,
    user: Option<UidLease>,
    kvm: bool,
}

/// Why a machine has no jail.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    #[error("failed to lease a user for the machine (`{LOCKS}`): {0}")]
    User(#[source] io::Error),
    #[error("failed to {action} `{}`: {source}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl MachineJail {
    /// Leases a user where there can be one, and puts the root together. `boot`: kernel and initrd, as they were opened.
    ///
    /// # Errors
    /// When all users are in use, or a file has no path that can be named.
    pub fn acquire(
        layers: Layers,
        settings: JailSettings,
        contents: &Contents,
        boot: [(&Path, &File); 2],
        kvm: bool,
    ) -> Result<Self, JailError> {
        let user = match layers.user {
            true => Some(UidLease::acquire(settings.uids, Path::new(LOCKS)).map_err(JailError::User)?),
            false => None,
        };
        let mut entries = contents.0.clone();
        for ((path, file), at) in boot.into_iter().zip([KERNEL, INITRD]) {
            let failed = |action| move |source| JailError::File { action, path: path.to_owned(), source };
            let status = file.metadata().map_err(failed("look at"))?;
            let path = path.canonicalize().map_err(failed("find"))?;
            let from = path.to_str().ok_or_else(|| {
                failed("name")(io::Error::other("files of images need a path that is valid UTF-8"))
            })?;
            entries.push(Entry { identity: Some(identity(&status)), ..entry(from, at, EntryKind::File) });
        }
        if kvm {
            entries.push(entry(KVM, KVM, EntryKind::Device));
        }
        Ok(Self { layers, settings, entries, user, kvm })
    }

    /// Puts the directory of the helper's sockets into the root.
    ///
    /// # Errors
    /// When its path is not valid UTF-8.
    pub fn share_sockets(&mut self, directory: &MachineDirectory) -> Result<(), JailError> {
        let path = directory.path().join(SOCKETS);
        let from = path.to_str().ok_or_else(|| JailError::File {
            action: "name",
            path: path.clone(),
            source: io::Error::other("it is not valid UTF-8"),
        })?;
        self.entries.push(entry(from, &format!("/{SOCKETS}"), EntryKind::Sockets));
        Ok(())
    }

    pub fn namespaces(&self) -> Namespaces {
        self.layers.namespaces
    }

    /// The leased user.
    pub fn user(&self) -> Option<&UidLease> {
        self.user.as_ref()
    }

    pub fn root(&self) -> Root {
        Root { entries: self.entries.clone() }
    }

    /// What QEMU is confined by, whose longest file has so many bytes.
    pub fn of_qemu(&self, max_file_bytes: u64) -> Jail {
        self.of_process(false, max_file_bytes)
    }

    /// What a helper is confined by: it makes sockets, and writes into no file.
    pub fn of_helper(&self) -> Jail {
        self.of_process(true, 0)
    }

    fn of_process(&self, helper: bool, max_file_bytes: u64) -> Jail {
        let groups = if self.kvm && !helper { device_group(KVM).into_iter().collect() } else { Vec::new() };
        let user = self.user.as_ref().map(|user| JailUser {
            uid: user.uid(),
            gid: user.uid(),
            groups,
            max_processes: self.settings.max_processes,
        });
        let landlock = self.layers.landlock.is_some();
        Jail { user, landlock, sockets: helper, seccomp: true, max_file_bytes }
    }
}

fn identity(status: &Metadata) -> Identity {
    Identity { device: status.dev(), inode: status.ino() }
}

/// The group that may use a device which not all may use.
fn device_group(path: &str) -> Option<u32> {
    let status = std::fs::metadata(path).ok()?;
    (status.mode() & 0o006 != 0o006).then(|| status.gid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_end_is_ended() {
        let mut speaks = Command::new("sh");
        speaks.args(["-c", "echo said; exec sleep 1000 >&-"]);
        assert_eq!(said_within(Duration::from_secs(60), &mut speaks).unwrap(), b"said\n");
        let mut hangs = Command::new("sleep");
        let error = said_within(Duration::from_millis(50), hangs.arg("1000")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_program_s_libraries_are_known_and_a_script_has_none() {
        let sh = Path::new("/bin/sh").canonicalize().unwrap();
        let Contents(entries) = Contents::of(&[&sh]).unwrap();
        let has = |part: &str| entries.iter().any(|entry| entry.from.contains(part));
        assert!(has("libc.so") && has("ld-linux") && has(sh.to_str().unwrap()), "{entries:?}");
        assert!(entries.iter().all(|entry| entry.from.starts_with('/') && Path::new(&entry.from).exists()));
        let scratch = tempfile::tempdir().unwrap();
        let script = scratch.path().join("script");
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        let error = Contents::of(&[&script]).unwrap_err();
        assert!(error.to_string().contains("ELF program"), "{error}");
    }
}
