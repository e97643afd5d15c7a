//! KVM or TCG, decided on proof.
//!
//! That `/dev/kvm` exists and opens proves nothing: on a host whose KVM is broken underneath (a guest itself, say)
//! `-cpu host` aborts in QEMU or, worse, the guest crawls. So KVM is proven by a trial: a program of 456 bytes that
//! does what every boot needs, and leaves with a status that QEMU never has by itself (see `payload`).
//!
//! Why not a kernel: booting one is the truer test, but within the 3 s that a person would wait it tells slow from
//! broken nowhere. Measured with QEMU 7.2:
//!
//! | host | trial program | Debian's kernel to its panic |
//! | --- | --- | --- |
//! | development machine, broken KVM, `-cpu host`, `-cpu max` | QEMU aborts after 0.05 s (MSR 0x10a) | the same |
//! | the same, `-cpu qemu64`, `EPYC` | 22.9 s, mostly in the arithmetic | no line in 6 s |
//! | KVM on emulated SVM (TCG) | 1.0 to 2.2 s, most of it loading QEMU | 12.8 s |
//! | for comparison: TCG on an idle host | 0.05 s | 2.1 s |
//!
//! The trial takes `-cpu host`, as machines do, without SGX (QEMU before 10.0 can fail on its CPUID leaf: issue 2142),
//! and lives 3 s at most, or 20 s where the alternative to KVM is to run nothing (a creeld that starts while its host still
//! boots: measured, a busy host of emulated SVM takes 3.5 s). Its outcome is remembered per kernel release, QEMU version and device node: a success for
//! good, a failure for ten minutes, since a host may have been too busy.

mod memory;
mod payload;
mod trial;

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::image::Arch;
use crate::runtime::microvm::qemu::version::Qemu;

/// What a machine gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    Kvm,
    /// Emulation. QEMU promises no isolation for it (QEMU, `docs/system/security.rst`).
    Tcg {
        /// The host's TSC rate in kHz, which x86-64 guests must be told: one that calibrates against an emulated PIT
        /// on a busy host hangs for ever.
        tsc_khz: Option<u32>,
    },
}

impl Accel {
    /// `kvm` or `tcg`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg { .. } => "tcg",
        }
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg { .. } => "tcg",
        })
    }
}

/// Whether guests run under KVM here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvmProof {
    Usable,
    /// `why` is half a sentence, to stand after "KVM can't be used:" or in a list.
    Unusable {
        why: String,
    },
}

impl KvmProof {
    pub fn is_usable(&self) -> bool {
        matches!(self, Self::Usable)
    }

    fn unusable(why: impl Into<String>) -> Self {
        Self::Unusable { why: why.into() }
    }
}

/// What a proof depends on.
#[derive(Debug, Clone, Copy)]
pub struct ProbeInput<'a> {
    pub qemu: &'a Qemu,
    /// Where outcomes are remembered; made if missing. Without one, every call makes a trial.
    pub cache_directory: Option<&'a Path>,
    /// Whether something else can be done without KVM. Where nothing can, the trial is given more time.
    pub alternative: bool,
}

const DEVICE: &str = "/dev/kvm";

/// Proves KVM, or finds out why not: from memory, or by a trial of 3 s at most, 20 s where there is no alternative. Nothing is left running.
///
/// # Panics
/// Outside a tokio runtime with I/O and time enabled.
pub async fn prove_kvm(input: ProbeInput<'_>) -> KvmProof {
    if let Err(why) = before_trial(input.qemu.arch, Path::new(DEVICE)) {
        return KvmProof::unusable(why);
    }
    let key = memory::Key::new(input.qemu, Path::new(DEVICE));
    let remembered = input.cache_directory.and_then(|directory| memory::recall(directory, &key));
    if let Some(proof) = remembered {
        return proof;
    }
    let limit = if input.alternative { trial::QUICK } else { trial::PATIENT };
    let proof = trial::run(&input.qemu.path, trial::KVM, limit).await;
    if let Some(directory) = input.cache_directory
        && let Err(error) = memory::store(directory, &key, &proof)
    {
        let directory = directory.display();
        tracing::debug!(%error, %directory, "failed to remember the outcome of the KVM trial");
    }
    proof
}

/// What needs no trial to be known.
fn before_trial(arch: Arch, device: &Path) -> Result<(), String> {
    if Arch::native() != Some(arch) {
        let host = std::env::consts::ARCH;
        return Err(format!(
            "this host is {host}, and KVM runs guests of the host's architecture only, not {arch}"
        ));
    }
    if arch != Arch::X86_64 {
        return Err(format!("creel has no KVM trial for {arch} yet"));
    }
    match std::fs::OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => Ok(()),
        Err(error) => Err(cannot_open(device, &error)),
    }
}

fn cannot_open(device: &Path, error: &io::Error) -> String {
    let shown = device.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!(
                "{shown} does not exist: load kvm_intel or kvm_amd, and enable virtualisation in the firmware"
            )
        }
        io::ErrorKind::PermissionDenied => match group_of(device) {
            Some(group) => {
                format!("{shown} may not be opened: join group `{group}` (`usermod -aG {group} <user>`)")
            }
            None => format!("{shown} may not be opened: its mode lets no group in, ask the administrator"),
        },
        _ => format!("{shown} can't be opened: {error}"),
    }
}

/// The group that may open the device, by name if it has one.
fn group_of(device: &Path) -> Option<String> {
    const GROUP_READ_WRITE: u32 = 0o060;
    let metadata =
        device.metadata().ok().filter(|found| found.mode() & GROUP_READ_WRITE == GROUP_READ_WRITE)?;
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    Some(group_name(&groups, metadata.gid()).unwrap_or_else(|| metadata.gid().to_string()))
}

/// Looks a gid up in the text of `/etc/group` (group(5)).
fn group_name(groups: &str, gid: u32) -> Option<String> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests;
