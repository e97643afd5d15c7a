//! `creel run` from its flags to its exit code.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::place::{Place, place};
use super::prepare::Shared;
use super::runs::Runs;
use super::serving::Serving;
use super::{inputs, select};
use crate::cli::args::RunArgs;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::render::{Screen, Style};
use crate::cli::signals;
use crate::exit::Exit;
use crate::runtime::Runtime;
use crate::workflow::Job;
use crate::workflow::source::{Repository, Tree};

/// How long a reader that holds its terminal or pipe is waited for once the run was told to end.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// `creel run`.
///
/// # Errors
/// When nothing could be run; a workflow that fails is not an error but an exit code.
pub async fn run(context: &Context, arguments: RunArgs) -> Result<Exit, Failure> {
    let limit = arguments.timeout.map_or_else(|| context.workflow_timeout(), Into::into);
    let deadline = Instant::now() + limit;
    let keep_failed = arguments.keep.then(|| arguments.keep_for.into());
    let cancel = CancellationToken::new();
    signals::cancel_on_signals(cancel.clone())?;
    let style = if arguments.json { Style::Json } else { Style::Text };
    let screen = Arc::new(Screen::start(style).map_err(Failure::internal)?);

    let mut served = None;
    let exit = async {
        let prepared = tokio::select! {
            prepared = prepare(context, arguments, &screen, deadline) => prepared?,
            () = sleep_until(deadline) => {
                return Err(Failure::new(Exit::TimedOut, "timed out before a machine was set up"));
            }
            () = cancel.cancelled() => return Err(Failure::new(Exit::Cancelled, "cancelled")),
        };
        let Prepared { jobs, runtime, secrets, serving } = prepared;
        served = serving;
        let labelled = jobs.len() > 1;
        let runs = Runs {
            context,
            screen: &screen,
            secrets: &secrets,
            runtime,
            cancel: cancel.clone(),
            labelled,
            keep_failed,
        };
        runs.all(jobs).await
    }
    .await;
    let flushed = async {
        match exit {
            // Whoever interrupts waits for nobody who doesn't read.
            Ok(Exit::TimedOut | Exit::Cancelled) => drop(timeout(LAST_WORDS, screen.flushed()).await),
            _ => tokio::select! {
                () = screen.flushed() => {}
                () = cancel.cancelled() => drop(timeout(LAST_WORDS, screen.flushed()).await),
            },
        }
    };
    let answered = async {
        if let Some(serving) = served {
            serving.end().await;
        }
    };
    tokio::join!(flushed, answered);
    exit
}

/// What is ready to run.
struct Prepared {
    jobs: Vec<Job>,
    runtime: Arc<dyn Runtime>,
    secrets: Vec<(String, crate::engine::Secret)>,
    serving: Option<Serving>,
}

async fn prepare(
    context: &Context,
    arguments: RunArgs,
    screen: &Screen,
    deadline: Instant,
) -> Result<Prepared, Failure> {
    let Place { runtime, images, serving } = place(context, &arguments, screen).await?;
    let scratch = context.scratch()?.to_owned();
    let default_image = context.default_image().to_owned();
    // git, a large tree and a slow disk take their time: not on a thread that others need.
    let planning = tokio::task::spawn_blocking(move || {
        let secrets = inputs::secrets(&arguments.secret)?;
        crate::engine::check_secrets(&secrets).map_err(|error| Failure::usage(error.to_string()))?;
        let environment = inputs::pairs("--env", &arguments.env)?;
        let here = std::env::current_dir()
            .map_err(|error| Failure::usage(format!("failed to find the current directory: {error}")))?;
        let repository = Repository::discover(&here);
        let found = repository.as_ref().ok();
        let trigger = inputs::trigger(&arguments, found)?;
        let selection = select::select(&arguments, found.map(|found| found.root.as_path()), &trigger)?;
        if selection.selected.is_empty() {
            let mut text =
                "no workflow matches this event; name one to run it whatever its `when` says".to_owned();
            for reason in &selection.left_out {
                text.push_str(&format!("\n  {reason}"));
            }
            return Err(Failure::usage(text));
        }
        let shared = Shared {
            trigger: &trigger,
            repository: repository.as_ref(),
            tree: if arguments.dirty { Tree::Work } else { Tree::Head },
            environment: &environment,
            image: arguments.image.as_deref(),
            default_image: &default_image,
            images: &images,
            scratch: &scratch,
            deadline,
        };
        let jobs: Result<Vec<Job>, Failure> =
            selection.selected.into_iter().map(|selected| shared.job(selected)).collect();
        Ok((jobs?, selection.left_out, secrets))
    });
    let (jobs, left_out, secrets) = planning.await.map_err(Failure::internal)??;
    for reason in left_out {
        screen.note(format!("not run: {reason}"));
    }
    runtime.info().await.usable.map_err(Failure::host)?;
    Ok(Prepared { jobs, runtime, secrets, serving })
}
