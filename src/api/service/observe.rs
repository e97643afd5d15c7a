//! `Inspect`, `Stats`, `Console` and `Events`: looking at machines.
//!
//! What goes on is made when the caller reads it, so a slow one costs a message's room and holds up nobody. It ends with
//! its caller or with the server.

use std::time::{Duration, SystemTime};

use creel_proto::v1 as wire;
use futures_util::stream::unfold;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use super::{Events, MachinesService, blocking, place};
use crate::api::convert::{machine_id, since_epoch_us};
use crate::api::gate::CallPlace;
use crate::api::status;
use crate::machines::{ConsoleReader, EventReader, Machines, State};
use crate::runtime::MachineId;

/// A console's end that comes with an inspection.
const MAX_CONSOLE_BYTES: u32 = 64 << 10;

/// Each message reads a dozen files a machine.
const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

/// What a call that goes on works with.
pub(super) struct Watching {
    machines: Machines,
    shutdown: CancellationToken,
    _place: CallPlace,
}

impl Watching {
    pub(super) fn new<T>(service: &MachinesService, request: &Request<T>) -> Result<Self, Status> {
        let (machines, shutdown) = (service.machines.clone(), service.shutdown.clone());
        Ok(Self { machines, shutdown, _place: place(request)? })
    }

    fn check_known(&self, id: &MachineId) -> Result<(), Status> {
        if self.machines.knows(id) { Ok(()) } else { Err(unknown(id)) }
    }
}

pub(super) async fn inspect(
    machines: &Machines,
    request: wire::InspectRequest,
) -> Result<wire::InspectResponse, Status> {
    let wire::InspectRequest { machine_id: id, console_bytes } = request;
    let id = machine_id(&id).map_err(status::malformed)?;
    if let Some(bytes) = console_bytes.filter(|bytes| *bytes > MAX_CONSOLE_BYTES) {
        let text = format!("`console_bytes` is {bytes}, more than the {MAX_CONSOLE_BYTES} that it may be");
        return Err(Status::invalid_argument(text));
    }
    let bytes = console_bytes.map(|bytes| bytes as usize);
    let machines = machines.clone();
    let (inspection, id) = blocking(move || (machines.inspect(&id, bytes), id)).await?;
    inspection.map(Into::into).ok_or_else(|| unknown(&id))
}

/// One message, or one each interval.
struct Stats {
    watching: Watching,
    /// `None`: all that live.
    named: Option<Vec<MachineId>>,
    interval: Option<Duration>,
    /// When the next message is made; `None`: there is none.
    next: Option<Instant>,
}

pub(super) fn stats(
    watching: Watching,
    request: wire::StatsRequest,
) -> Result<Events<wire::StatsResponse>, Status> {
    let ids = request.machine_ids.iter().map(|id| machine_id(id)).collect::<Result<Vec<_>, _>>();
    let ids = ids.map_err(status::malformed)?;
    ids.iter().try_for_each(|id| watching.check_known(id))?;
    let interval = request.interval_us.map(Duration::from_micros);
    if let Some(interval) = interval.filter(|interval| !INTERVALS.contains(interval)) {
        return Err(Status::invalid_argument(format!(
            "`interval_us` is {}; it may be {} at least and {} at most",
            interval.as_micros(),
            INTERVALS.start().as_micros(),
            INTERVALS.end().as_micros()
        )));
    }
    let named = Some(ids).filter(|ids| !ids.is_empty());
    let stats = Stats { watching, named, interval, next: Some(Instant::now()) };
    Ok(Box::pin(unfold(stats, |mut stats| async {
        let message = stats.next().await?;
        Some((message, stats))
    })))
}

impl Stats {
    async fn next(&mut self) -> Option<Result<wire::StatsResponse, Status>> {
        let at = self.next?;
        tokio::select! {
            () = sleep_until(at) => {}
            () = self.watching.shutdown.cancelled() => return None,
        }
        let (machines, named) = (self.watching.machines.clone(), self.named.clone());
        let read = blocking(move || match &named {
            Some(ids) => machines.stats_of(ids),
            None => machines.stats(),
        });
        let stats = match read.await {
            Ok(stats) => stats,
            Err(status) => {
                self.next = None;
                return Some(Err(status));
            }
        };
        // From now, not from when it was due: a caller that did not read gets no burst.
        self.next = self.interval.map(|interval| Instant::now() + interval);
        if self.named.is_some() && stats.iter().all(|machine| machine.state == State::Ended) {
            self.next = None;
        }
        let machines = stats.into_iter().map(Into::into).collect();
        Some(Ok(wire::StatsResponse { at_us: since_epoch_us(SystemTime::now()), machines }))
    }
}

/// A console is opened by the first read, since one that is followed may have to be waited for.
struct Console {
    watching: Watching,
    id: MachineId,
    follow: bool,
    reader: Option<ConsoleReader>,
    over: bool,
}

pub(super) async fn console(
    watching: Watching,
    request: wire::ConsoleRequest,
) -> Result<Events<wire::ConsoleChunk>, Status> {
    let wire::ConsoleRequest { machine_id: id, follow } = request;
    let id = machine_id(&id).map_err(status::malformed)?;
    watching.check_known(&id)?;
    let mut console = Console { watching, id, follow, reader: None, over: false };
    if !follow {
        console.open().await?;
    }
    Ok(Box::pin(unfold(console, |mut console| async {
        if console.over {
            return None;
        }
        let shutdown = console.watching.shutdown.clone();
        let chunk = tokio::select! {
            // Of a machine that ends with the server, the last words come first.
            biased;
            chunk = console.next() => chunk.transpose()?,
            () = shutdown.cancelled() => return None,
        };
        console.over = chunk.is_err();
        Some((chunk, console))
    })))
}

impl Console {
    async fn open(&mut self) -> Result<&mut ConsoleReader, Status> {
        if self.reader.is_none() {
            let reader = self.watching.machines.console(&self.id, self.follow).await;
            self.reader = Some(reader.map_err(|error| status::console_failed(&error))?);
        }
        self.reader.as_mut().ok_or_else(|| status::internal("the console was not opened"))
    }

    async fn next(&mut self) -> Result<Option<wire::ConsoleChunk>, Status> {
        let chunk = self.open().await?.next().await;
        chunk.map(|chunk| chunk.map(Into::into)).map_err(status::internal)
    }
}

pub(super) fn events(
    watching: Watching,
    request: wire::EventsRequest,
) -> Result<Events<wire::EventsResponse>, Status> {
    let wire::EventsRequest { follow, since } = request;
    let reader = watching.machines.events(since).map_err(|error| Status::out_of_range(error.to_string()))?;
    Ok(Box::pin(unfold(
        (watching, reader),
        move |(watching, mut reader): (Watching, EventReader)| async move {
            let next = if follow {
                tokio::select! {
                    // The ends of the last machines come before the server's.
                    biased;
                    next = reader.next() => next,
                    () = watching.shutdown.cancelled() => return None,
                }
            } else {
                reader.now()?
            };
            Some((Ok(next.into()), (watching, reader)))
        },
    )))
}

fn unknown(id: &MachineId) -> Status {
    Status::not_found(crate::machines::ExecError::Unknown(id.clone()).to_string())
}
