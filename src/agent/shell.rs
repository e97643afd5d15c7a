//! A debug shell's own connection: what is typed goes one way, what the terminal shows the other, and its end comes last.
//!
//! Neither way waits for the other. A caller who does not read holds back the terminal, and no exec of the machine.

use std::convert::Infallible;

use bytes::Bytes;
use creel_proto::agent::{ExecExit, PtyData, PtyResize};
use creel_proto::names::ids;
use creel_proto::{Envelope, Payload};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tracing::trace;

use super::wire::{GuestCodec, Heard, Wire};
use crate::runtime::ShellInput;
use crate::transport::ByteStream;

/// What a terminal shows at once (upstream's agent: 32 KiB). Much of it may wait for a reader, and of each machine's
/// shells.
pub(super) const MAX_SHOWN_BYTES: usize = 64 << 10;

/// How a shell's connection ended.
#[derive(Debug)]
pub enum ShellEnd {
    Exited(ExecExit),
    /// Without the shell's end: the guest is going away, or its agent.
    Lost {
        detail: String,
    },
    /// Nobody reads what it shows any more.
    Unread,
}

/// Carries one shell until its end. `shown` counts the bytes that came.
pub async fn carry(
    stream: Box<dyn ByteStream>,
    input: mpsc::Receiver<ShellInput>,
    output: mpsc::Sender<Bytes>,
    shown: &mut u64,
) -> ShellEnd {
    let (sink, stream) = Wire::new(stream, GuestCodec::of_shell()).split();
    tokio::select! {
        end = show(stream, output, shown) => end,
        never = type_in(sink, input) => match never {},
    }
}

async fn show(mut stream: SplitStream<Wire>, output: mpsc::Sender<Bytes>, shown: &mut u64) -> ShellEnd {
    loop {
        match stream.next().await {
            Some(Ok(Heard::PassedOver)) => {}
            Some(Ok(Heard::Message(message))) => match message.payload {
                Payload::PtyData(PtyData { data }) if data.len() > MAX_SHOWN_BYTES => {
                    let detail = format!("the guest sent {} bytes of a terminal at once", data.len());
                    return ShellEnd::Lost { detail };
                }
                Payload::PtyData(PtyData { data }) => {
                    *shown += data.len() as u64;
                    // A copy: a slice of what was received keeps all that was received with it.
                    if output.send(Bytes::copy_from_slice(&data)).await.is_err() {
                        return ShellEnd::Unread;
                    }
                }
                Payload::ExecExit(exit) => return ShellEnd::Exited(exit),
                other => trace!(payload = other.name(), "ignored what a debug shell's connection said"),
            },
            Some(Err(error)) => return ShellEnd::Lost { detail: error.to_string() },
            None => return ShellEnd::Lost { detail: "the guest closed the shell's connection".to_owned() },
        }
    }
}

/// What can't be sent is dropped: how a connection ended is read from it, and the shell's end may still be there.
async fn type_in(mut sink: SplitSink<Wire, Envelope>, mut input: mpsc::Receiver<ShellInput>) -> Infallible {
    while let Some(piece) = input.recv().await {
        let payload: Payload = match piece {
            ShellInput::Bytes(data) => PtyData { data }.into(),
            ShellInput::Resize(size) => {
                PtyResize { rows: size.rows.into(), cols: size.columns.into() }.into()
            }
        };
        if sink.send(Envelope::new(ids::PTY, payload)).await.is_err() {
            break;
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use creel_proto::FrameCodec;
    use proptest::prelude::*;
    use tokio::io::{AsyncWriteExt as _, DuplexStream};
    use tokio::time::timeout;
    use tokio_util::codec::Framed;

    use super::*;
    use crate::runtime::TerminalSize;

    const SOON: Duration = Duration::from_secs(10);

    struct World {
        guest: Framed<DuplexStream, FrameCodec>,
        input: mpsc::Sender<ShellInput>,
        output: mpsc::Receiver<Bytes>,
        carrying: tokio::task::JoinHandle<(ShellEnd, u64)>,
    }

    fn world() -> World {
        let (near, far) = tokio::io::duplex(1 << 12);
        let (input, typed) = mpsc::channel(2);
        let (shown, output) = mpsc::channel(2);
        let carrying = tokio::spawn(async move {
            let mut count = 0;
            let end = carry(Box::new(near), typed, shown, &mut count).await;
            (end, count)
        });
        World { guest: Framed::new(far, FrameCodec), input, output, carrying }
    }

    fn data(text: &str) -> Envelope {
        Envelope::new(ids::PTY, PtyData { data: text.to_owned().into() })
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_the_end_comes_last() {
        let mut world = world();
        world.input.send(ShellInput::Bytes("ls\n".into())).await.unwrap();
        let size = TerminalSize { rows: 3, columns: 4 };
        world.input.send(ShellInput::Resize(size)).await.unwrap();
        assert_eq!(world.guest.next().await.unwrap().unwrap(), data("ls\n"));
        let resize = Envelope::new(ids::PTY, PtyResize { rows: 3, cols: 4 });
        assert_eq!(world.guest.next().await.unwrap().unwrap(), resize);
        // Somebody who types no more still reads.
        drop(world.input);
        world.guest.send(data("one")).await.unwrap();
        world.guest.send(data("two")).await.unwrap();
        world
            .guest
            .send(Envelope::new(ids::PTY, ExecExit { exit_code: 7, ..Default::default() }))
            .await
            .unwrap();
        assert_eq!(world.output.recv().await.unwrap(), "one");
        assert_eq!(world.output.recv().await.unwrap(), "two");
        assert_eq!(world.output.recv().await, None);
        let (end, shown) = timeout(SOON, world.carrying).await.unwrap().unwrap();
        assert!(matches!(end, ShellEnd::Exited(exit) if exit.exit_code == 7));
        assert_eq!(shown, 6);
    }

    #[tokio::test]
    async fn a_reader_that_does_not_read_holds_back_the_guest_and_not_what_is_typed() {
        let mut world = world();
        let flood = "x".repeat(1000);
        let mut sent = 0;
        while timeout(Duration::from_millis(100), world.guest.send(data(&flood))).await.is_ok() {
            sent += 1;
            assert!(sent < 100, "more is taken than there is room for");
        }
        world.input.send(ShellInput::Bytes("\u{3}".into())).await.unwrap();
        assert_eq!(timeout(SOON, world.guest.next()).await.unwrap().unwrap().unwrap(), data("\u{3}"));
        drop(world.output);
        let (end, _) = timeout(SOON, world.carrying).await.unwrap().unwrap();
        assert!(matches!(end, ShellEnd::Unread), "{end:?}");
    }

    #[tokio::test]
    async fn more_than_a_terminal_shows_at_once_ends_it() {
        let mut world = world();
        let flood = data(&"x".repeat(MAX_SHOWN_BYTES + 1));
        let sending = tokio::spawn(async move {
            let _ = world.guest.send(flood).await;
        });
        let (end, shown) = timeout(SOON, world.carrying).await.unwrap().unwrap();
        assert!(matches!(end, ShellEnd::Lost { .. }), "{end:?}");
        assert_eq!(shown, 0);
        sending.await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_that_ends_says_so() {
        let world = world();
        drop(world.guest);
        let (end, _) = timeout(SOON, world.carrying).await.unwrap().unwrap();
        assert!(matches!(end, ShellEnd::Lost { .. }), "{end:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A hostile guest's connection ends, whatever it says, and does so soon.
        #[test]
        fn any_bytes_of_the_guest_end_in_a_verdict(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio.block_on(async {
                let (near, mut far) = tokio::io::duplex(1 << 12);
                let (_input, typed) = mpsc::channel(2);
                let (shown, mut output) = mpsc::channel(2);
                let drain = tokio::spawn(async move { while output.recv().await.is_some() {} });
                far.write_all(&bytes).await.unwrap();
                drop(far);
                let mut count = 0;
                timeout(SOON, carry(Box::new(near), typed, shown, &mut count)).await.expect("it ends");
                drain.await.unwrap();
            });
        }
    }
}
