//! `creel create`: a machine that lives until it is ended.

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::connect::{api_failure, connect};
use crate::api::{ApiError, Client, NewMachine, Progress};
use crate::cli::args::CreateArgs;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::render::{Screen, Style, summary};
use crate::cli::signals::cancel_on_signals;
use crate::exit::Exit;
use crate::machines::{Lifetime, Summary};
use crate::runtime::SetupEvent;

pub(in crate::cli) async fn create(context: &Context, arguments: CreateArgs) -> Result<Exit, Failure> {
    let cancel = CancellationToken::new();
    cancel_on_signals(cancel.clone())?;
    let client = connect(context, &arguments.socket).await?;
    let machine = NewMachine {
        image: arguments.image.unwrap_or_else(|| context.default_image().to_owned()),
        lifetime: Lifetime::Detached { max_age: arguments.max_age.map(Into::into) },
        memory_mib: arguments.memory_mib,
        vcpus: arguments.vcpus,
        memory_limit_mib: arguments.memory_limit_mib,
        setup_timeout: arguments.timeout.map(Into::into),
        workflow_id: None,
    };
    let screen = Screen::start(Style::Text).map_err(Failure::internal)?;
    let created = tokio::select! {
        created = follow(&client, machine, &screen) => created,
        // The call is dropped with its future, and creeld undoes what it has begun.
        () = cancel.cancelled() => Err(Failure::new(Exit::Cancelled, "cancelled")),
    };
    screen.flushed().await;
    let machine = created?;
    if arguments.json.json {
        println!(
            "{:#}",
            json!({ "id": machine.id.as_str(), "image": machine.image, "cid": machine.facts.cid })
        );
    } else {
        println!("{}", machine.id);
    }
    Ok(Exit::Success)
}

async fn follow(client: &Client, machine: NewMachine, screen: &Screen) -> Result<Summary, Failure> {
    const WHO: &str = "machine";
    let failed = |error: ApiError| {
        if let ApiError::Setup(error) = &error
            && let Some(tail) = &error.console_tail
        {
            for line in summary::console_block(tail) {
                screen.note(line);
            }
        }
        api_failure(&error)
    };
    let mut creating = client.create(machine, None).await.map_err(failed)?;
    loop {
        match creating.next().await {
            Ok(Some(Progress::Accepted(_) | Progress::Setup(SetupEvent::Finished(..)))) => {}
            Ok(Some(Progress::Setup(SetupEvent::Started(phase)))) => screen.busy(WHO, phase.label()),
            Ok(Some(Progress::Setup(SetupEvent::Notice(text)))) => screen.note(format!("note: {text}")),
            Ok(Some(Progress::Ready(machine))) => {
                screen.still(WHO);
                return Ok(machine);
            }
            Ok(Some(Progress::Ended(_)) | None) => {
                screen.still(WHO);
                return Err(Failure::internal("creeld ended the setup without saying how"));
            }
            Err(error) => {
                screen.still(WHO);
                return Err(failed(error));
            }
        }
    }
}
