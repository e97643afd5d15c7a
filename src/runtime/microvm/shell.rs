//! Shells of one machine: a listener that only this machine can reach, the guest asked to dial it, and a task that carries
//! the shell.
//!
//! The port is of the moment: nobody in the guest knows it before, and the first connection closes it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::driver::State;
use super::request::{Request, ShellAsked};
use crate::agent::ExecEnd;
use crate::agent::shell::{ShellEnd, carry};
use crate::runtime::{MAX_SHELLS, Outcome, SHELL_QUEUE, Shell, ShellError, ShellRequest, Usage, Verdict};
use crate::transport::hybrid::HybridListener;
use crate::transport::kernel::KernelListener;
use crate::transport::{Connection, Listener, Peer};

/// How long the guest may take to dial (upstream's limit).
const ACCEPT_BOUND: Duration = Duration::from_secs(15);

/// A connection that ends without the shell's end is most often a machine that ends: this long it may take until that is
/// known.
const MACHINE_END_BOUND: Duration = Duration::from_secs(3);

/// How a guest reaches the ports that are opened for it.
#[derive(Debug, Clone)]
pub(super) enum Ports {
    /// Sockets of this prefix, which its helper connects to.
    Hybrid { prefix: PathBuf, helper_uid: u32 },
    /// AF_VSOCK; the guest is known by its CID.
    Kernel { cid: u32 },
}

/// Opens a machine's shells.
#[derive(Debug)]
pub(super) struct Shells {
    ports: Ports,
    requests: mpsc::Sender<Request>,
    state: watch::Receiver<State>,
    places: Arc<Semaphore>,
    /// A refusal does not say of which shell it is.
    opening: Mutex<()>,
}

impl Shells {
    pub(super) fn new(ports: Ports, requests: mpsc::Sender<Request>, state: watch::Receiver<State>) -> Self {
        let places = Arc::new(Semaphore::new(MAX_SHELLS));
        Self { ports, requests, state, places, opening: Mutex::default() }
    }

    /// See [`crate::runtime::Machine::shell`].
    pub(super) async fn open(&self, request: ShellRequest) -> Result<Shell, ShellError> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| ShellError::Full { max: MAX_SHELLS })?;
        let mut ended = self.state.clone();
        let ended = ended.wait_for(|state| matches!(state, State::Gone { .. }));
        let (connection, extended) = tokio::select! {
            opened = self.connect(request) => opened?,
            _ = ended => return Err(ShellError::Ended),
        };
        Ok(start(connection, extended, self.state.clone(), place))
    }

    async fn connect(&self, request: ShellRequest) -> Result<(Connection, bool), ShellError> {
        let _one_at_a_time = self.opening.lock().await;
        let failed = |error: io::Error| ShellError::Refused(format!("no port for it: {error}"));
        let mut door = Door::open(&self.ports).map_err(failed)?;
        let (reply, asked) = oneshot::channel();
        let request = Request::OpenShell { port: door.port, request, reply };
        self.requests.send(request).await.map_err(|_| ShellError::Ended)?;
        let ShellAsked { extended, refused } = asked.await.unwrap_or(Err(ShellError::Ended))?;
        let refused = async {
            match refused.await {
                Ok(why) => why,
                // The machine is ending, which is waited for elsewhere.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = timeout(ACCEPT_BOUND, door.accept()) => match accepted {
                Ok(Ok(connection)) => Ok((connection, extended)),
                Ok(Err(error)) => Err(failed(error)),
                Err(_) => Err(ShellError::Refused(format!("its agent did not connect within {ACCEPT_BOUND:?}"))),
            },
            why = refused => Err(ShellError::Refused(why)),
        }
    }
}

/// A port that is open for one connection of one guest.
#[derive(Debug)]
struct Door {
    listener: Box<dyn Listener>,
    port: u32,
    /// Who else comes is turned away.
    peer: Peer,
}

impl Door {
    fn open(ports: &Ports) -> io::Result<Self> {
        match ports {
            Ports::Hybrid { prefix, helper_uid } => {
                let port = random_port()?;
                let listener = Box::new(HybridListener::bind(prefix, port, *helper_uid)?);
                Ok(Self { listener, port, peer: Peer::Machine })
            }
            Ports::Kernel { cid } => {
                let listener = KernelListener::bind_any()?;
                let port = listener.port();
                Ok(Self { listener: Box::new(listener), port, peer: Peer::Cid(*cid) })
            }
        }
    }

    async fn accept(&mut self) -> io::Result<Connection> {
        loop {
            let connection = self.listener.accept().await?;
            if connection.peer == self.peer {
                return Ok(connection);
            }
        }
    }
}

/// Above all that have a meaning, and below what vsock(7) means by "any".
fn random_port() -> io::Result<u32> {
    let mut bytes = [0; 4];
    // Up to 256 bytes come whole and uninterrupted (getrandom(2)).
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(u32::from_ne_bytes(bytes) & 0x7fff_ffff | 0x4000_0000)
}

fn start(
    connection: Connection,
    extended: bool,
    state: watch::Receiver<State>,
    place: OwnedSemaphorePermit,
) -> Shell {
    let (input, typed) = mpsc::channel(SHELL_QUEUE);
    let (shown, output) = mpsc::channel(SHELL_QUEUE);
    let (told, end) = oneshot::channel();
    let token = CancellationToken::new();
    let hang_up = token.clone().drop_guard();
    tokio::spawn(async move {
        let started = Instant::now();
        let mut bytes = 0;
        let end = tokio::select! {
            end = carry(connection.stream, typed, shown, &mut bytes) => end,
            // The connection closes, and the guest ends the shell.
            () = token.cancelled() => ShellEnd::Unread,
        };
        let usage = Usage { wall: started.elapsed(), stdout_bytes: bytes, ..Usage::default() };
        let verdict = match end {
            ShellEnd::Exited(exit) => {
                let ExecEnd { outcome, detail, usage } =
                    ExecEnd::read(exit, extended, usage.wall, usage.stdout_bytes, 0);
                Verdict { detail, usage, ..Verdict::of(outcome) }
            }
            ShellEnd::Unread => Verdict { usage, ..Verdict::of(Outcome::Cancelled) },
            ShellEnd::Lost { detail } => {
                let outcome = machine_end(state).await.unwrap_or(Outcome::AgentLost { detail });
                Verdict { usage, ..Verdict::of(outcome) }
            }
        };
        let _ = told.send(verdict);
        drop(place);
    });
    Shell { input, output, end, hang_up }
}

/// How the machine ended, if it is about to.
async fn machine_end(mut state: watch::Receiver<State>) -> Option<Outcome> {
    let gone = state.wait_for(|state| matches!(state, State::Gone { .. }));
    match &*timeout(MACHINE_END_BOUND, gone).await.ok()?.ok()? {
        State::Gone { outcome, .. } => Some(outcome.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use creel_proto::agent::{ExecExit, PtyData};
    use creel_proto::names::ids;
    use creel_proto::{Envelope, FrameCodec};
    use futures_util::SinkExt as _;
    use tokio::net::UnixStream;
    use tokio_util::codec::Framed;

    use super::*;
    use crate::transport::hybrid::guest_port_path;

    struct World {
        directory: tempfile::TempDir,
        shells: Arc<Shells>,
        requests: mpsc::Receiver<Request>,
        state: watch::Sender<State>,
    }

    fn world() -> World {
        let directory = tempfile::tempdir().unwrap();
        let (sender, requests) = mpsc::channel(4);
        let (state, watched) = watch::channel(State::Ready);
        let helper_uid = rustix::process::geteuid().as_raw();
        let ports = Ports::Hybrid { prefix: directory.path().join("vsock"), helper_uid };
        World { directory, shells: Arc::new(Shells::new(ports, sender, watched)), requests, state }
    }

    impl World {
        fn open(&self) -> tokio::task::JoinHandle<Result<Shell, ShellError>> {
            let shells = Arc::clone(&self.shells);
            tokio::spawn(async move { shells.open(ShellRequest::default()).await })
        }

        /// The machine's task passes the request on; what refuses it is returned.
        async fn asked(&mut self) -> (u32, oneshot::Sender<String>) {
            let Some(Request::OpenShell { port, reply, .. }) = self.requests.recv().await else {
                panic!("another request")
            };
            let (refuse, refused) = oneshot::channel();
            reply.send(Ok(ShellAsked { extended: true, refused })).unwrap();
            (port, refuse)
        }

        fn sockets(&self) -> usize {
            std::fs::read_dir(self.directory.path()).unwrap().count()
        }

        async fn dial(&self, port: u32) -> Framed<UnixStream, FrameCodec> {
            let path = guest_port_path(&self.directory.path().join("vsock"), port);
            Framed::new(UnixStream::connect(path).await.unwrap(), FrameCodec)
        }
    }

    #[tokio::test]
    async fn the_guest_dials_a_port_of_the_moment_and_its_end_is_the_verdict() {
        let mut world = world();
        let opening = world.open();
        let (port, _refuse) = world.asked().await;
        let mut guest = world.dial(port).await;
        let mut shell = opening.await.unwrap().unwrap();
        assert_eq!(world.sockets(), 0, "nobody else can come");
        guest.send(Envelope::new(ids::PTY, PtyData { data: "$ ".into() })).await.unwrap();
        assert_eq!(shell.output.recv().await.unwrap(), "$ ");
        let exit = ExecExit { exit_code: 130, signal: 2, ..Default::default() };
        guest.send(Envelope::new(ids::PTY, exit)).await.unwrap();
        let verdict = shell.ended().await;
        assert_eq!(verdict.outcome, Outcome::Signalled { signal: 2 });
        assert_eq!(verdict.usage.stdout_bytes, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_refuses_or_does_not_come_opens_nothing() {
        let mut world = world();
        let opening = world.open();
        let (_, refuse) = world.asked().await;
        refuse.send("not supported yet".into()).unwrap();
        assert_eq!(opening.await.unwrap().unwrap_err(), ShellError::Refused("not supported yet".into()));

        let opening = world.open();
        let (_, _refuse) = world.asked().await;
        let started = Instant::now();
        let error = opening.await.unwrap().unwrap_err();
        assert!(matches!(&error, ShellError::Refused(why) if why.contains("did not connect")), "{error}");
        assert_eq!(started.elapsed(), ACCEPT_BOUND);
        assert_eq!(world.sockets(), 0);
    }

    #[tokio::test]
    async fn the_machine_s_end_is_the_end_of_its_shells() {
        let mut world = world();
        let opening = world.open();
        let (port, _refuse) = world.asked().await;
        let guest = world.dial(port).await;
        let shell = opening.await.unwrap().unwrap();
        let waiting = world.open();
        let _asked = world.asked().await;
        drop(guest);
        let outcome = Outcome::HostDiskFull { detail: "full".into() };
        world.state.send_replace(State::Gone {
            outcome: outcome.clone(),
            console_tail: Vec::new(),
            usage: None,
            freed: Ok(()),
        });
        assert_eq!(shell.ended().await.outcome, outcome);
        assert_eq!(waiting.await.unwrap().unwrap_err(), ShellError::Ended);
    }

    #[tokio::test]
    async fn a_machine_has_so_many_shells_and_one_that_is_left_makes_room() {
        let mut world = world();
        let mut held = Vec::new();
        for _ in 0..MAX_SHELLS {
            let opening = world.open();
            let (port, _refuse) = world.asked().await;
            let guest = world.dial(port).await;
            held.push((guest, opening.await.unwrap().unwrap()));
        }
        assert_eq!(world.open().await.unwrap().unwrap_err(), ShellError::Full { max: MAX_SHELLS });
        let (mut guest, shell) = held.pop().unwrap();
        drop(shell);
        use futures_util::StreamExt as _;
        assert!(guest.next().await.is_none(), "the guest is hung up on");
        while world.shells.places.available_permits() == 0 {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn ports_of_the_moment_are_none_that_have_a_meaning() {
        for _ in 0..1000 {
            let port = random_port().unwrap();
            assert!((0x4000_0000..0x8000_0000).contains(&port));
        }
    }
}
