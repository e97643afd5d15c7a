//! A stream of agent frames, however it is cut: the same messages, the same end, and no memory for what was only announced.

use bytes::BytesMut;
use creel::agent::wire::{GuestCodec, Heard};
use creel_proto::{Envelope, FrameCodec, FrameError};
use tokio_util::codec::{Decoder, Encoder};

use super::input::{Input, chunks};

/// How a stream ended: a number for each kind of error.
type End = Option<u8>;

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let lengths = [usize::from(input.byte()), usize::from(input.byte())];
    let stream = input.0;
    let (whole, end) = decoded(&[stream]);
    assert_eq!(decoded(&chunks(stream, &lengths)), (whole.clone(), end), "cut otherwise");

    // The host's own decoder, which looks at a message before it takes it apart.
    let mut guest = BytesMut::from(stream);
    for envelope in &whole {
        match GuestCodec::default().decode(&mut guest) {
            Ok(Some(Heard::Message(heard))) => assert_eq!(heard, *envelope),
            Ok(Some(Heard::PassedOver)) => {}
            other => panic!("{other:?} instead of {envelope:?}"),
        }
    }
    // It may pass over what is no message; whatever else comes, it ends.
    while let Ok(Some(_)) = GuestCodec::default().decode(&mut guest) {}

    for envelope in whole {
        let mut frame = BytesMut::new();
        match FrameCodec.encode(envelope.clone(), &mut frame) {
            Ok(()) => assert_eq!(FrameCodec.decode(&mut frame).ok().flatten(), Some(envelope)),
            Err(FrameError::TooLongToSend { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn decoded(chunks: &[&[u8]]) -> (Vec<Envelope>, End) {
    let (mut buffer, mut envelopes) = (BytesMut::new(), Vec::new());
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        loop {
            match FrameCodec.decode(&mut buffer) {
                Ok(Some(envelope)) => envelopes.push(envelope),
                Ok(None) => break,
                Err(error) => return (envelopes, Some(kind(&error))),
            }
        }
        let arrived: usize = chunks.iter().map(|chunk| chunk.len()).sum();
        assert!(buffer.capacity() <= 2 * (arrived + (128 << 10)), "{} for {arrived}", buffer.capacity());
    }
    (envelopes, None)
}

fn kind(error: &FrameError) -> u8 {
    match error {
        FrameError::TooLong { .. } => 0,
        FrameError::TooLongToSend { .. } => 1,
        FrameError::Undecodable(_) => 2,
        FrameError::Invalid(_) => 3,
        FrameError::Io(_) => 4,
    }
}
