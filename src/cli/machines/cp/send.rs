//! To a machine: an archive of what is here, or the one on stdin.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use creel_tree::{PackComplaint, PackError, Source};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::call::Call;
use super::command::{Copied, Tally};
use super::pipe::{PieceWriter, pieces};
use super::told::Told;
use crate::cli::failure::Failure;
use crate::cli::machines::connect::api_failure;
use crate::exit::Exit;
use crate::runtime::{ExecStreams, Stream, Verdict, Work, streams};

/// How long a thread is waited for whose reader has gone: it may hang on a disk, or on stdin.
const LAST_PIECE: Duration = Duration::from_secs(1);

/// What goes.
#[derive(Debug)]
pub(super) enum From {
    Tree(Source),
    Stdin,
}

pub(super) async fn send(
    call: &impl Call,
    work: Work,
    from: From,
    told: &Arc<Told>,
    cancel: &CancellationToken,
) -> Result<(Verdict, Copied), Failure> {
    let (output, mut reader) = streams::output();
    let (input, machines) = streams::input();
    let (sender, mut receiver) = pieces();
    let made = make(from, PieceWriter(sender), told)?;
    let over = CancellationToken::new();
    let run = async {
        let verdict = call.run(work, ExecStreams { input: Some(machines), output }, cancel).await;
        // Also where nothing comes of which it could be told that nobody takes it.
        over.cancel();
        verdict
    };
    let feed = async {
        loop {
            let piece = tokio::select! {
                piece = receiver.recv() => piece,
                () = over.cancelled() => None,
            };
            let Some(piece) = piece else { break };
            if input.send(&piece).await.is_err() {
                break;
            }
            told.moved(piece.len());
        }
        drop(receiver);
        drop(input);
    };
    let listen = async {
        while let Some(chunk) = reader.take().await {
            if chunk.stream == Stream::Stderr {
                told.machine_says(&chunk.bytes);
            }
        }
    };
    let (verdict, (), ()) = tokio::join!(run, feed, listen);
    let verdict = verdict.map_err(|error| api_failure(&error))?;
    let made = tokio::time::timeout(LAST_PIECE, made).await;
    let archive_bytes = told.moved_bytes();
    match made {
        Ok(Ok(Made::Whole(tally))) => Ok((verdict, Copied { archive_bytes, tally })),
        Ok(Ok(Made::Failed(failure))) => Err(failure),
        // Nobody took it: the verdict says why.
        Ok(Ok(Made::Unread) | Err(_)) | Err(_) => Ok((verdict, Copied { archive_bytes, tally: None })),
    }
}

/// What became of the making of the archive.
enum Made {
    /// Of an archive from stdin nothing is known.
    Whole(Option<Tally>),
    Unread,
    Failed(Failure),
}

/// Not one of the runtime's threads: nobody can end a read from stdin.
fn make(from: From, mut sink: PieceWriter, told: &Arc<Told>) -> Result<oneshot::Receiver<Made>, Failure> {
    let (sender, receiver) = oneshot::channel();
    let told = Arc::clone(told);
    let work = move || {
        let made = match from {
            From::Tree(source) => tree(&source, sink, &told),
            From::Stdin => {
                let copied = io::copy(&mut io::stdin().lock(), &mut sink);
                match copied {
                    Ok(_) => Made::Whole(None),
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Made::Unread,
                    Err(error) => Made::Failed(Failure::new(
                        Exit::Broken,
                        format!("failed to read the archive from stdin: {error}"),
                    )),
                }
            }
        };
        // Whoever asked may be gone.
        let _ = sender.send(made);
    };
    std::thread::Builder::new().name("cp".to_owned()).spawn(work).map_err(Failure::internal)?;
    Ok(receiver)
}

fn tree(source: &Source, sink: PieceWriter, told: &Told) -> Made {
    let mut complain = |complaint: PackComplaint| {
        told.complain(&complaint);
        Ok(())
    };
    match creel_tree::pack(source, sink, &mut complain) {
        Ok(packed) => {
            let (files, directories, bytes) = (packed.files, packed.directories, packed.bytes);
            Made::Whole(Some(Tally { files, directories, bytes }))
        }
        Err(PackError::Write(_)) => Made::Unread,
        Err(error @ PackError::Complaint(_)) => Made::Failed(Failure::internal(error)),
    }
}
