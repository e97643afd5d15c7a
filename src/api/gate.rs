//! What calls may take of memory before anybody has looked at them, and how many there may be.
//!
//! gRPC's decoder makes room for a whole message as soon as its length has come (tonic, `StreamingInner`), and keeps that
//! room for as long as the call is read. So the length is looked at first: most messages have to be small, and of the
//! others only a few are received at a time. All connections together hold, at most about:
//!
//! ```text
//!  56 MiB   1024 calls: 32 KiB that nobody has read yet (HTTP/2's window), 16 KiB of a small message, 8 KiB of headers
//!  18 MiB   8 uploads (service/mod.rs): a message of 1.1 MiB, and the one before it on its way to the disk
//!  48 MiB   1024 calls that send input to programs: a message of 64 KiB instead of the small one
//!  13 MiB   6 large starts of execs, workflow files or secrets: the message, and what it is decoded into
//!   4 MiB   256 connections: a frame of 16 KiB each
//! ```
//!
//! Answers are not in it, and neither is input that was taken: what waits for a reader is bounded for each exec.

mod first;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::stream::{BoxStream, Stream, StreamExt, unfold};
use http_body::Body as _;
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, StdError, http};
use tonic::server::NamedService;
use tonic::service::AxumBody;
use tonic::{Code, Status};

use super::connection::Caller;
use super::convert::exec::MAX_INPUT_BYTES;
use super::places::{Place, Places, Quota, Standing};
use super::service::{MAX_REQUEST_BYTES, MESSAGE_BOUND};
use super::status;
use super::turns::{Turn, Turns};
pub(super) use first::FirstMessage;

/// A spindle has a few calls open for each of its workflows: one that waits, one that reads the log.
const CALLS: Quota = Quota {
    all: 1024,
    reserved: 128,
    per_uid: 256,
    spindles: 640,
    per_spindle: 512,
    guests: 64,
    per_guest: 16,
};

/// What any message may have; all but a source archive's, an exec's start, a workflow's file and a step's secrets have to
/// do with it.
pub(super) const SMALL_BYTES: usize = 16 << 10;

/// Large messages of calls that have one that are received at a time, and how long one may take: it comes from this host's memory.
const LARGE: (usize, usize) = (4, 2);
const LARGE_PER_UID: usize = 2;
const LARGE_BOUND: Duration = Duration::from_secs(10);

/// gRPC over HTTP/2, "Length-Prefixed-Message": a flag, and the length as four bytes, most significant first.
const HEADER_BYTES: usize = 5;

/// A message of a program's input, and what stands around it.
const INPUT_MESSAGE_BYTES: usize = MAX_INPUT_BYTES + (1 << 10);

/// Counts a call for as long as somebody keeps it: answers that go on keep it with them.
pub(super) type CallPlace = Arc<Place>;

/// What all services of a server share.
#[derive(Debug)]
pub(super) struct Bounds {
    calls: Arc<Places>,
    large: Arc<Turns>,
}

impl Bounds {
    pub(super) fn new() -> Arc<Self> {
        let (ordinary, reserved) = LARGE;
        Arc::new(Self { calls: Places::new(CALLS), large: Turns::new(ordinary, reserved, LARGE_PER_UID) })
    }
}

/// A service behind these bounds.
#[derive(Debug, Clone)]
pub(super) struct Gate<S> {
    inner: S,
    bounds: Arc<Bounds>,
}

impl<S> Gate<S> {
    pub(super) fn new(inner: S, bounds: &Arc<Bounds>) -> Self {
        Self { inner, bounds: Arc::clone(bounds) }
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Gate<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let refuse = |status: Status| Box::pin(std::future::ready(Ok(status.into_http())));
        let Some(caller) = request.extensions().get::<Caller>() else {
            return refuse(status::internal("the connection has no credentials"));
        };
        let (uid, standing) = (caller.credentials.uid, caller.standing);
        let place: CallPlace = match self.bounds.calls.take(uid, standing) {
            Ok(place) => Arc::new(place),
            Err(why) => return refuse(Status::resource_exhausted(format!("too many calls: {why}"))),
        };
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(CallPlace::clone(&place));
        let shape = Shape::of(parts.uri.path());
        let large = Arc::clone(&self.bounds.large);
        let mut reading = Reading::new(received(body).boxed(), shape, large, (uid, standing));
        // The one that is ready is the one to be called.
        let another = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, another);
        Box::pin(async move {
            if shape == Shape::Exec {
                match reading.first_message().await {
                    Ok(first) => parts.extensions.insert(first),
                    Err(error) => return Ok(Status::from_error(error).into_http()),
                };
            }
            let body = AxumBody::from_stream(reading.pieces());
            let answer = inner.call(http::Request::from_parts(parts, Body::new(body))).await;
            drop(place);
            answer
        })
    }
}

/// What is received of a call. A caller that gives it up has not closed its side, which would be heeded: hyper takes one
/// for the other (RFC 9113, 5.4.2: RST_STREAM with CANCEL), and tonic's decoder does so with an error whose code is
/// `CANCELLED` (`StreamingInner::poll_frame`).
fn received(body: Body) -> impl Stream<Item = Result<Bytes, StdError>> + Send + 'static {
    unfold(Some(body), |body| async {
        let mut body = body?;
        loop {
            return match poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Some((Ok(data), Some(body))),
                    // Trailers, of which a caller has none to say anything with.
                    Err(_) => continue,
                },
                Some(Err(status)) if status.code() != Code::Cancelled => Some((Err(status.into()), None)),
                None if body.is_end_stream() => None,
                Some(Err(_)) | None => {
                    Some((Err(Status::aborted("the caller has given the call up").into()), None))
                }
            };
        }
    })
}

/// Which messages a call has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// One small one.
    Unary,
    /// A small one, then those of an upload, which has its turn elsewhere.
    Create,
    /// One that may be large, then those of a program's input.
    Exec,
    /// One that may be large.
    Large,
    /// Small ones, for as long as somebody types.
    Shell,
}

impl Shape {
    fn of(path: &str) -> Self {
        match path {
            "/creel.v1.Machines/Create" => Self::Create,
            "/creel.v1.Machines/Shell" => Self::Shell,
            "/creel.v1.Machines/Exec" => Self::Exec,
            "/creel.v1.Workflows/Init" | "/creel.v1.Workflows/RunStep" => Self::Large,
            _ => Self::Unary,
        }
    }
}

/// A call's body on its way to the decoder.
struct Reading {
    data: BoxStream<'static, Result<Bytes, StdError>>,
    shape: Shape,
    large: Arc<Turns>,
    user: (u32, Standing),
    /// Received, and not passed on.
    rest: Bytes,
    header: Vec<u8>,
    /// Of the message under way.
    missing: usize,
    messages: usize,
    /// Of the large message that the decoder has room for.
    turn: Option<Turn>,
    deadline: Option<Instant>,
}

impl Reading {
    fn new(
        data: BoxStream<'static, Result<Bytes, StdError>>,
        shape: Shape,
        large: Arc<Turns>,
        user: (u32, Standing),
    ) -> Self {
        // Those that the decoder is asked for one by one have a bound there.
        let here = matches!(shape, Shape::Unary | Shape::Large | Shape::Exec);
        let deadline = here.then(|| Instant::now() + MESSAGE_BOUND);
        let (rest, header) = (Bytes::new(), Vec::with_capacity(HEADER_BYTES));
        Self { data, shape, large, user, rest, header, missing: 0, messages: 0, turn: None, deadline }
    }

    fn pieces(self) -> impl Stream<Item = Result<Bytes, StdError>> + Send + 'static {
        unfold(Some(self), |reading| async {
            let mut reading = reading?;
            match reading.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(reading))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// A whole header, or bytes of one message.
    async fn next(&mut self) -> Result<Option<Bytes>, StdError> {
        loop {
            if self.rest.is_empty() {
                match self.received().await? {
                    Some(bytes) => self.rest = bytes,
                    // What it leaves unfinished is the decoder's to refuse.
                    None => return Ok(None),
                }
            }
            if self.missing > 0 {
                let count = self.missing.min(self.rest.len());
                self.missing -= count;
                return Ok(Some(self.rest.split_to(count)));
            }
            let count = (HEADER_BYTES - self.header.len()).min(self.rest.len());
            self.header.extend_from_slice(&self.rest.split_to(count));
            if self.header.len() == HEADER_BYTES {
                let header = Bytes::copy_from_slice(&self.header);
                self.header.clear();
                self.admit(&header).await?;
                return Ok(Some(header));
            }
        }
    }

    async fn received(&mut self) -> Result<Option<Bytes>, StdError> {
        let next = self.data.next();
        let next = match self.deadline {
            Some(deadline) => timeout_at(deadline, next)
                .await
                .map_err(|_| Status::deadline_exceeded("the call's message did not arrive in time"))?,
            None => next.await,
        };
        next.transpose()
    }

    /// Before the decoder makes room for a message.
    async fn admit(&mut self, header: &Bytes) -> Result<(), StdError> {
        let length = header.slice(1..).get_u32();
        self.missing = usize::try_from(length).unwrap_or(usize::MAX);
        let first = self.messages == 0;
        self.messages += 1;
        // The decoder refuses it by its length.
        if self.missing <= SMALL_BYTES || self.missing > MAX_REQUEST_BYTES {
            return Ok(());
        }
        match self.shape {
            Shape::Create if !first => {}
            Shape::Exec if !first && self.missing <= INPUT_MESSAGE_BYTES => {}
            Shape::Exec if !first => return Err(too_long(length, INPUT_MESSAGE_BYTES).into()),
            Shape::Unary | Shape::Create | Shape::Shell => return Err(too_long(length, SMALL_BYTES).into()),
            Shape::Exec | Shape::Large => {
                let (uid, standing) = self.user;
                self.turn = Some(self.large.take(uid, standing).await?);
                self.deadline = Some(Instant::now() + LARGE_BOUND);
            }
        }
        Ok(())
    }
}

fn too_long(length: u32, bound: usize) -> Status {
    Status::invalid_argument(format!(
        "the message has {length} bytes, more than the {bound} that it may have"
    ))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::stream;
    use tonic::Streaming;
    use tonic::codec::Codec as _;
    use tonic_prost::ProstCodec;

    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
        bytes.resize(HEADER_BYTES + length, b'm');
        bytes
    }

    fn reading(bytes: Vec<u8>, chunk_bytes: usize, shape: Shape, large: &Arc<Turns>) -> Reading {
        let chunks: Vec<_> = bytes.chunks(chunk_bytes).map(|chunk| Ok(chunk.to_vec().into())).collect();
        // A caller that has sent this, and sends no more.
        let data = stream::iter(chunks).chain(stream::pending()).boxed();
        Reading::new(data, shape, Arc::clone(large), (1000, Standing::Operator))
    }

    /// What the decoder gets before it has to wait, and the refusal if there is one.
    fn passed(reading: &mut Reading) -> (Vec<u8>, Option<Code>) {
        let mut bytes = Vec::new();
        loop {
            match reading.next().now_or_never() {
                None | Some(Ok(None)) => return (bytes, None),
                Some(Ok(Some(piece))) => bytes.extend_from_slice(&piece),
                Some(Err(error)) => return (bytes, Some(Status::from_error(error).code())),
            }
        }
    }

    #[tokio::test]
    async fn what_may_pass_passes_unchanged_however_it_is_cut() {
        let upload = [message(40), message(0), message(100_000), message(SMALL_BYTES)].concat();
        for chunk_bytes in [1, 3, 5, 16_384, 1 << 20] {
            let large = Turns::new(0, 0, 0);
            let mut create = reading(upload.clone(), chunk_bytes, Shape::Create, &large);
            assert_eq!(passed(&mut create), (upload.clone(), None), "in pieces of {chunk_bytes}");
            let mut unary = reading(message(SMALL_BYTES), chunk_bytes, Shape::Unary, &large);
            assert_eq!(passed(&mut unary), (message(SMALL_BYTES), None));
        }
    }

    #[tokio::test]
    async fn the_decoder_makes_no_room_for_what_has_to_be_small() {
        for shape in [Shape::Unary, Shape::Create, Shape::Shell] {
            let mut large = reading(message(SMALL_BYTES + 1), 100, shape, &Turns::new(9, 9, 9));
            assert_eq!(passed(&mut large), (Vec::new(), Some(Code::InvalidArgument)), "{shape:?}");
        }
    }

    /// A call that is given up, after its last message was read.
    struct GivenUp(Option<Status>);

    impl http_body::Body for GivenUp {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.take().map(Err))
        }
    }

    #[tokio::test]
    async fn a_call_that_is_given_up_is_not_one_whose_caller_has_said_all() {
        // What hyper makes of RST_STREAM (nothing comes any more, and yet its end has not come), and what tonic does.
        for given_up in [GivenUp(None), GivenUp(Some(Status::cancelled("h2 protocol error")))] {
            let error = decoded(Body::new(given_up)).message().await.unwrap_err();
            assert_eq!(error.message(), "the caller has given the call up");
        }
        assert_eq!(decoded(Body::empty()).message().await.unwrap(), None);
    }

    /// By the decoder that reads all calls.
    fn decoded(body: Body) -> Streaming<creel_proto::v1::ExecRequest> {
        let mut codec = ProstCodec::<creel_proto::v1::ExecEvent, creel_proto::v1::ExecRequest>::default();
        let body = Body::new(AxumBody::from_stream(received(body)));
        Streaming::new_request(codec.decoder(), body, None, None)
    }

    #[tokio::test(start_paused = true)]
    async fn who_types_may_think_for_as_long_as_he_likes() {
        let messages = [message(10), message(SMALL_BYTES), message(0)].concat();
        let mut shell = reading(messages.clone(), 7, Shape::Shell, &Turns::new(0, 0, 0));
        assert_eq!(passed(&mut shell), (messages, None));
        let thinking = tokio::time::timeout(Duration::from_secs(3600), shell.next()).await;
        assert!(thinking.is_err(), "{thinking:?}");
    }

    #[tokio::test]
    async fn only_a_few_large_messages_are_under_way_at_a_time() {
        let turns = Turns::new(2, 0, 2);
        // Their ends never come.
        let unfinished = || reading(message(1 << 20)[..40].to_vec(), 40, Shape::Exec, &turns);
        let mut held = [unfinished(), unfinished(), unfinished()];
        let sizes = held.each_mut().map(|reading| passed(reading).0.len());
        assert_eq!(sizes, [40, 40, 0], "the third is not even announced");
        let mut small = reading(message(9), 40, Shape::Exec, &turns);
        assert_eq!(passed(&mut small).0.len(), HEADER_BYTES + 9, "small ones go on");
        let [one, _two, _] = held;
        drop(one);
        assert_eq!(passed(&mut unfinished()).0.len(), 40);
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_message_that_does_not_arrive_loses_its_turn() {
        let mut unfinished = reading(message(1 << 20)[..40].to_vec(), 40, Shape::Exec, &Turns::new(1, 0, 1));
        assert_eq!(passed(&mut unfinished).0.len(), 40);
        let started = Instant::now();
        let error = unfinished.next().await.unwrap_err();
        assert_eq!(Status::from_error(error).code(), Code::DeadlineExceeded);
        assert_eq!(started.elapsed(), LARGE_BOUND);
    }
}
