//! The way to the daemon and to embedded runs, and their errors as commands end with them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::api::{ApiError, Client, ConnectError};
use crate::cli::args::SocketArg;
use crate::cli::context::Context;
use crate::cli::failure::{Failure, with_causes};
use crate::exit::Exit;
use crate::runtime::MachineId;
use crate::runtime::microvm::directory::{RunDir, is_of_a_run};

/// For what takes milliseconds: a run may have been stopped (Ctrl-Z).
const RUN_BOUND: Duration = Duration::from_secs(5);

/// A socket that systemd holds queues callers while creeld is started again.
const DAEMON_BOUND: Duration = Duration::from_secs(60);

/// Where the daemon is asked: as named, else as configured.
pub(in crate::cli) fn socket_path(context: &Context, named: Option<&Path>) -> PathBuf {
    named.map_or_else(|| context.config().daemon.socket.clone(), Path::to_owned)
}

pub(super) async fn connect(context: &Context, socket: &SocketArg) -> Result<Client, Failure> {
    let path = socket_path(context, socket.socket.as_deref());
    Client::connect(&path).await.map_err(|error| connect_failure(&error))
}

/// All that may have machines of this user: the daemon, and the embedded runs that live. With `--socket`, that one alone.
#[derive(Debug)]
pub(in crate::cli) struct Everyone {
    clients: Vec<Client>,
    /// Where else was looked, in vain.
    absent: Vec<String>,
}

/// There is nobody to ask.
#[derive(Debug)]
pub(in crate::cli) struct Unreached {
    pub failure: Failure,
    /// Somebody is there who does not answer this user.
    pub refuses: bool,
}

impl From<Unreached> for Failure {
    fn from(unreached: Unreached) -> Self {
        unreached.failure
    }
}

impl Everyone {
    /// Connects to each.
    ///
    /// # Errors
    /// When nobody answers.
    pub(in crate::cli) async fn reach(context: &Context, socket: &SocketArg) -> Result<Self, Unreached> {
        if socket.socket.is_some() {
            let client = connect(context, socket).await;
            let client = client.map_err(|failure| Unreached { failure, refuses: true })?;
            return Ok(Self { clients: vec![client], absent: Vec::new() });
        }
        let run_dir = context.config().places.run.clone();
        let daemon = socket_path(context, None);
        let runs = join_all(run_sockets(&run_dir).into_iter().map(|path| async move {
            // One that has ended since is none.
            Client::connect(&path).await.ok()
        }));
        let (daemon, runs) = tokio::join!(Client::connect(&daemon), runs);
        let mut everyone = Self { clients: runs.into_iter().flatten().collect(), absent: Vec::new() };
        match daemon {
            Ok(client) => everyone.clients.insert(0, client),
            Err(error) if everyone.clients.is_empty() => {
                let looked =
                    format!("no `creel run` of yours goes on, by the sockets in {}", run_dir.display());
                let refuses = !matches!(error, ConnectError::NoSocket { .. } | ConnectError::Refused { .. });
                let failure = Failure::host(format!("{error}; and {looked}"));
                return Err(Unreached { failure, refuses });
            }
            Err(error) => {
                // As on most laptops.
                if !matches!(error, ConnectError::NoSocket { .. } | ConnectError::Refused { .. }) {
                    eprintln!("creel: note: {error}");
                }
                everyone.absent.push(error.to_string());
            }
        }
        Ok(everyone)
    }

    pub(in crate::cli) fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// Who knows this machine.
    ///
    /// # Errors
    /// When nobody does; the text says who was asked.
    pub(in crate::cli) async fn find(&self, id: &MachineId) -> Result<Client, Failure> {
        let (mut failed, mut of_an_earlier_version) = (None, None);
        for (client, answer) in self.ask(|client| async move { client.inspect(id, None).await }).await {
            match answer {
                Ok(_) => return Ok(client),
                Err(ApiError::NotFound(_)) => {}
                // It does not know the call, and may know the machine.
                Err(ApiError::Malformed(_)) => of_an_earlier_version = Some(client),
                Err(error) => failed = Some(error),
            }
        }
        if let Some(client) = of_an_earlier_version {
            return Ok(client);
        }
        if let Some(error) = failed {
            return Err(api_failure(&error));
        }
        let asked: Vec<String> =
            self.clients.iter().map(|client| client.path().display().to_string()).collect();
        let mut text = format!("there is no machine {id} at {}", asked.join(", "));
        for why in &self.absent {
            text.push_str(&format!(" ({why})"));
        }
        Err(Failure::usage(text + "; `creel ps` lists those that there are"))
    }

    /// Asks all at once, each for a bounded time.
    pub(in crate::cli) async fn ask<T, F>(
        &self,
        question: impl Fn(Client) -> F,
    ) -> Vec<(Client, Result<T, ApiError>)>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        join_all(self.clients.iter().map(|client| {
            let answer = bounded(client, question(client.clone()));
            async move { (client.clone(), answer.await) }
        }))
        .await
    }

    /// The same, of those that answer; what went wrong with the others is said on stderr.
    ///
    /// # Errors
    /// When none answers.
    pub(in crate::cli) async fn ask_those_that_answer<T, F>(
        &self,
        question: impl Fn(Client) -> F,
    ) -> Result<Vec<(Client, T)>, Failure>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let (mut answers, mut failures) = (Vec::new(), Vec::new());
        for (client, answer) in self.ask(question).await {
            match answer {
                Ok(answer) => answers.push((client, answer)),
                Err(error) => failures.push(api_failure(&error)),
            }
        }
        if answers.is_empty() && !failures.is_empty() {
            return Err(failures.swap_remove(0));
        }
        for failure in failures {
            eprintln!("creel: note: {failure}");
        }
        Ok(answers)
    }
}

/// An answer, if it comes in time.
pub(super) async fn bounded<T>(
    client: &Client,
    answer: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    let bound = if is_of_a_run(client.path()) { RUN_BOUND } else { DAEMON_BOUND };
    timeout(bound, answer).await.unwrap_or_else(|_| {
        Err(ApiError::Lost(format!("{} does not answer within {bound:?}", client.path().display())))
    })
}

/// Who knows this machine.
///
/// # Errors
/// When nobody answers, or nobody knows it.
pub(in crate::cli) async fn find(
    context: &Context,
    socket: &SocketArg,
    id: &MachineId,
) -> Result<Client, Failure> {
    Everyone::reach(context, socket).await?.find(id).await
}

/// The sockets of this user's embedded runs. A directory that can't be trusted has none, and that is said.
fn run_sockets(run_dir: &Path) -> Vec<PathBuf> {
    if run_dir.symlink_metadata().is_err() {
        return Vec::new();
    }
    let sockets = RunDir::open(run_dir).and_then(|run_dir| run_dir.run_sockets());
    sockets.unwrap_or_else(|error| {
        eprintln!("creel: note: embedded runs are not looked for: {}", with_causes(&error));
        Vec::new()
    })
}

pub(in crate::cli) fn connect_failure(error: &ConnectError) -> Failure {
    Failure::host(error)
}

pub(in crate::cli) fn api_failure(error: &ApiError) -> Failure {
    let exit = match error {
        ApiError::NotFound(_) | ApiError::BadInput(_) | ApiError::Exists(_) => Exit::Usage,
        ApiError::Denied(_)
        | ApiError::Full(_)
        | ApiError::ShuttingDown(_)
        | ApiError::NotNow(_)
        | ApiError::Replaced(_)
        | ApiError::Unsupported(_) => Exit::HostCannot,
        ApiError::Setup(error) => (&error.failure).into(),
        ApiError::Lost(_) | ApiError::Source(_) | ApiError::Malformed(_) | ApiError::Internal(_) => {
            Exit::Broken
        }
    };
    Failure::new(exit, error.to_string())
}

/// An id as a person types it.
pub(in crate::cli) fn machine_id(text: &str) -> Result<MachineId, Failure> {
    MachineId::parse(text).ok_or_else(|| {
        Failure::usage(format!("`{text}` is no machine id; `creel ps` lists them, such as `k3v9w0x2ma`"))
    })
}
