//! Outcomes of trials, kept between runs of creel.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::runtime::microvm::qemu::accel::{KvmProof, payload, trial};
use crate::runtime::microvm::qemu::version::{Qemu, QemuVersion};

const FILE: &str = "kvm-proof.json";
/// A file that is longer was not written by creel.
const MAX_BYTES: u64 = 16 * 1024;
/// How long a failure is believed: a host may just have been too busy.
const FAILURE_LIFETIME: Duration = Duration::from_secs(600);

/// An outcome holds for exactly this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    kernel: String,
    qemu: PathBuf,
    version: QemuVersion,
    /// Inode and device number of `/dev/kvm`: another one after the module was loaded again.
    device: (u64, u64),
    /// Trials of another program or CPU model prove something else.
    trial: String,
}

impl Key {
    pub(super) fn new(qemu: &Qemu, device: &Path) -> Self {
        let device = device.metadata().map(|found| (found.ino(), found.rdev())).unwrap_or_default();
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            qemu: qemu.path.clone(),
            version: qemu.version,
            device,
            trial: format!("{}/{}", payload::VERSION, trial::KVM.cpu),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    key: Key,
    proof: KvmProof,
    /// Seconds since 1970.
    at: u64,
}

/// The outcome for this key, if there is one that still holds. A file that can't be read is no outcome.
pub(super) fn recall(directory: &Path, key: &Key) -> Option<KvmProof> {
    recall_at(directory, key, now())
}

fn recall_at(directory: &Path, key: &Key, now: u64) -> Option<KvmProof> {
    let path = directory.join(FILE);
    path.metadata().ok().filter(|found| found.is_file() && found.len() <= MAX_BYTES)?;
    let entry: Entry = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let age = now.checked_sub(entry.at)?;
    let holds = entry.proof.is_usable() || age < FAILURE_LIFETIME.as_secs();
    (holds && entry.key == *key).then_some(entry.proof)
}

/// Replaces what was remembered, as a whole: several creels may do so at once.
pub(super) fn store(directory: &Path, key: &Key, proof: &KvmProof) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let entry = Entry { key: key.clone(), proof: proof.clone(), at: now() };
    let text = serde_json::to_vec_pretty(&entry)?;
    let temporary = directory.join(format!(".{FILE}.{}", std::process::id()));
    let written = fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(&text))
        .and_then(|()| fs::rename(&temporary, directory.join(FILE)));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Arch;

    fn key(minor: u32) -> Key {
        let version = QemuVersion { major: 7, minor, micro: 0 };
        let qemu = Qemu { arch: Arch::X86_64, path: "/usr/bin/qemu-system-x86_64".into(), version };
        Key::new(&qemu, Path::new("/dev/null"))
    }

    #[test]
    fn an_outcome_is_remembered_for_its_key_only() {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let inner = directory.path().join("made/on/demand");
        assert_eq!(recall(&inner, &key(2)), None);
        store(&inner, &key(2), &KvmProof::Usable).expect("stored");
        assert_eq!(recall(&inner, &key(2)), Some(KvmProof::Usable));
        assert_eq!(recall(&inner, &key(3)), None);
        assert_eq!(fs::read_dir(&inner).expect("readable").count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_failure_is_forgotten_and_a_success_is_not() {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let failure = KvmProof::unusable("it was busy");
        store(directory.path(), &key(2), &failure).expect("stored");
        assert_eq!(recall_at(directory.path(), &key(2), now() + 60), Some(failure));
        assert_eq!(recall_at(directory.path(), &key(2), now() + 601), None);
        assert_eq!(recall_at(directory.path(), &key(2), 0), None, "it comes from the future");
        store(directory.path(), &key(2), &KvmProof::Usable).expect("stored");
        assert_eq!(recall_at(directory.path(), &key(2), now() + 1_000_000), Some(KvmProof::Usable));
    }

    #[test]
    fn a_broken_file_is_no_outcome() {
        let directory = tempfile::tempdir().expect("a scratch directory");
        for text in ["", "{", "{\"proof\": \"usable\"}", &"x".repeat(100_000)] {
            fs::write(directory.path().join(FILE), text).expect("written");
            assert_eq!(recall(directory.path(), &key(2)), None);
        }
    }
}
