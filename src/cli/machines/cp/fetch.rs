//! From a machine: its archive to stdout, or unpacked here as it comes.

use std::io::{self, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use creel_tree::{Complaint, Destination, UnpackError, Unpacked};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::call::Call;
use super::command::{Copied, Tally};
use super::pipe::{PieceReader, pieces};
use super::told::Told;
use crate::cli::failure::Failure;
use crate::cli::machines::connect::api_failure;
use crate::exit::Exit;
use crate::runtime::{ExecStreams, Stream, Verdict, Work, streams};

/// Where it goes.
#[derive(Debug)]
pub(super) enum Into {
    Tree(Destination),
    Stdout,
}

pub(super) async fn fetch(
    call: &impl Call,
    work: Work,
    into: Into,
    told: &Arc<Told>,
    cancel: &CancellationToken,
) -> Result<(Verdict, Copied), Failure> {
    let (output, mut reader) = streams::output();
    // The machine need not go on with what can't be taken.
    let stop = cancel.child_token();
    let run = call.run(work, ExecStreams { input: None, output }, &stop);
    let receive = async {
        let mut sink = Sink::open(into, told);
        let mut result = None;
        loop {
            let chunk = tokio::select! {
                chunk = reader.take() => chunk,
                // Also where nothing more comes of which it could be told.
                () = Sink::full(sink.as_ref()) => {
                    if let Some(sink) = sink.take() {
                        let ended = sink.close().await;
                        if ended.is_err() {
                            stop.cancel();
                        }
                        result = Some(ended);
                    }
                    continue;
                }
            };
            let Some(chunk) = chunk else { break };
            match (chunk.stream, &mut sink) {
                (Stream::Stderr, _) => told.machine_says(&chunk.bytes),
                (Stream::Stdout, None) => told.moved(chunk.bytes.len()),
                (Stream::Stdout, Some(sink)) => {
                    told.moved(chunk.bytes.len());
                    tokio::select! {
                        () = sink.push(chunk.bytes) => {}
                        // Whoever does not read what is written, or a disk that hangs, does not keep who wants to leave.
                        () = cancel.cancelled() => return Err(Stopped::cancelled()),
                    }
                }
            }
        }
        match (result, sink) {
            (Some(result), _) => result,
            (None, Some(sink)) => sink.close().await,
            (None, None) => Ok(None),
        }
    };
    let (verdict, received) = tokio::join!(run, receive);
    let verdict = verdict.map_err(|error| api_failure(&error))?;
    let archive_bytes = told.moved_bytes();
    match received {
        Ok(tally) => Ok((verdict, Copied { archive_bytes, tally })),
        // What the machine, or whoever cancels, did not finish can't be whole here.
        Err(Stopped { incomplete: true, .. })
            if cancel.is_cancelled() || !super::command::is_whole(&verdict) =>
        {
            Ok((verdict, Copied { archive_bytes, tally: None }))
        }
        Err(Stopped { failure, .. }) => Err(failure),
    }
}

/// Why nothing more is taken here.
struct Stopped {
    failure: Failure,
    /// Only because the archive was not complete.
    incomplete: bool,
}

impl Stopped {
    fn cancelled() -> Self {
        Self { failure: Failure::new(Exit::Cancelled, "cancelled"), incomplete: true }
    }
}

type Ended = Result<Option<Tally>, Stopped>;

enum Sink {
    Tree {
        pieces: mpsc::Sender<Bytes>,
        unpacking: JoinHandle<Result<Unpacked, UnpackError>>,
    },
    /// What went wrong with it.
    Stdout(Option<Failure>),
}

impl Sink {
    fn open(into: Into, told: &Arc<Told>) -> Option<Self> {
        let destination = match into {
            Into::Tree(destination) => destination,
            Into::Stdout => return Some(Self::Stdout(None)),
        };
        let (sender, receiver) = pieces();
        let told = Arc::clone(told);
        let unpacking = tokio::task::spawn_blocking(move || {
            let mut complain = |complaint: Complaint| {
                told.complain(&complaint);
                Ok(())
            };
            creel_tree::unpack(PieceReader::new(receiver), destination, &mut complain)
        });
        Some(Self::Tree { pieces: sender, unpacking })
    }

    /// Takes more; whether it can is said by [`Self::full`].
    async fn push(&mut self, bytes: Bytes) {
        match self {
            // It has ended where this fails.
            Self::Tree { pieces, .. } => drop(pieces.send(bytes).await),
            Self::Stdout(failure @ None) => {
                let written = tokio::task::spawn_blocking(move || {
                    let mut stdout = io::stdout().lock();
                    stdout.write_all(&bytes).and_then(|()| stdout.flush())
                });
                *failure = match written.await {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(Failure::new(
                        Exit::Broken,
                        format!("failed to write the archive to stdout: {error}"),
                    )),
                    Err(error) => Some(Failure::internal(error)),
                };
            }
            Self::Stdout(Some(_)) => {}
        }
    }

    /// Waits until it takes no more: at the archive's end mark, or because it can't go on. Safe to cancel.
    async fn full(sink: Option<&Self>) {
        match sink {
            Some(Self::Tree { pieces, .. }) => pieces.closed().await,
            Some(Self::Stdout(Some(_))) => {}
            Some(Self::Stdout(None)) | None => std::future::pending().await,
        }
    }

    async fn close(self) -> Ended {
        match self {
            Self::Tree { pieces, unpacking } => {
                drop(pieces);
                unpacked(unpacking).await
            }
            Self::Stdout(None) => Ok(None),
            Self::Stdout(Some(failure)) => Err(Stopped { failure, incomplete: false }),
        }
    }
}

async fn unpacked(unpacking: JoinHandle<Result<Unpacked, UnpackError>>) -> Ended {
    use creel_tree::ReadError;

    match unpacking.await {
        Ok(Ok(Unpacked { files, directories, bytes, .. })) => Ok(Some(Tally { files, directories, bytes })),
        Ok(Err(error)) => {
            let (exit, text) = match &error {
                // Of this host's: the disk is full, and such.
                UnpackError::Complaint(_) => (Exit::HostCannot, error.to_string()),
                _ => (Exit::Broken, format!("what the machine sent is refused: {error}")),
            };
            let incomplete = matches!(error, UnpackError::Read(ReadError::Cut));
            Err(Stopped { failure: Failure::new(exit, text), incomplete })
        }
        Err(error) => Err(Stopped { failure: Failure::internal(error), incomplete: false }),
    }
}
