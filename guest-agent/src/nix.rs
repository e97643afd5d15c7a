//! Which Nix the guest has, for `Hello`.

use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use crate::reaper::Reaper;
use crate::spawn::{Program, spawn};

const PLACES: [&str; 4] = [
    "/run/current-system/sw/bin/nix",
    "/nix/var/nix/profiles/default/bin/nix",
    "/usr/local/bin/nix",
    "/usr/bin/nix",
];

/// The first dial waits for this.
const LIMIT: Duration = Duration::from_secs(2);

const MAX_VERSION_BYTES: u64 = 256;

/// What `nix --version` says; `None` without Nix, at no cost.
pub async fn version(reaper: &Reaper) -> Option<String> {
    if !Path::new("/nix").exists() {
        return None;
    }
    let nix = PLACES.into_iter().find(|place| Path::new(place).exists())?;
    let argv = [nix.to_owned(), "--version".to_owned()];
    // Without a HOME Nix would look one up by NSS.
    let env = [("HOME".to_owned(), "/".to_owned())];
    let program = Program { argv: &argv, env: &env, directory: Path::new("/"), identity: None, cgroup: None };
    let running = spawn(reaper, program, false).ok()?;
    let mut said = Vec::new();
    let read = async {
        // Too long is as good as unreadable.
        let _ = running.stdout.take(MAX_VERSION_BYTES).read_to_end(&mut said).await;
    };
    let (end, _) =
        timeout(LIMIT, async { tokio::join!(running.process.wait(Some(LIMIT)), read) }).await.ok()?;
    let said = String::from_utf8(said).ok()?;
    (!end.1).then(|| said.trim().to_owned())
}
