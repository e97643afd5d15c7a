//! `Create`: from the first message to the end of the call, which may be the end of the machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use creel_proto::v1 as wire;
use creel_proto::v1::create_event::Event;
use futures_util::StreamExt;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{Events, MachinesService, check_name, source};
use crate::api::connection::Caller;
use crate::api::convert::machine_id;
use crate::api::gate::CallPlace;
use crate::api::status;
use crate::api::turns::Turns;
use crate::engine::WORK_DIR;
use crate::machines::{Asker, CreateError, Creation, Lifetime, Machines};
use crate::runtime::{
    MachineId, Outcome, Phase, SetupError, SetupEvents, SetupFailure, SetupRequest, Tenant,
};

/// Events that wait for a caller who does not read.
const EVENT_QUEUE: usize = 16;

/// How long a source archive may take to arrive, the wait for its turn included, where the caller sets no limit.
const UPLOAD_BOUND: Duration = Duration::from_secs(15 * 60);

type Sender = mpsc::Sender<Result<wire::CreateEvent, Status>>;

/// A checked call.
#[derive(Debug)]
pub(super) struct Create {
    creation: Creation,
    has_source: bool,
    caller: Caller,
}

/// What a call works with, beside what was asked.
#[derive(Debug)]
struct Call {
    machines: Machines,
    scratch: PathBuf,
    uploads: Arc<Turns>,
    events: Sender,
    /// Triggered when the call ends, whoever ends it.
    over: CancellationToken,
}

impl Create {
    pub(super) fn new(start: wire::CreateStart, caller: Caller) -> Result<Self, Status> {
        let lifetime = match start.lifetime() {
            wire::Lifetime::Attached => Lifetime::Attached,
            wire::Lifetime::Detached | wire::Lifetime::Unspecified => {
                Lifetime::Detached { max_age: start.max_age_us.map(Duration::from_micros) }
            }
        };
        if wire::Lifetime::try_from(start.lifetime).is_err() {
            return Err(Status::invalid_argument(format!(
                "`lifetime` has the unknown value {}",
                start.lifetime
            )));
        }
        if lifetime == Lifetime::Attached && start.max_age_us.is_some() {
            return Err(Status::invalid_argument("`max_age_us` is for detached machines"));
        }
        let sizes = [
            ("memory_mib", start.memory_mib),
            ("vcpus", start.vcpus),
            ("memory_limit_mib", start.memory_limit_mib),
        ];
        if let Some((field, _)) = sizes.iter().find(|(_, size)| *size == Some(0)) {
            return Err(Status::invalid_argument(format!(
                "`{field}` is 0; leave it out for what the image asks for"
            )));
        }
        let creator_uid = caller.credentials.uid;
        if lifetime == Lifetime::Attached && start.machine_id.is_some() {
            return Err(Status::invalid_argument("`machine_id` is for detached machines"));
        }
        let fingerprint = start.machine_id.is_some().then(|| Sha256::digest(start.encode_to_vec()).into());
        let id = match &start.machine_id {
            Some(chosen) => machine_id(chosen).map_err(status::malformed)?,
            None => MachineId::random().map_err(status::internal)?,
        };
        let workflow_id = start.workflow_id.unwrap_or_else(|| id.to_string());
        check_name(&workflow_id, "workflow_id")?;
        check_name(&start.image, "image")?;
        // What the clock can't express is no limit.
        let deadline =
            start.setup_timeout_us.and_then(|limit| Instant::now().checked_add(Duration::from_micros(limit)));
        let request = SetupRequest {
            id,
            tenant: Tenant::local(creator_uid),
            workflow_id,
            image: start.image,
            work_dir: WORK_DIR.to_owned(),
            source: None,
            labels: BTreeMap::new(),
            architecture: None,
            memory_mib: start.memory_mib,
            vcpus: start.vcpus,
            memory_limit_mib: start.memory_limit_mib,
            batch: Vec::new(),
            deadline,
            ledger: None,
        };
        Ok(Self {
            creation: Creation { request, creator_uid, lifetime, fingerprint },
            has_source: start.has_source,
            caller,
        })
    }

    /// The events of the call. When they are dropped, because the caller cancelled or its connection closed, everything
    /// that the call holds ends.
    pub(super) fn run(
        self,
        service: &MachinesService,
        messages: Streaming<wire::CreateRequest>,
        place: CallPlace,
    ) -> Events<wire::CreateEvent> {
        let (events, queue) = mpsc::channel(EVENT_QUEUE);
        let over = CancellationToken::new();
        let call = Call {
            machines: service.machines.clone(),
            scratch: service.scratch.clone(),
            uploads: Arc::clone(&service.uploads),
            events,
            over: over.clone(),
        };
        tokio::spawn(call.run(self, messages));
        let guard = over.drop_guard();
        Box::pin(ReceiverStream::new(queue).inspect(move |_| {
            // Lives as long as the stream.
            let _ = (&guard, &place);
        }))
    }
}

impl Call {
    async fn run(self, create: Create, messages: Streaming<wire::CreateRequest>) {
        let over = self.over.clone();
        let events = self.events.clone();
        let result = tokio::select! {
            result = self.create(create, messages) => result,
            // Dropping a creation cancels it; an attached machine has the same token.
            () = over.cancelled() => return,
        };
        if let Err(status) = result {
            let _ = events.send(Err(status)).await;
        }
    }

    async fn create(&self, create: Create, messages: Streaming<wire::CreateRequest>) -> Result<(), Status> {
        let Create { mut creation, has_source, caller } = create;
        let (asker, asked) = (creation.asker(), creation.request.id.clone());
        if asker.fingerprint.is_some() && self.created(&asked, asker).await? {
            return Ok(());
        }
        // The decoder's room for messages goes with them, as the call may last as long as the machine.
        if has_source {
            let source = self.receive(messages, &caller, creation.request.deadline).await?;
            creation.request.source = Some(source);
        } else {
            drop(messages);
        }
        let (id, lifetime) = (creation.request.id.clone(), creation.lifetime);
        let (setup_events, mut queue) = SetupEvents::new();
        self.say(Event::Accepted(wire::CreateAccepted { machine_id: id.to_string() })).await;
        let forward = async {
            while let Some(event) = queue.recv().await {
                self.say(event.into()).await;
            }
        };
        let create = self.machines.create(creation, setup_events, self.over.clone());
        // The setup's sender of events goes with it, so both end.
        let (created, ()) = tokio::join!(create, forward);
        match created {
            Ok(machine) => self.say(Event::Ready(machine.into())).await,
            // By a call that came in between.
            Err(CreateError::Exists(id)) if asker.fingerprint.is_some() => {
                return match self.created(&id, asker).await? {
                    true => Ok(()),
                    false => Err(status::create_failed(&CreateError::Exists(id))),
                };
            }
            Err(error) => {
                if let CreateError::Setup(error) = &error {
                    self.say(Event::Failed(error.clone().into())).await;
                }
                return Err(status::create_failed(&error));
            }
        }
        if lifetime == Lifetime::Attached
            && let Some(ended) = self.machines.ended(&id).await
        {
            self.say(Event::Ended(ended.into())).await;
        }
        Ok(())
    }

    /// Tells of the machine that was asked for already; `false`: there is none.
    async fn created(&self, id: &MachineId, asker: Asker) -> Result<bool, Status> {
        let created = self.machines.created(id, asker).await;
        let Some(machine) = created.map_err(|error| status::create_failed(&error))? else { return Ok(false) };
        self.say(Event::Accepted(wire::CreateAccepted { machine_id: id.to_string() })).await;
        self.say(Event::Ready(machine.into())).await;
        Ok(true)
    }

    /// The source archive, once it is this call's turn.
    async fn receive(
        &self,
        mut messages: Streaming<wire::CreateRequest>,
        caller: &Caller,
        deadline: Option<Instant>,
    ) -> Result<File, Status> {
        let bound = Instant::now() + UPLOAD_BOUND;
        let bound = deadline.map_or(bound, |deadline| deadline.min(bound));
        let receiving = async {
            let turn = self.uploads.take(caller.credentials.uid, caller.standing).await;
            let _turn = turn.map_err(status::internal)?;
            source::receive(&mut messages, &self.scratch).await
        };
        timeout_at(bound, receiving).await.unwrap_or_else(|_| {
            let late = SetupFailure::Ended(Outcome::TimedOut);
            Err(status::setup_failed(&SetupError::new(Phase::Prepare, late)))
        })
    }

    /// A caller that has gone away is noticed by [`Call::over`].
    async fn say(&self, event: Event) {
        let _ = self.events.send(Ok(wire::CreateEvent { event: Some(event) })).await;
    }
}
