//! A source archive, as it comes in.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::Path;

use creel_proto::v1 as wire;
use tokio::io::AsyncWriteExt;
use tonic::{Status, Streaming};

use super::next;
use crate::api::status;
use crate::host::tmpfile::anonymous_file;
use crate::runtime::{Outcome, Phase, SetupError, SetupFailure};

/// The largest source archive.
pub const MAX_SOURCE_BYTES: u64 = 4 << 30;

/// Writes `source` messages to a file without a name until the caller closes its side.
pub(super) async fn receive(
    messages: &mut Streaming<wire::CreateRequest>,
    scratch: &Path,
) -> Result<File, Status> {
    let failed = |error: io::Error| failed(&error, scratch);
    let file = anonymous_file(scratch).map_err(failed)?;
    let mut writer = tokio::fs::File::from_std(file);
    let mut size = 0_u64;
    while let Some(message) = next(messages).await? {
        let Some(wire::create_request::Message::Source(bytes)) = message.message else {
            return Err(Status::invalid_argument("only `source` messages may follow `start`"));
        };
        size += bytes.len() as u64;
        if size > MAX_SOURCE_BYTES {
            return Err(status::setup_failed(&SetupError::new(
                Phase::Prepare,
                SetupFailure::BadInput(format!(
                    "the source archive is larger than {} GiB, which is the most that a machine takes",
                    MAX_SOURCE_BYTES >> 30
                )),
            )));
        }
        writer.write_all(&bytes).await.map_err(failed)?;
    }
    writer.flush().await.map_err(failed)?;
    let mut file = writer.into_std().await;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok(file)
}

fn failed(error: &io::Error, scratch: &Path) -> Status {
    let detail = format!("failed to keep the source archive in {}: {error}", scratch.display());
    let outcome = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Outcome::HostDiskFull { detail },
        _ => Outcome::Internal { detail },
    };
    status::setup_failed(&SetupError::new(Phase::Prepare, SetupFailure::Ended(outcome)))
}
