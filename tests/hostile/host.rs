//! A machine's task in small: greets an agent, keeps the door, and writes down what it hears.

use std::sync::Arc;
use std::time::Duration;

use creel::agent::{
    Greeted, InitParameters, NewcomerError, Patience, Session, SessionEvent, StartError, handshake,
};
use creel::runtime::streams::{input, output};
use creel::runtime::{ExecRequest, ExecStreams, InputWriter, OutputReader, Work};
use creel::transport::Listener as _;
use creel::transport::memory::MemoryListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Far longer than anything takes.
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) struct Host {
    pub session: Arc<Session>,
    pub events: mpsc::UnboundedReceiver<SessionEvent>,
    pub refused: mpsc::UnboundedReceiver<NewcomerError>,
    keeping: tokio::task::JoinHandle<()>,
}

impl Host {
    /// Waits for the agent and agrees with it.
    pub(crate) async fn greet(mut listener: MemoryListener, patience: Patience) -> Self {
        let connection = listener.accept().await.unwrap();
        let greeted = handshake(connection, InitParameters::default(), SOON, patience).await.unwrap();
        let Greeted { session, events: mut heard, door } = greeted;
        let session = Arc::new(session);
        let (tell, events) = mpsc::unbounded_channel();
        let (refuse, refused) = mpsc::unbounded_channel();
        let kept = Arc::downgrade(&session);
        let keeping = tokio::spawn(async move {
            loop {
                tokio::select! {
                    event = heard.recv() => match event {
                        Some(event) => drop(tell.send(event)),
                        None => return,
                    },
                    connection = listener.accept(), if door.is_some() => {
                        let (Ok(connection), Some(door)) = (connection, &door) else { return };
                        match (door.admit(connection).await, kept.upgrade()) {
                            (Ok(proven), Some(session)) => drop(session.resume(proven)),
                            (Ok(_), None) => return,
                            (Err(why), _) => drop(refuse.send(why)),
                        }
                    }
                }
            }
        });
        Self { session, events, refused, keeping }
    }

    pub(crate) async fn event(&mut self) -> SessionEvent {
        timeout(SOON, self.events.recv()).await.expect("something happens").expect("the session lives")
    }

    /// Runs a program whose input is empty.
    pub(crate) fn run(&self, id: &str) -> OutputReader {
        self.try_run(id).unwrap()
    }

    pub(crate) fn try_run(&self, id: &str) -> Result<OutputReader, StartError> {
        let (output, reader) = output();
        self.begin(id, ExecStreams { input: None, output }).map(|()| reader)
    }

    pub(crate) fn run_with_input(&self, id: &str) -> (InputWriter, OutputReader) {
        let ((writer, input), (output, reader)) = (input(), output());
        self.begin(id, ExecStreams { input: Some(input), output }).unwrap();
        (writer, reader)
    }

    pub(crate) fn begin(&self, id: &str, streams: ExecStreams) -> Result<(), StartError> {
        let work = Work::Program {
            argv: vec!["program".into()],
            env: Vec::new(),
            cwd: "/".into(),
            user: "u".into(),
            terminal: None,
        };
        self.session.begin(ExecRequest { id: id.into(), work, deadline: None }, streams)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}
