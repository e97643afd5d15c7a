//! One connection of the control API: whose it is, and how long it may be held.
//!
//! Anybody may connect, to ask for creeld's health. So those who may do nothing else get few connections, for a short
//! time, which keeps them from taking those of operators; no operator can take those of the others, nor lock root out; and
//! nobody holds one without speaking HTTP/2. Pings would be of no use here: the kernel closes a dead process's sockets,
//! and one that is merely stopped (Ctrl-Z) shall keep its machines.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::places::{Place, Places, Quota, Standing};
use super::role::{Role, RolePolicy};
use crate::host::PeerCredentials;
use crate::metrics::Metrics;

const CONNECTIONS: Quota =
    Quota { all: 256, reserved: 16, per_uid: 32, spindles: 64, per_spindle: 32, guests: 16, per_guest: 4 };

/// How long a guest may stay.
const GUESTS_BOUND: Duration = Duration::from_secs(60);

/// How soon a peer must have sent HTTP/2's preface, and its length (RFC 9113, section 3.4).
const PREFACE_BOUND: Duration = Duration::from_secs(10);
const PREFACE_BYTES: usize = 24;

/// Descriptors or memory are short: there is no event that says when they no longer are.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Who calls.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub credentials: Arc<PeerCredentials>,
    pub role: Role,
    pub standing: Standing,
}

/// Takes connections, as many as there may be.
#[derive(Debug)]
pub(super) struct Door {
    listener: UnixListener,
    roles: RolePolicy,
    places: Arc<Places>,
    /// Closes all connections.
    close: CancellationToken,
    metrics: Metrics,
}

impl Door {
    pub(super) fn new(
        listener: UnixListener,
        roles: RolePolicy,
        close: CancellationToken,
        metrics: Metrics,
    ) -> Self {
        Self { listener, roles, places: Places::new(CONNECTIONS), close, metrics }
    }

    /// The next connection. One too many is closed at once, so that it does not stand before those that may come in.
    pub(super) async fn next(&self) -> Connection {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => match self.admit(stream) {
                    Ok(connection) => return connection,
                    Err(why) => {
                        self.metrics.control_refused();
                        debug!(%why, "closed a connection of the control API");
                    }
                },
                Err(error) => {
                    warn!(%error, "failed to accept a connection of the control API");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn admit(&self, stream: UnixStream) -> io::Result<Connection> {
        let credentials = PeerCredentials::of(stream.as_fd())?;
        let role = self.roles.role(&credentials);
        let standing = self.roles.standing(&credentials);
        let place = self.places.take(credentials.uid, standing).map_err(io::Error::other)?;
        Ok(Connection {
            stream,
            caller: Caller { credentials: Arc::new(credentials), role, standing },
            preface_missing: PREFACE_BYTES,
            bound: Some(Box::pin(tokio::time::sleep(PREFACE_BOUND))),
            closed: Box::pin(self.close.clone().cancelled_owned()),
            _place: place,
        })
    }
}

/// A socket that knows its peer and its bounds.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    caller: Caller,
    preface_missing: usize,
    /// When it ends whatever it does; dropped once nothing bounds it.
    bound: Option<Pin<Box<Sleep>>>,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: Place,
}

impl Connection {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let too_late = self.bound.as_mut().is_some_and(|bound| bound.as_mut().poll(context).is_ready());
        if too_late {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if self.closed.as_mut().poll(context).is_ready() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    fn received(&mut self, bytes: usize) {
        if self.preface_missing == 0 {
            return;
        }
        self.preface_missing = self.preface_missing.saturating_sub(bytes);
        if self.preface_missing == 0 {
            match (self.caller.standing, &mut self.bound) {
                (Standing::Guest, Some(bound)) => bound.as_mut().reset(Instant::now() + GUESTS_BOUND),
                (_, bound) => *bound = None,
            }
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.received(buffer.filled().len() - before);
        result
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
