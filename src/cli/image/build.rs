//! `creel image build`: the builders, and how their progress is shown.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio_util::sync::CancellationToken;

use crate::cli::args::{BuildCommand, DebianArgs, TinyArgs};
use crate::cli::context::Context;
use crate::cli::failure::{Failure, with_causes};
use crate::cli::signals::cancel_on_signals;
use crate::exit::Exit;
use crate::image::{
    BuildError, BuildEvent, Built, DebianError, DebianOptions, TinyOptions, build_debian, build_tiny,
};

/// How often the spinner moves.
const TICK: Duration = Duration::from_millis(100);

pub(super) async fn build(context: &Context, command: BuildCommand) -> Result<Exit, Failure> {
    let built = match command {
        BuildCommand::Tiny(arguments) => tiny(context, arguments),
        BuildCommand::Debian(arguments) => debian(context, arguments).await,
    }?;
    let how = if built.cached { "was built before" } else { "built" };
    let digest = built.image.digest.as_deref().unwrap_or("unknown");
    eprintln!("image {} {how} in {:.2}s", built.image.name, built.elapsed.as_secs_f64());
    println!("{digest}");
    Ok(Exit::Success)
}

fn tiny(context: &Context, arguments: TinyArgs) -> Result<Built, Failure> {
    let kit = context.kit().map_err(|error| Failure::host(with_causes(&error)))?;
    let options = TinyOptions {
        name: arguments.name,
        memory_mib: arguments.memory_mib,
        volume_size_mib: arguments.workspace_mib.into(),
        overlay: arguments.overlay,
        init: arguments.init,
        ..TinyOptions::default()
    };
    build_tiny(&kit, context.images(), &options, &mut |event| eprintln!("  {event}"))
        .map_err(|error| failure(&error))
}

async fn debian(context: &Context, arguments: DebianArgs) -> Result<Built, Failure> {
    let kit = context.kit().map_err(|error| Failure::host(with_causes(&error)))?;
    let options = DebianOptions {
        name: arguments.name,
        suite: arguments.suite,
        mirror: arguments.mirror,
        packages: arguments.include,
        minimal: arguments.minimal,
        memory_mib: arguments.memory_mib,
        vcpus: arguments.vcpus,
        volume_size_mib: arguments.workspace_mib.into(),
    };
    let cancelled = CancellationToken::new();
    cancel_on_signals(cancelled.clone())?;
    let mut shown = Shown::start();
    let built =
        build_debian(&kit, context.images(), &options, &cancelled, &mut |event| shown.event(&event)).await;
    shown.end();
    built.map_err(|error| failure(&error))
}

fn failure(error: &BuildError) -> Failure {
    let exit = match error {
        BuildError::Option { .. } => Exit::Usage,
        BuildError::Debian(DebianError::Cancelled) => Exit::Cancelled,
        BuildError::Debian(error) if error.is_usage() => Exit::Usage,
        _ => Exit::HostCannot,
    };
    Failure::new(exit, with_causes(error))
}

/// A long build: a line for each step, and on a terminal what goes on in it.
struct Shown {
    bar: Option<ProgressBar>,
}

impl Shown {
    fn start() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.set_style(spinner());
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { bar }
    }

    fn event(&mut self, event: &BuildEvent) {
        match (&self.bar, event) {
            (None, BuildEvent::Package { .. }) => {}
            (None, event) => eprintln!("  {event}"),
            (Some(bar), BuildEvent::Package { name, done, total }) => {
                bar.set_style(counter());
                bar.set_length(*total as u64);
                bar.set_position(*done as u64);
                bar.set_message(name.clone());
            }
            (Some(bar), event) => {
                bar.println(format!("  {event}"));
                bar.set_message(event.to_string());
                if !matches!(event, BuildEvent::Installing { .. }) {
                    bar.set_style(spinner());
                }
            }
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("  {spinner} {msg} ({elapsed})")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn counter() -> ProgressStyle {
    ProgressStyle::with_template("  {spinner} {pos}/{len} {bar:30} {msg} ({elapsed})")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
