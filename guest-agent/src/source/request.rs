//! Answers `SourceUnpack`: finds the disk, becomes the user in a thread of its own, unpacks.

use std::env;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::PathBuf;
use std::thread;

use creel_proto::agent::{SourceUnpack, SourceUnpackResult};
use creel_proto::names::disks::SOURCE;
use creel_tree::{Destination, DestinationError, UnpackError, Unpacked};
use tokio::sync::oneshot;

use crate::disks::{self, DiskError};
use crate::spawn::credentials;
use crate::sys;
use crate::user::{Accounts, UserError};

/// Names a file to be read instead of the source disk: for agents without a machine of their own.
const DISK_VARIABLE: &str = "CREEL_SOURCE_DISK";

/// One read of the disk.
const READ_BYTES: usize = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    User(#[from] UserError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("failed to open source disk `{path}`: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("failed to start the thread that unpacks the source: {0}")]
    Thread(#[source] io::Error),
    #[error("failed to act as user `{name}` (uid {uid}, gid {gid}): {source}")]
    BecomeUser { name: String, uid: u32, gid: u32, source: io::Error },
    #[error("`{0}` is no place for the source; an absolute path is needed")]
    Relative(String),
    #[error(transparent)]
    Destination(#[from] DestinationError),
    #[error("failed to unpack the source: {0}")]
    Archive(#[from] UnpackError),
    #[error("the thread that unpacks the source has died")]
    Died,
}

/// Does what `request` asks for, without holding up anything else.
pub async fn unpack(request: SourceUnpack) -> SourceUnpackResult {
    let (sender, receiver) = oneshot::channel();
    // Not one of the runtime's threads: it changes who it is for good.
    let thread = thread::Builder::new().name("source".to_owned()).spawn(move || {
        // The session may be over by now.
        let _ = sender.send(unpack_blocking(&request));
    });
    let result = match thread {
        Ok(_) => receiver.await.unwrap_or(Err(SourceError::Died)),
        Err(source) => Err(SourceError::Thread(source)),
    };
    match result {
        Ok(Unpacked { files, bytes, .. }) => SourceUnpackResult { error: String::new(), files, bytes },
        Err(error) => SourceUnpackResult { error: error.to_string(), files: 0, bytes: 0 },
    }
}

fn unpack_blocking(request: &SourceUnpack) -> Result<Unpacked, SourceError> {
    let destination = PathBuf::from(&request.destination);
    if !destination.is_absolute() {
        return Err(SourceError::Relative(request.destination.clone()));
    }
    let identity = Accounts::read()?.resolve(&request.user)?;
    let path = match env::var_os(DISK_VARIABLE) {
        Some(path) => path.into(),
        None => disks::find(SOURCE)?,
    };
    let disk = File::open(&path).map_err(|source| SourceError::Open { path, source })?;
    if let Some(who) = credentials(&identity) {
        sys::act_on_files_as(&who).map_err(|source| SourceError::BecomeUser {
            name: identity.name.clone(),
            uid: identity.uid,
            gid: identity.gid,
            source,
        })?;
    }
    let into = Destination::own_directory(&destination)?;
    // A tree that is not whole is none: the first complaint ends it.
    Ok(creel_tree::unpack(BufReader::with_capacity(READ_BYTES, disk), into, &mut Err)?)
}
