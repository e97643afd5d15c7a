//! Runs jobs side by side and shows them.

use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::prepare::Shared;
use super::{inputs, select, signals};
use crate::cli::args::RunArgs;
use crate::cli::context::Context;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::render::{Screen, Style, WorkflowRenderer, summary};
use crate::engine::Secret;
use crate::runtime::Runtime;
use crate::state::log::{Limits, LogStore, Mask};
use crate::workflow::source::{Repository, Tree};
use crate::workflow::{Job, Report};

/// `creel run`.
///
/// # Errors
/// When nothing could be run; a workflow that fails is not an error but an exit code.
pub async fn run(context: &Context, arguments: RunArgs) -> Result<Exit, Failure> {
    let started = Instant::now();
    let cancel = CancellationToken::new();
    signals::cancel_on_signals(cancel.clone())?;
    let style = if arguments.json { Style::Json } else { Style::Text };
    let screen = Arc::new(Screen::new(style));

    let here = std::env::current_dir()
        .map_err(|error| Failure::usage(format!("failed to find the current directory: {error}")))?;
    let repository = Repository::discover(&here);
    let found = repository.as_ref().ok();
    let trigger = inputs::trigger(&arguments, found)?;
    let selection = select::select(&arguments, found.map(|found| found.root.as_path()), &trigger)?;
    for reason in &selection.left_out {
        screen.note(&format!("not run: {reason}"));
    }
    if selection.selected.is_empty() {
        return Err(Failure::usage(
            "no workflow matches this event; name one to run it whatever its `when` says",
        ));
    }
    let environment = inputs::pairs("--env", &arguments.env)?;
    let secrets = inputs::secrets(&arguments.secret)?;
    let runtime = context.runtime(&arguments.runtime).await?;
    let shared = Shared {
        trigger: &trigger,
        repository: found,
        tree: if arguments.dirty { Tree::Work } else { Tree::Head },
        environment: &environment,
        secrets: &secrets,
        image: arguments.image.as_deref(),
        default_image: context.default_image(),
        images: context.images(),
        scratch: context.scratch()?,
        timeout: arguments.timeout.map_or_else(|| context.workflow_timeout(), Into::into),
    };
    let jobs = selection
        .selected
        .into_iter()
        .map(|selected| shared.job(selected, started))
        .collect::<Result<Vec<Job>, Failure>>()
        // What git said is the better reason when a clone has nothing to clone.
        .map_err(|failure| match &repository {
            Err(error)
                if failure.exit == Exit::Usage && failure.to_string().contains("clones the repository") =>
            {
                Failure::usage(format!("{failure} ({error})"))
            }
            _ => failure,
        })?;
    let info = runtime.info().await;
    info.usable.map_err(Failure::host)?;

    let runs =
        Runs { context, screen: &screen, secrets: &secrets, runtime, cancel, labelled: jobs.len() > 1 };
    runs.all(jobs).await
}

struct Runs<'a> {
    context: &'a Context,
    screen: &'a Arc<Screen>,
    secrets: &'a [(String, Secret)],
    runtime: Arc<dyn Runtime>,
    cancel: CancellationToken,
    labelled: bool,
}

impl Runs<'_> {
    async fn all(&self, jobs: Vec<Job>) -> Result<Exit, Failure> {
        // Until there is a scheduler with budgets: one machine a CPU.
        let at_once = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let slots = Arc::new(Semaphore::new(at_once));
        let running = jobs.into_iter().map(|job| {
            let slots = Arc::clone(&slots);
            async move {
                // The semaphore is never closed; without a slot there would be no run.
                let _slot = slots.acquire().await.map_err(Failure::internal)?;
                self.one(job).await
            }
        });
        let reports = futures_util::future::try_join_all(running).await?;
        if self.screen.style() == Style::Text {
            for report in &reports {
                self.screen.note(&summary::text(report, self.screen));
            }
        }
        Ok(Exit::worst(reports.iter().map(Exit::from)))
    }

    async fn one(&self, job: Job) -> Result<Report, Failure> {
        let secrets: Vec<&[u8]> = self.secrets.iter().map(|(_, secret)| secret.expose().as_bytes()).collect();
        let mask = Mask::new(&secrets).map_err(|error| Failure::usage(error.to_string()))?;
        if mask.ignored() > 0 {
            self.screen.note("note: secrets of fewer than 3 bytes can't be masked in the output");
        }
        let limits = Limits::of_step(self.context.max_step_log_bytes());
        let log = LogStore::anonymous(self.context.scratch()?, limits, mask).map_err(Failure::host)?;
        let (events, event_queue) = mpsc::unbounded_channel();
        let names = job.plan.steps.iter().map(|step| step.name.clone()).collect();
        let mut renderer =
            WorkflowRenderer::new(Arc::clone(self.screen), job.plan.name.clone(), self.labelled, names);
        let follower = log.follow(0);
        let run = crate::workflow::run(&*self.runtime, job, &log, events, self.cancel.clone());
        let show = async {
            let shown = renderer.show(event_queue, follower).await;
            if shown.is_err() {
                // Nobody can see the output any more (a closed pipe, a full disk behind it).
                self.cancel.cancel();
            }
            shown
        };
        let (report, shown) = tokio::join!(run, show);
        if let Err(error) = shown {
            self.screen.note(&format!("failed to show the output: {error}"));
        }
        if self.screen.style() == Style::Json {
            let _ = self.screen.output(format!("{}\n", summary::json(&report)).as_bytes());
        }
        Ok(report)
    }
}
