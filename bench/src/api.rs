//! creel.v1 as a client of any language has it: the messages, and what the bench asks with them.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use creel_proto::v1 as wire;
use creel_proto::v1::machines_client::MachinesClient;
use creel_proto::v1::workflows_client::WorkflowsClient;
use creel_proto::v1::{
    create_event, create_request, exec_event, exec_request, exec_start, log_event, log_record, outcome,
};
use futures_util::{Stream, StreamExt as _, stream};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::row::{Failed, Trying as _};

/// What creeld may send before somebody reads it, as `creel` has it: of one call, and of all together.
const CALL_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// A message of output fits into one: each frame is a system call of creeld.
const FRAME_BYTES: u32 = 128 << 10;

/// The most that one message of input may carry.
const MAX_INPUT_BYTES: usize = 64 << 10;

/// How long the rest of an ended exec's input may take to be given up.
const LAST_INPUT: Duration = Duration::from_secs(5);

/// Messages of input that wait for the transport.
const INPUT_QUEUE: usize = 8;

/// A connection to a creeld. Clones share it.
#[derive(Debug, Clone)]
pub struct Api {
    machines: MachinesClient<Channel>,
    workflows: WorkflowsClient<Channel>,
}

/// A machine that takes execs.
#[derive(Debug, Clone)]
pub struct Machine {
    pub id: String,
    pub keeper_pid: Option<u32>,
}

/// What came of an exec.
#[derive(Debug, Default)]
pub struct Ended {
    pub stdout_bytes: u64,
    /// The first of it, for what is short.
    pub stdout: Vec<u8>,
}

/// How much of an exec's stdout is kept.
const KEPT_BYTES: usize = 4 << 10;

impl Api {
    /// # Errors
    /// Those of the socket.
    pub async fn connect(socket: &Path) -> Result<Self, Failed> {
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://creeld")
            .initial_stream_window_size(CALL_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES);
        let channel = endpoint.connect_with_connector(connector).await.trying("connect to creeld")?;
        Ok(Self { machines: MachinesClient::new(channel.clone()), workflows: WorkflowsClient::new(channel) })
    }

    /// Makes a machine and waits until it takes execs.
    ///
    /// # Errors
    /// What creeld says.
    pub async fn create(&self, image: &str) -> Result<Machine, Failed> {
        let start = wire::CreateStart {
            image: image.to_owned(),
            lifetime: wire::Lifetime::Detached.into(),
            ..wire::CreateStart::default()
        };
        let start = wire::CreateRequest { message: Some(create_request::Message::Start(start)) };
        let mut events = self
            .machines
            .clone()
            .create(stream::iter([start]))
            .await
            .trying("create a machine")?
            .into_inner();
        while let Some(event) = events.message().await.trying("create a machine")? {
            if let Some(create_event::Event::Ready(machine)) = event.event {
                return Ok(Machine { id: machine.id, keeper_pid: machine.keeper_pid });
            }
        }
        Err(Failed::new("creeld ended the creation of a machine without a machine"))
    }

    /// Ends a machine at once.
    ///
    /// # Errors
    /// What could not be freed.
    pub async fn destroy(&self, machine: &Machine) -> Result<(), Failed> {
        let request = wire::DestroyRequest { machine_id: machine.id.clone(), kill: true };
        self.machines.clone().destroy(request).await.trying("destroy a machine")?;
        Ok(())
    }

    /// Runs a program to its successful end.
    ///
    /// # Errors
    /// Any other end.
    pub async fn exec(&self, machine: &Machine, argv: &[&str]) -> Result<Ended, Failed> {
        let (ended, nothing) = self.run(machine, argv, None::<stream::Empty<Bytes>>).await?;
        debug_assert!(nothing);
        Ok(ended)
    }

    /// The same, with `input` as its stdin.
    ///
    /// # Errors
    /// Any other end, and input that was not wanted.
    pub async fn exec_with_input(
        &self,
        machine: &Machine,
        argv: &[&str],
        input: impl Stream<Item = Bytes> + Send + Unpin + 'static,
    ) -> Result<Ended, Failed> {
        match self.run(machine, argv, Some(input)).await? {
            (ended, true) => Ok(ended),
            (_, false) => Err(Failed::new("the program ended before its input did")),
        }
    }

    /// A program that has said something, of which nothing more is read. It ends with what is returned.
    ///
    /// # Errors
    /// When it says nothing.
    pub async fn unread(&self, machine: &Machine, argv: &[&str]) -> Result<impl Send + use<>, Failed> {
        let program = wire::Program {
            argv: argv.iter().map(ToString::to_string).collect(),
            ..wire::Program::default()
        };
        let start = wire::ExecStart {
            machine_id: machine.id.clone(),
            work: Some(exec_start::Work::Program(program)),
            ..wire::ExecStart::default()
        };
        let (sender, requests) = mpsc::channel(1);
        // There is room: it is the first.
        let _ = sender.try_send(wire::ExecRequest { message: Some(exec_request::Message::Start(start)) });
        let requests = ReceiverStream::new(requests);
        let mut events = self.machines.clone().exec(requests).await.trying("start an exec")?.into_inner();
        while let Some(event) = events.message().await.trying("follow an exec")? {
            if let Some(exec_event::Event::Output(_)) = event.event {
                return Ok((events, sender));
            }
        }
        Err(Failed::new("creeld ended an exec that said nothing"))
    }

    /// The end, and whether all input was taken.
    async fn run(
        &self,
        machine: &Machine,
        argv: &[&str],
        input: Option<impl Stream<Item = Bytes> + Send + Unpin + 'static>,
    ) -> Result<(Ended, bool), Failed> {
        let program = wire::Program {
            argv: argv.iter().map(ToString::to_string).collect(),
            ..wire::Program::default()
        };
        let start = wire::ExecStart {
            machine_id: machine.id.clone(),
            work: Some(exec_start::Work::Program(program)),
            input: input.is_some(),
            ..wire::ExecStart::default()
        };
        let message = |message| wire::ExecRequest { message: Some(message) };
        let (sender, requests) = mpsc::channel(INPUT_QUEUE);
        // There is room: it is the first.
        let _ = sender.try_send(message(exec_request::Message::Start(start)));
        let mut waiting = input.map(|input| (input, sender));
        let requests = ReceiverStream::new(requests);
        let mut events = self.machines.clone().exec(requests).await.trying("start an exec")?.into_inner();
        let mut ended = Ended::default();
        let mut feeding = None;
        while let Some(event) = events.message().await.trying("follow an exec")? {
            match event.event {
                Some(exec_event::Event::Attached(attached)) => {
                    if let Some((input, sender)) = waiting.take() {
                        feeding = Some(tokio::spawn(feed(input, sender, attached.input_offset)));
                    }
                }
                Some(exec_event::Event::Output(output)) => {
                    if output.stream == i32::from(wire::Stream::Stdout) {
                        ended.stdout_bytes += output.data.len() as u64;
                        let kept = KEPT_BYTES.saturating_sub(ended.stdout.len()).min(output.data.len());
                        ended.stdout.extend_from_slice(&output.data[..kept]);
                    }
                }
                Some(exec_event::Event::Verdict(verdict)) => {
                    successful(verdict)?;
                    let all = match feeding {
                        // A call that is over takes nothing more, so this ends.
                        Some(feeding) => match timeout(LAST_INPUT, feeding).await {
                            Ok(fed) => fed.trying("feed an exec")?,
                            Err(_) => false,
                        },
                        None => waiting.is_none(),
                    };
                    return Ok((ended, all));
                }
                Some(exec_event::Event::InputWritten(_)) | None => {}
            }
        }
        Err(Failed::new("creeld ended an exec without a verdict"))
    }

    /// Takes a workflow of one step to where that step can be run.
    ///
    /// # Errors
    /// What creeld says.
    pub async fn workflow(&self, id: &str, image: &str, command: &str) -> Result<Workflow, Failed> {
        let tenant = wire::WorkflowTenant { owner: "did:plc:bench".into(), repo_did: "did:plc:repo".into() };
        let key = wire::WorkflowKey { tenant: Some(tenant), workflow_id: id.to_owned() };
        let manifest = format!(
            "engine: microvm\nimage: {image}\nwhen:\n  - event: manual\nclone:\n  skip: true\nsteps:\n  - name: write\n    \
             command: {}\n",
            serde_json::Value::from(command)
        );
        let request = wire::InitRequest {
            workflow: Some(key.clone()),
            file_name: "bench.yml".into(),
            manifest,
            trigger: Some(wire::Trigger {
                kind: Some(wire::trigger::Kind::Manual(wire::ManualTrigger::default())),
                repository: Some(wire::TriggerRepository {
                    knot: "knot.example".into(),
                    did: "did:plc:bench".into(),
                    repo_did: "did:plc:repo".into(),
                    name: "bench".into(),
                    default_branch: "main".into(),
                    url: String::new(),
                }),
            }),
            ..wire::InitRequest::default()
        };
        let mut client = self.workflows.clone();
        let planned = client.init(request).await.trying("plan a workflow")?.into_inner();
        let steps = planned.workflow.map(|workflow| workflow.steps).unwrap_or_default();
        if steps.len() != 1 {
            return Err(Failed::new(format!("the workflow has {} steps instead of one", steps.len())));
        }
        let request = wire::WorkflowSetupRequest { workflow: Some(key.clone()) };
        let mut events = client.setup(request).await.trying("set a workflow up")?.into_inner();
        while events.message().await.trying("set a workflow up")?.is_some() {}
        Ok(Workflow { client, key })
    }
}

/// A workflow whose one step is to be run.
#[derive(Debug)]
pub struct Workflow {
    client: WorkflowsClient<Channel>,
    key: wire::WorkflowKey,
}

impl Workflow {
    /// Runs the step with `secret` masked, and follows the log until all of the step's `bytes` have come. From the call to
    /// whichever comes last: the verdict or the last byte.
    ///
    /// # Errors
    /// When the step fails, or the log has lost something.
    pub async fn run_step(&self, secret: &str, bytes: u64) -> Result<Duration, Failed> {
        let workflow = Some(self.key.clone());
        let (mut runner, mut follower) = (self.client.clone(), self.client.clone());
        let secrets = vec![wire::Variable { name: "TOKEN".into(), value: secret.to_owned() }];
        let started = Instant::now();
        let run = async {
            let request = wire::RunStepRequest { workflow: workflow.clone(), step: 0, secrets };
            let answer = runner.run_step(request).await.trying("run a step")?.into_inner();
            successful(answer.verdict.unwrap_or_default())
        };
        let follow = async {
            let request =
                wire::LogsRequest { workflow: workflow.clone(), follow: true, ..Default::default() };
            let mut events = follower.logs(request).await.trying("follow a log")?.into_inner();
            let (mut seen, mut stored) = (0, 0);
            while seen < bytes {
                let event = events.message().await.trying("follow a log")?;
                match event.and_then(|event| event.event) {
                    Some(log_event::Event::Record(record)) => {
                        // What is masked has another length in the log; where it stood at its source is said beside it.
                        if let (Some(log_record::Payload::Data(data)), 0) = (record.payload, record.step) {
                            stored += data.data.len() as u64;
                            seen = data.raw_offset;
                        }
                    }
                    Some(log_event::Event::Expired(gap)) => {
                        return Err(Failed::new(format!("the log has given up {} bytes", gap.bytes)));
                    }
                    Some(other) => return Err(Failed::new(format!("records were asked for: {other:?}"))),
                    None => return Err(Failed::new(format!("the log ended after {seen} of {bytes} bytes"))),
                }
            }
            // A mask is shorter than the secret.
            if stored >= seen {
                return Err(Failed::new("nothing was masked"));
            }
            Ok(())
        };
        tokio::try_join!(run, follow)?;
        Ok(started.elapsed())
    }

    /// # Errors
    /// What could not be freed.
    pub async fn destroy(self) -> Result<(), Failed> {
        let request = wire::DestroyWorkflowRequest { workflow: Some(self.key) };
        self.client.clone().destroy(request).await.trying("destroy a workflow")?;
        Ok(())
    }
}

/// Whether all was taken.
async fn feed(
    mut input: impl Stream<Item = Bytes> + Unpin,
    sender: mpsc::Sender<wire::ExecRequest>,
    mut offset: u64,
) -> bool {
    while let Some(mut block) = input.next().await {
        while !block.is_empty() {
            let data = block.split_to(block.len().min(MAX_INPUT_BYTES));
            let length = data.len() as u64;
            let message = Some(exec_request::Message::Input(wire::ExecInput { offset, data }));
            if sender.send(wire::ExecRequest { message }).await.is_err() {
                return false;
            }
            offset += length;
        }
    }
    let message = Some(exec_request::Message::CloseInput(wire::CloseInput {}));
    sender.send(wire::ExecRequest { message }).await.is_ok()
}

fn successful(verdict: wire::Verdict) -> Result<(), Failed> {
    match verdict.outcome.and_then(|outcome| outcome.outcome) {
        Some(outcome::Outcome::Exited(0)) => Ok(()),
        other => Err(Failed::new(format!("it ended as {other:?} ({})", verdict.detail.unwrap_or_default()))),
    }
}
