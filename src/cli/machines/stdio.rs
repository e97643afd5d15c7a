//! This process's stdin and its output, each on a thread of its own: either may block for as long as somebody at the other
//! end likes, and must not keep the command from ending.

use std::io::{self, Write};
use std::os::fd::AsFd;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::mpsc;

use crate::runtime::{InputWriter, OutputChunk, OutputReader, Stream};

const PIECE_BYTES: usize = 64 << 10;

/// Pieces on their way between the thread and the rest.
const QUEUE: usize = 4;

/// Passes on what is read, up to its end. Never ends while that does not, unless nobody takes any more.
///
/// # Errors
/// When it can't be read: an end would be taken for the input's.
pub(super) async fn feed(stdin: impl AsFd + Send + 'static, input: &InputWriter) -> io::Result<()> {
    let (sender, mut read) = mpsc::channel(QUEUE);
    std::thread::spawn(move || {
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let piece = match read_some(&stdin, &mut buffer) {
                Ok(0) => return,
                Ok(length) => Ok(Bytes::copy_from_slice(&buffer[..length])),
                Err(error) => Err(error),
            };
            let failed = piece.is_err();
            if sender.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    });
    while let Some(piece) = read.recv().await {
        if input.send(&piece?).await.is_err() {
            // As a program at the other end of a pipe: who has read enough is no failure.
            return Ok(());
        }
    }
    input.end();
    Ok(())
}

/// Without a buffer between, which would keep what this process does not take.
fn read_some(stdin: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::io::read(stdin, &mut *buffer) {
            Err(Errno::INTR) => {}
            // It is not ours alone, and whose it is too does not want it to block.
            Err(Errno::AGAIN) => drop(poll(&mut [PollFd::new(stdin, PollFlags::IN)], None)),
            read => return Ok(read?),
        }
    }
}

/// Writes output up to its end; what is written is acknowledged.
///
/// # Errors
/// When it can't be written.
pub(super) async fn show(
    mut output: OutputReader,
    mut stdout: impl Write + Send + 'static,
    mut stderr: impl Write + Send + 'static,
) -> io::Result<()> {
    let (sender, mut chunks) = mpsc::channel::<OutputChunk>(QUEUE);
    let (told, mut written) = mpsc::channel(QUEUE);
    std::thread::spawn(move || {
        while let Some(chunk) = chunks.blocking_recv() {
            let end = (chunk.stream, chunk.raw_offset + chunk.bytes.len() as u64);
            let result = match chunk.stream {
                Stream::Stdout => stdout.write_all(&chunk.bytes).and_then(|()| stdout.flush()),
                Stream::Stderr => stderr.write_all(&chunk.bytes),
            };
            let result = result.map(|()| end);
            let failed = result.is_err();
            if told.blocking_send(result).is_err() || failed {
                return;
            }
        }
    });
    let (mut under_way, mut over) = (0, false);
    while under_way > 0 || !over {
        tokio::select! {
            chunk = output.next(), if !over && under_way < QUEUE => match chunk {
                Some(chunk) => {
                    under_way += 1;
                    // There is room. A thread that has ended has told why.
                    let _ = sender.send(chunk).await;
                }
                None => over = true,
            },
            told = written.recv() => {
                let Some(told) = told else { return Err(io::Error::other("the thread that writes has ended")) };
                let (stream, end) = told?;
                under_way -= 1;
                // What was read exists.
                let _ = output.acknowledge(stream, end);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::runtime::InputEvent;
    use crate::runtime::streams::{input, output};

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn what_a_pipe_says_is_passed_on_as_it_is_and_so_is_its_end() {
        let (stdin, pipe) = rustix::pipe::pipe().unwrap();
        let (writer, mut reader) = input();
        let said: Vec<u8> =
            (0..1_000_003_u32).map(|number| number.wrapping_mul(number).to_le_bytes()[1]).collect();
        let saying = {
            let said = said.clone();
            std::thread::spawn(move || File::from(pipe).write_all(&said).unwrap())
        };
        let read = async {
            let mut read = Vec::new();
            loop {
                match reader.next(u64::MAX).await {
                    InputEvent::Bytes { offset, bytes } => {
                        read.extend_from_slice(&bytes);
                        reader.written(offset + bytes.len() as u64).unwrap();
                    }
                    InputEvent::End { offset } => return (offset, read),
                    InputEvent::Resize(_) => panic!("nobody resizes"),
                }
            }
        };
        let both = async { tokio::join!(feed(stdin, &writer), read) };
        let (fed, (end, read)) = timeout(SOON, both).await.unwrap();
        fed.unwrap();
        saying.join().unwrap();
        assert!(end == said.len() as u64 && read == said, "{end} of {} bytes", said.len());
    }

    #[tokio::test]
    async fn what_can_not_be_read_is_no_end() {
        let (writer, mut reader) = input();
        let directory = File::open("/").unwrap();
        assert!(feed(directory, &writer).await.is_err());
        assert!(timeout(Duration::from_millis(50), reader.next(u64::MAX)).await.is_err(), "it has not ended");
    }

    #[tokio::test]
    async fn nobody_waits_for_stdin_once_the_input_is_refused() {
        let (stdin, pipe) = rustix::pipe::pipe().unwrap();
        let (writer, reader) = input();
        drop(reader);
        let mut pipe = File::from(pipe);
        pipe.write_all(b"x").unwrap();
        timeout(SOON, feed(stdin, &writer)).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_is_a_broken_pipe() {
        let (gone, pipe) = rustix::pipe::pipe().unwrap();
        drop(gone);
        let (writer, reader) = output();
        writer.push(Stream::Stdout, 0, b"x").unwrap();
        let shown = timeout(SOON, show(reader, File::from(pipe), io::sink())).await.unwrap();
        assert_eq!(shown.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn what_is_written_is_acknowledged_and_what_is_not_holds_back() {
        let (looked_at, pipe) = rustix::pipe::pipe().unwrap();
        let (writer, reader) = output();
        let shown = tokio::spawn(show(reader, File::from(pipe), io::sink()));
        let block = vec![b'x'; 64 << 10];
        let mut sent = 0;
        while timeout(Duration::from_millis(300), writer.send(Stream::Stdout, &block)).await.is_ok() {
            sent += 1;
            assert!(sent < 64, "nobody has looked");
        }
        drop(writer);
        let looking =
            std::thread::spawn(move || io::copy(&mut File::from(looked_at), &mut io::sink()).unwrap());
        timeout(SOON, shown).await.unwrap().unwrap().unwrap();
        assert_eq!(looking.join().unwrap(), sent * block.len() as u64);
    }
}
