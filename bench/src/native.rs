//! Native machines: an agent as a plain process on this host, in the place that QEMU has in a machine.
//!
//! An emulated guest says nothing about creel's own speed, and a container runs on the host as well. So creeld is
//! configured with a "QEMU" of ours, a script that runs the agent in a root of its own and answers QMP. All else is what
//! is installed: creeld, keeper, agent, the hybrid transport's socket (without its helper's copying: the agent dials it
//! itself), records, the API.

use std::fs::{self, Permissions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use creel::host::activation;
use serde_json::{Value, json};

use crate::args::NativeMachine;
use crate::programs::Programs;
use crate::row::{Failed, Trying as _};

const SCRIPT: &str = include_str!("native/machine.sh");

/// What native machines of this bench share. Dropped, their cgroup is removed: they have ended by then.
#[derive(Debug)]
pub struct Native {
    /// creeld's `qemu.path`.
    pub program: PathBuf,
    cgroup: Option<PathBuf>,
}

impl Native {
    /// Writes the script into `directory`; machines have `root` as their root.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn new(directory: &Path, root: &Path, programs: &Programs) -> Result<Self, Failed> {
        // More than one lives at a time.
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let name = format!("creel-bench-{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let cgroup = cgroup2().map(|mount| mount.join(name));
        // Where there is none to be had, programs have none, as the agent does without.
        let cgroup = cgroup.filter(|path| fs::create_dir(path).is_ok());
        let script = SCRIPT
            .replace("@CGROUP@", &cgroup.as_deref().unwrap_or(Path::new("/nonexistent")).to_string_lossy())
            .replace("@ROOT@", &root.to_string_lossy())
            .replace("@AGENT@", &programs.kit.join("bin/creel-agent").to_string_lossy())
            .replace("@OWN@", &programs.own.to_string_lossy());
        let program = directory.join("native-machine");
        fs::write(&program, script).trying("write the native machine's script")?;
        fs::set_permissions(&program, Permissions::from_mode(0o755)).trying("make it executable")?;
        Ok(Self { program, cgroup })
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        if let Some(cgroup) = &self.cgroup {
            remove_cgroups(cgroup);
        }
    }
}

/// Where cgroup v2 is mounted.
fn cgroup2() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, at, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(at))
    })
}

/// Children before parents; what still lives in one stays, and is a fault that the next look shows.
fn remove_cgroups(path: &Path) {
    let _ = fs::write(path.join("cgroup.kill"), "1");
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}

/// In QEMU's place: runs the agent and serves QMP on descriptor 3, until either ends.
///
/// # Errors
/// When it was not started by the script.
pub fn serve(arguments: &NativeMachine) -> Result<(), Failed> {
    let inherited = activation::take().trying("take the control socket")?;
    let qmp = inherited.into_iter().next().ok_or_else(|| Failed::new("there is no control socket"))?;
    let listener = UnixListener::from(qmp.fd);
    let (program, words) =
        arguments.agent.split_first().ok_or_else(|| Failed::new("there is no agent to run"))?;
    let agent = Command::new(program).args(words).spawn().trying("start the agent")?;
    let agent = Arc::new(Mutex::new(agent));
    let killer = Arc::clone(&agent);
    let (stream, _) = listener.accept().trying("accept creeld")?;
    let events = stream.try_clone().trying("share the control socket")?;
    thread::spawn(move || {
        // creeld quits it, or is gone: the keeper ends what is left.
        let _ = answer(stream);
        let _ = lock(&killer).kill();
    });
    wait(&agent);
    let ended = json!({"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"},
        "timestamp": {"seconds": 0, "microseconds": 0}});
    let _ = say(&events, &ended);
    Ok(())
}

fn lock(agent: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    agent.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Without the lock, so that it can be killed meanwhile.
fn wait(agent: &Mutex<Child>) {
    let pid = rustix::process::Pid::from_child(&lock(agent));
    let _ = rustix::process::waitid(
        rustix::process::WaitId::Pid(pid),
        rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
    );
    let _ = lock(agent).wait();
}

/// Greets, and answers everything as done, until `quit` or the connection's end (QEMU's docs/interop/qmp-spec.rst).
fn answer(stream: UnixStream) -> io::Result<()> {
    let greeting = json!({"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""},
        "capabilities": []}});
    say(&stream, &greeting)?;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let command: Value = serde_json::from_str(&line?)?;
        let mut answer = json!({"return": {}});
        if let Some(id) = command.get("id") {
            answer["id"] = id.clone();
        }
        say(&stream, &answer)?;
        if command["execute"] == "quit" {
            break;
        }
    }
    Ok(())
}

fn say(mut stream: &UnixStream, message: &Value) -> io::Result<()> {
    stream.write_all(format!("{message}\r\n").as_bytes())
}
