//! One trial: QEMU with the trial program, and what its end means.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, prlimit};
use tokio::time::timeout;

use crate::host::{Child, Exit, Spawn, memfd, spawn};
use crate::runtime::microvm::qemu::accel::{KvmProof, payload};

/// How long the program may take, from the start of QEMU, where a person waits and something else can be done instead. It
/// needs 0.1 s where KVM works.
pub(super) const QUICK: Duration = Duration::from_secs(3);
/// The same where the alternative is to run nothing: a host that boots, or is very busy, is slow.
pub(super) const PATIENT: Duration = Duration::from_secs(20);
/// The most that QEMU's complaints can say, in bytes; the rest is not read.
const MAX_COMPLAINT_BYTES: u64 = 4096;
/// The program's descriptor in QEMU.
const PROGRAM_FD: i32 = 3;

/// What is tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    pub(super) accel: &'static str,
    pub(super) cpu: &'static str,
}

pub(super) const KVM: Setting = Setting { accel: "kvm", cpu: "host,-sgx" };

/// Runs the trial program. QEMU is gone when this returns; when it is cancelled, soon after.
pub(super) async fn run(qemu: &Path, setting: Setting, limit: Duration) -> KvmProof {
    match attempt(qemu, setting, limit).await {
        Ok(proof) => proof,
        Err(error) => KvmProof::unusable(format!("the trial boot could not be made: {error}")),
    }
}

async fn attempt(qemu: &Path, setting: Setting, limit: Duration) -> io::Result<KvmProof> {
    let program = memfd::sealed("creel-kvm-trial", &payload::elf())?;
    let complaints = memfd::empty("creel-kvm-trial-stderr")?;
    let null = File::options().read(true).write(true).open("/dev/null")?;

    let mut spec = Spawn::new(qemu)?;
    for argument in arguments(setting) {
        spec = spec.arg(argument)?;
    }
    let spec = spec
        .fd(null.as_fd(), 0)
        .fd(null.as_fd(), 1)
        .fd(complaints.as_fd(), 2)
        .fd(program.as_fd(), PROGRAM_FD);
    let mut trial = Trial(spawn(&spec).map_err(io::Error::other)?);
    trial.limit_resources(limit);
    let exit = match timeout(limit, trial.0.wait()).await {
        Ok(exit) => Some(exit?),
        Err(_) => {
            // A killed process can take its time to end (KVM's memory is torn down), but end it does.
            trial.0.signal(Signal::KILL)?;
            trial.0.wait().await?;
            None
        }
    };
    Ok(judge(exit, limit, &first_complaint(complaints)?))
}

fn arguments(setting: Setting) -> Vec<String> {
    let Setting { accel, cpu } = setting;
    let text = format!(
        "-machine microvm,acpi=off,mem-merge=off,dump-guest-core=off -accel {accel} -cpu {cpu} -m 32M \
         -nodefaults -no-user-config -no-reboot -display none -monitor none \
         -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
         -device isa-debug-exit,iobase={:#x},iosize=1 -kernel /proc/self/fd/{PROGRAM_FD}",
        payload::EXIT_PORT
    );
    text.split_whitespace().map(str::to_owned).collect()
}

/// Kills QEMU when it is dropped unfinished.
struct Trial(Child);

impl Trial {
    /// Should creel itself be killed, nobody is left to kill QEMU. The trial program never halts, so a limit on CPU
    /// time ends it in every case (setrlimit(2)). And an abort, the way in which KVM fails here, leaves no core file.
    fn limit_resources(&self, limit: Duration) {
        let seconds = limit.as_secs() + 1;
        for (resource, most) in [(Resource::Cpu, seconds), (Resource::Core, 0)] {
            // It may have ended already.
            let _ =
                prlimit(Some(self.0.pid()), resource, Rlimit { current: Some(most), maximum: Some(most) });
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        // Fails when it has ended. `Child` reaps it.
        let _ = self.0.signal(Signal::KILL);
    }
}

fn first_complaint(mut complaints: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    complaints.rewind()?;
    complaints.take(MAX_COMPLAINT_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().find(|line| !line.contains("warning:")).unwrap_or_default();
    // "qemu-system-x86_64: error: failed to ...": the program's name adds nothing.
    let line = line.split_once(": ").map_or(line, |(_, rest)| rest);
    Ok(line.chars().filter(|c| !c.is_control()).take(160).collect())
}

/// `exit` is `None` for a trial that had to be killed.
fn judge(exit: Option<Exit>, limit: Duration, complaint: &str) -> KvmProof {
    let how = match exit {
        Some(Exit::Code(payload::STATUS_DONE)) => return KvmProof::Usable,
        Some(Exit::Code(payload::STATUS_BAD_MEMORY)) => "its memory read back wrong".to_owned(),
        Some(Exit::Code(payload::STATUS_BAD_ARITHMETIC)) => "its arithmetic went wrong".to_owned(),
        // With `-no-reboot`, a triple fault.
        Some(Exit::Code(0)) => "it crashed and reset the machine".to_owned(),
        Some(Exit::Code(code)) => format!("QEMU ended with status {code}"),
        Some(Exit::Signal(signal)) => format!("QEMU was ended by signal {signal}"),
        None => {
            let limit = limit.as_secs();
            return KvmProof::unusable(format!(
                "{} opens, but a trial guest was not done after {limit} s: KVM does not really work here, or the \
                 host is very busy",
                super::DEVICE
            ));
        }
    };
    let complaint = if complaint.is_empty() { String::new() } else { format!(" ({complaint})") };
    KvmProof::unusable(format!("{} opens, but a trial guest failed: {how}{complaint}", super::DEVICE))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QEMU: &str = "/usr/bin/qemu-system-x86_64";

    fn why(exit: Option<Exit>, complaint: &str) -> String {
        match judge(exit, QUICK, complaint) {
            KvmProof::Unusable { why } => why,
            KvmProof::Usable => panic!("usable"),
        }
    }

    #[test]
    fn only_the_program_s_own_status_is_success() {
        assert_eq!(judge(Some(Exit::Code(payload::STATUS_DONE)), QUICK, "warning"), KvmProof::Usable);
        assert_eq!(
            why(Some(Exit::Signal(6)), "error: failed to set MSR 0x10a to 0x69"),
            "/dev/kvm opens, but a trial guest failed: QEMU was ended by signal 6 (error: failed to set MSR 0x10a to \
             0x69)"
        );
        assert!(why(Some(Exit::Code(0)), "").ends_with("it crashed and reset the machine"));
        assert!(why(Some(Exit::Code(1)), "").ends_with("QEMU ended with status 1"));
        assert!(why(None, "").contains("was not done after 3 s"));
    }

    #[test]
    fn complaints_lose_warnings_and_the_program_s_name() {
        let mut file = memfd::empty("test").expect("made");
        let text = "qemu: warning: host doesn't support it\nqemu-system-x86_64: error: failed\nmore\n";
        io::Write::write_all(&mut file, text.as_bytes()).expect("written");
        assert_eq!(first_complaint(file).expect("read"), "error: failed");
    }

    /// Under TCG the program does all that it does under KVM: this proves the program.
    #[tokio::test]
    async fn the_program_runs_to_its_end() {
        if !Path::new(QEMU).exists() {
            println!("skipped: there is no {QEMU}");
            return;
        }
        for cpu in ["max", "qemu64"] {
            assert_eq!(
                run(Path::new(QEMU), Setting { accel: "tcg", cpu }, PATIENT).await,
                KvmProof::Usable,
                "{cpu}"
            );
        }
    }

    #[tokio::test]
    async fn a_trial_that_can_t_be_made_says_why() {
        let KvmProof::Unusable { why } = run(Path::new("/nonexistent/qemu"), KVM, QUICK).await else {
            panic!("usable")
        };
        assert!(
            why.starts_with("the trial boot could not be made: failed to start `/nonexistent/qemu`"),
            "{why}"
        );
    }

    /// A QEMU without a machine never ends by itself.
    #[tokio::test]
    async fn a_cancelled_trial_leaves_no_process() {
        if !Path::new(QEMU).exists() {
            println!("skipped: there is no {QEMU}");
            return;
        }
        let null = File::options().read(true).write(true).open("/dev/null").expect("opened");
        let mut spec = Spawn::new(Path::new(QEMU)).expect("a path");
        for argument in ["-M", "none", "-nodefaults", "-display", "none"] {
            spec = spec.arg(argument).expect("an argument");
        }
        let spec = spec.fd(null.as_fd(), 0).fd(null.as_fd(), 1).fd(null.as_fd(), 2);
        let trial = Trial(spawn(&spec).expect("started"));
        trial.limit_resources(QUICK);
        let pidfd = crate::host::PidFd::open(trial.0.pid()).expect("alive");
        drop(trial);
        timeout(Duration::from_secs(20), pidfd.ended()).await.expect("ended in time").expect("awaited");
    }
}
