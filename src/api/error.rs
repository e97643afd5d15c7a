//! What a caller of the API is told when something does not work.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};

use tonic::{Code, Status};

use super::convert::Malformed;
use super::status::setup_failure_in;
use crate::runtime::SetupError;

/// Why there is no connection to a daemon.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("there is no socket at {}: creeld does not run here; start it with `systemctl start creeld.socket`", path.display())]
    NoSocket { path: PathBuf },
    /// Its creator has ended.
    #[error("nobody listens at {}: creeld has ended; start it with `systemctl start creeld.socket`", path.display())]
    Refused { path: PathBuf },
    #[error("your user may not connect to {}: its permissions do not let you", path.display())]
    Denied { path: PathBuf },
    #[error("failed to connect to {}: {what}", path.display())]
    Other { path: PathBuf, what: String },
}

impl ConnectError {
    pub(super) fn new(path: &Path, error: &tonic::transport::Error) -> Self {
        let path = path.to_owned();
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(cause) = cause.downcast_ref::<io::Error>() {
                return match cause.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::NoSocket { path },
                    io::ErrorKind::ConnectionRefused => Self::Refused { path },
                    io::ErrorKind::PermissionDenied => Self::Denied { path },
                    _ => Self::Other { path, what: cause.to_string() },
                };
            }
            source = cause.source();
        }
        Self::Other { path, what: crate::error::with_causes(error) }
    }
}

/// Why a call did not do what it was to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// By creeld; the text names the remedy.
    #[error("{0}")]
    Denied(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    BadInput(String),
    /// A name that has been used.
    #[error("{0}")]
    Exists(String),
    #[error(transparent)]
    Setup(SetupError),
    /// As many machines as there may be.
    #[error("{0}")]
    Full(String),
    /// creeld is shutting down.
    #[error("{0}")]
    ShuttingDown(String),
    /// Not now, e.g. a machine that is not ready yet.
    #[error("{0}")]
    NotNow(String),
    /// An exec: another caller has attached to it.
    #[error("{0}")]
    Replaced(String),
    /// The machine's agent can't.
    #[error("{0}")]
    Unsupported(String),
    /// What the daemon was doing for us is undone by itself.
    #[error("lost the connection to creeld: {0}")]
    Lost(String),
    #[error("failed to read the source archive: {0}")]
    Source(String),
    #[error(
        "creeld said something that this creel does not understand: {0}; see whether `creel version` and creeld's agree"
    )]
    Malformed(#[from] Malformed),
    /// creel's own fault, as creeld tells it.
    #[error("{0}")]
    Internal(String),
}

impl From<Status> for ApiError {
    fn from(status: Status) -> Self {
        if let Some(error) = setup_failure_in(&status) {
            return Self::Setup(error);
        }
        // Statuses that were received have no source; creeld never answers UNKNOWN, tonic does.
        if let Some(source) = status.source() {
            return Self::Lost(crate::error::with_causes(source));
        }
        let text = status.message().to_owned();
        match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => Self::Denied(text),
            Code::NotFound => Self::NotFound(text),
            Code::InvalidArgument | Code::OutOfRange => Self::BadInput(text),
            Code::AlreadyExists => Self::Exists(text),
            Code::ResourceExhausted => Self::Full(text),
            Code::Unavailable => Self::ShuttingDown(text),
            Code::FailedPrecondition => Self::NotNow(text),
            Code::Aborted => Self::Replaced(text),
            Code::Unknown => Self::Lost(text),
            // What a daemon does not know it refuses without a word.
            Code::Unimplemented if !text.is_empty() => Self::Unsupported(text),
            Code::Unimplemented => Self::Malformed(Malformed("it does not know the call".to_owned())),
            code => Self::Internal(if text.is_empty() { code.description().to_owned() } else { text }),
        }
    }
}

impl ApiError {
    pub(super) fn ended_early() -> Self {
        Self::Lost("the answer ended early".to_owned())
    }
}
