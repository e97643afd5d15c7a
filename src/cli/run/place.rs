//! Where a run's machines come from: a daemon that answers, else this process.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::prepare::image_failure;
use super::serving::Serving;
use crate::api::RemoteRuntime;
use crate::api::{ApiError, Client, ConnectError};
use crate::cli::args::RunArgs;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::machines::{api_failure, connect_failure, socket_path};
use crate::cli::render::Screen;
use crate::engine::ImageFacts;
use crate::image::{ImageError, ImageStore};
use crate::machines::{ListedRuntime, Machines};
use crate::runtime::Runtime;

/// The runtime of a run, and the images that it knows.
pub(super) struct Place {
    pub runtime: Arc<dyn Runtime>,
    pub images: Images,
    /// `None`: the machines are a daemon's, or nobody can reach this run.
    pub serving: Option<Serving>,
}

/// Who knows the images.
#[derive(Debug, Clone)]
pub(super) enum Images {
    Here(ImageStore),
    /// Asked from a thread that may block.
    Daemon(Box<Client>, Handle),
}

/// Why an image's facts are not to be had.
#[derive(Debug)]
pub(super) enum NoImage {
    Here(ImageError),
    Daemon { name: String, error: ApiError },
}

impl Images {
    /// What a plan has to know of an image. Blocking.
    pub(super) fn facts(&self, name: &str) -> Result<ImageFacts, NoImage> {
        match self {
            Self::Here(images) => {
                let image = images.resolve(name).map_err(NoImage::Here)?;
                Ok(ImageFacts {
                    name: image.name,
                    shell: image.spec.shell,
                    base_config_hash: image.spec.base_config_hash,
                })
            }
            Self::Daemon(client, handle) => handle
                .block_on(client.inspect_image(name))
                .map_err(|error| NoImage::Daemon { name: name.to_owned(), error }),
        }
    }
}

impl NoImage {
    /// The name, if nothing has it.
    pub(super) fn unknown(&self) -> Option<&str> {
        match self {
            Self::Here(ImageError::Unknown { name, .. })
            | Self::Daemon { name, error: ApiError::NotFound(_) } => Some(name),
            Self::Here(_) | Self::Daemon { .. } => None,
        }
    }

    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::Here(error) => image_failure(error),
            Self::Daemon { error, .. } => api_failure(error),
        }
    }
}

/// A daemon that answers is used. One that refuses is named and the run is embedded, unless it was asked for.
pub(super) async fn place(context: &Context, arguments: &RunArgs, screen: &Screen) -> Result<Place, Failure> {
    // Other runtimes of a daemon have no API yet.
    if !arguments.embedded && arguments.runtime == "microvm" {
        let path = socket_path(context, arguments.socket.as_deref());
        let asked_for = arguments.socket.is_some();
        if let Some(client) = find(&path, asked_for, |text| screen.note(text)).await? {
            return Ok(daemon(client));
        }
    }
    let machines = Machines::of_a_run(context.runtime(&arguments.runtime).await?);
    let serving = Serving::start(context, machines.clone())
        .inspect_err(|why| screen.note(format!("note: other commands can't reach this run: {why}")))
        .ok();
    let uid = rustix::process::getuid().as_raw();
    let runtime = Arc::new(ListedRuntime::new(machines, uid));
    Ok(Place { runtime, images: Images::Here(context.images().clone()), serving })
}

/// The daemon, `None` where the run does without: there is none, or none for this user. One that fails is neither: going
/// without its limits and its policy is not what its user wants to find out later.
async fn find(path: &Path, asked_for: bool, note: impl Fn(String)) -> Result<Option<Client>, Failure> {
    let without = |error: &dyn fmt::Display| {
        note(format!("note: {error}; running without creeld"));
        Ok(None)
    };
    let client = match Client::connect(path).await {
        Ok(client) => client,
        Err(error) if asked_for => return Err(connect_failure(&error)),
        // As on most laptops.
        Err(ConnectError::NoSocket { .. } | ConnectError::Refused { .. }) => return Ok(None),
        Err(error @ ConnectError::Denied { .. }) => return without(&error),
        Err(error @ ConnectError::Other { .. }) => return Err(connect_failure(&error)),
    };
    match client.list(false).await {
        Ok(_) => Ok(Some(client)),
        Err(error @ ApiError::Denied(_)) if !asked_for => without(&error),
        Err(error) => Err(api_failure(&error)),
    }
}

fn daemon(client: Client) -> Place {
    let images = Images::Daemon(Box::new(client.clone()), Handle::current());
    Place { runtime: Arc::new(RemoteRuntime::new(client)), images, serving: None }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::api::RolePolicy;
    use crate::api::testing::World;
    use crate::exit::Exit;
    use crate::runtime::fake::{FakeRuntime, ScriptedSetup};

    /// Whether a daemon was found, or the exit code; and what was noted.
    async fn found(path: &Path, asked_for: bool) -> (Result<bool, Exit>, String) {
        let notes = RefCell::new(String::new());
        let found = find(path, asked_for, |text| notes.borrow_mut().push_str(&text)).await;
        (found.map(|client| client.is_some()).map_err(|failure| failure.exit), notes.into_inner())
    }

    #[tokio::test]
    async fn a_run_goes_without_a_daemon_only_where_there_is_none_or_it_refuses() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        assert_eq!(found(&path, false).await, (Ok(false), String::new()));
        assert_eq!(found(&path, true).await.0, Err(Exit::HostCannot));
        let world = World::new(ScriptedSetup::Ready, []);
        assert_eq!(found(&world.socket(), false).await, (Ok(true), String::new()));
        let nobody = RolePolicy { operator_uids: Vec::new(), operator_gid: None, spindle_gid: None };
        let refusing = World::with_roles(FakeRuntime::new(ScriptedSetup::Ready, []), nobody);
        let (result, note) = found(&refusing.socket(), false).await;
        assert!(result == Ok(false) && note.ends_with("running without creeld"), "{result:?} {note}");
        assert_eq!(found(&refusing.socket(), true).await.0, Err(Exit::HostCannot));
    }

    #[tokio::test]
    async fn a_daemon_that_fails_ends_the_command() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        // Hangs up on everybody, as one that has too many connections.
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let hanging_up = async {
            loop {
                drop(listener.accept().await.unwrap());
            }
        };
        let (result, note) = tokio::select! {
            found = found(&path, false) => found,
            never = hanging_up => never,
        };
        assert!(result.is_err() && note.is_empty(), "{result:?} {note}");
    }
}
