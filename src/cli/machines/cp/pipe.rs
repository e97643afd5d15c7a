//! Between async streams and threads that read and write files: a few pieces at a time.

use std::io::{self, Read, Write};

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;

/// Pieces under way.
const QUEUE: usize = 4;

/// Of what a thread writes, as the contract has it for input.
const MAX_PIECE_BYTES: usize = 64 << 10;

pub(super) fn pieces() -> (mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>) {
    mpsc::channel(QUEUE)
}

/// What comes, as a thread reads it. Ends where the sender does.
#[derive(Debug)]
pub(super) struct PieceReader {
    pieces: mpsc::Receiver<Bytes>,
    present: Bytes,
}

impl PieceReader {
    pub(super) fn new(pieces: mpsc::Receiver<Bytes>) -> Self {
        Self { pieces, present: Bytes::new() }
    }
}

impl Read for PieceReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.present.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.present = piece,
                None => return Ok(0),
            }
        }
        let length = into.len().min(self.present.len());
        self.present.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}

/// What a thread writes. Nobody receives any more: a broken pipe.
#[derive(Debug)]
pub(super) struct PieceWriter(pub mpsc::Sender<Bytes>);

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(MAX_PIECE_BYTES);
        let piece = Bytes::copy_from_slice(&bytes[..length]);
        self.0.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
