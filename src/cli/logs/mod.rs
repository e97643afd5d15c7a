//! `creel logs`: what the steps of a run have written, of one that goes on or has ended.
//!
//! [`find`] knows which run is meant, [`show`] writes its log as it comes.

mod find;
mod show;

use find::{Found, find};
use show::{Filter, Writer, write_stream};

use super::args::{LogsArgs, StreamArg};
use super::context::Context;
use super::failure::{Failure, with_causes};
use super::machines;
use crate::exit::Exit;
use crate::state::log::{Stream, StreamOffset};

/// `creel logs`.
///
/// # Errors
/// When no run is meant, or its log can't be read.
pub(super) async fn logs(context: &Context, arguments: &LogsArgs) -> Result<Exit, Failure> {
    if let (true, Some(id)) = (arguments.console, &arguments.id) {
        let id = machines::machine_id(id)?;
        let client = machines::find(context, &arguments.socket, &id).await?;
        return machines::console(&client, &id, arguments.follow).await;
    }
    let records = context.records();
    let listed = records.list_all().map_err(|error| Failure::host(with_causes(&error)))?;
    let Found { id, record, damage } = find(&listed, arguments.id.as_deref())?;
    if let Some(damage) = damage {
        eprintln!("note: {damage}; its log is shown without the names of its steps");
    }
    let names: Vec<String> =
        record.iter().flat_map(|record| &record.steps).map(|step| step.name.clone()).collect();
    let filter = match &arguments.step {
        Some(step) => Filter::of(step, &names)?,
        None => Filter::All,
    };
    let log = records
        .follow(&id, arguments.from, arguments.follow)
        .map_err(|error| Failure::host(with_causes(&error)))?;
    let stream = match (filter, arguments.stream, arguments.offset) {
        (Filter::All, ..) | (_, None, None) => None,
        (Filter::Step(step), stream, offset) => {
            Some((step, Stream::from(stream.unwrap_or_default()), offset.unwrap_or(0)))
        }
    };
    let written = match stream {
        Some((step, stream, offset)) => {
            write_stream(log.of_stream(step, stream, StreamOffset::Stored(offset))).await
        }
        None => Writer::new(arguments.json, names, filter).write(log).await,
    };
    match written {
        Ok(()) => {}
        // `creel logs | head`.
        Err(show::WriteError::Nobody) => return Ok(Exit::Success),
        Err(show::WriteError::Failed(text)) => return Err(Failure::new(Exit::Broken, text)),
    }
    if !arguments.json && records.get(&id).is_some_and(|record| record.lost) {
        eprintln!("note: the run was lost: its creel ended while it ran");
    }
    Ok(Exit::Success)
}

impl From<StreamArg> for Stream {
    fn from(stream: StreamArg) -> Self {
        match stream {
            StreamArg::Stdout => Self::Stdout,
            StreamArg::Stderr => Self::Stderr,
        }
    }
}
