//! The workflow user's directories.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};

use crate::log;
use crate::user::{Accounts, Identity, UserError};

/// The workflow user's home.
const WORKSPACE: &str = "/workspace";

/// Where steps run.
const REPOSITORY: &str = "/workspace/repo";

#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    #[error("the image has no usable workflow user: {0}")]
    User(#[from] UserError),
    #[error("failed to prepare `{path}` for the workflow user: {source}")]
    Directory { path: String, source: io::Error },
}

/// Makes the workspace and the user's runtime directory, owned by the workflow user.
pub fn prepare() -> Result<(), WorkspaceError> {
    let user = Accounts::read()?.resolve("")?;
    prepare_for(&user)?;
    directory(&format!("/run/user/{}", user.uid), 0o700, &user)
}

/// The workspace for an image that boots itself: it may add the user later, and mounts its own /run.
pub fn prepare_if_possible() {
    let user = Accounts::read().and_then(|accounts| accounts.resolve(""));
    if let Ok(user) = user
        && let Err(error) = prepare_for(&user)
    {
        log::warn(format_args!("{error}"));
    }
}

fn prepare_for(user: &Identity) -> Result<(), WorkspaceError> {
    directory(WORKSPACE, 0o755, user)?;
    directory(REPOSITORY, 0o755, user)
}

fn directory(path: &str, mode: u32, user: &Identity) -> Result<(), WorkspaceError> {
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .and_then(|()| chown(path, Some(user.uid), Some(user.gid)))
        .map_err(|source| WorkspaceError::Directory { path: path.to_owned(), source })
}
