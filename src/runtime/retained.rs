//! Bytes of one or more streams in the order in which they came, kept until they are acknowledged. Pure.
//!
//! What has been read can be read again from any offset that was not acknowledged: that is how a reader who lost its
//! connection goes on where it was. Everything is copied in, so what is held is what is counted: a slice of a large
//! receive buffer would keep all of that buffer.

use std::collections::VecDeque;

use bytes::Bytes;

/// Pieces are put together up to this size.
const MAX_PIECE_BYTES: usize = 64 << 10;

/// More pieces than this are put together even where that moves streams against each other, never within one: a peer
/// that sends byte by byte must not cost a hundred times what it sends. So many may be kept of little, and of much.
const MAX_PIECES: std::ops::RangeInclusive<u64> = 64..=1024;

/// And between those one for so many bytes, since a piece takes about a hundred itself.
const BYTES_PER_PIECE: u64 = 256;

/// A part of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub lane: usize,
    /// Of the first byte.
    pub offset: u64,
    pub bytes: Bytes,
}

/// An offset that can't be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OffsetError {
    #[error("offset {offset} lies before {acknowledged}, up to where all was acknowledged")]
    Forgotten { offset: u64, acknowledged: u64 },
    #[error("offset {offset} lies behind {end}, where the stream ends so far")]
    Beyond { offset: u64, end: u64 },
}

/// `LANES` streams, by number.
#[derive(Debug)]
pub struct Retained<const LANES: usize> {
    pieces: VecDeque<Held>,
    end: [u64; LANES],
    read: [u64; LANES],
    acknowledged: [u64; LANES],
}

#[derive(Debug)]
struct Held {
    lane: usize,
    offset: u64,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// Still grows.
    Open(Vec<u8>),
    /// Somebody has a part of it.
    Shared(Bytes),
}

impl Held {
    fn end(&self) -> u64 {
        self.offset + self.bytes().len() as u64
    }

    fn bytes(&self) -> &[u8] {
        match &self.body {
            Body::Open(bytes) => bytes,
            Body::Shared(bytes) => bytes,
        }
    }

    fn share(&mut self) -> Bytes {
        self.close();
        if let Body::Open(bytes) = &mut self.body {
            self.body = Body::Shared(std::mem::take(bytes).into());
        }
        match &self.body {
            Body::Shared(bytes) => bytes.clone(),
            Body::Open(_) => unreachable!("it was shared just now"),
        }
    }

    /// Puts `bytes` behind its own, if they fit.
    fn extend(&mut self, bytes: &[u8]) -> bool {
        match &mut self.body {
            Body::Open(own) if own.len() + bytes.len() <= MAX_PIECE_BYTES => {
                if own.capacity() - own.len() < bytes.len() {
                    // A quarter more, where a vector would take as much again.
                    own.reserve_exact(bytes.len().max(own.len() / 4));
                }
                own.extend_from_slice(bytes);
                true
            }
            _ => false,
        }
    }

    /// Nothing comes behind its last byte: what was kept free for that is given back.
    fn close(&mut self) {
        if let Body::Open(bytes) = &mut self.body {
            bytes.shrink_to_fit();
        }
    }
}

impl<const LANES: usize> Default for Retained<LANES> {
    fn default() -> Self {
        Self { pieces: VecDeque::new(), end: [0; LANES], read: [0; LANES], acknowledged: [0; LANES] }
    }
}

impl<const LANES: usize> Retained<LANES> {
    /// The next bytes of a stream.
    pub fn push(&mut self, lane: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let offset = self.end[lane];
        self.end[lane] += bytes.len() as u64;
        if self.pieces.back_mut().is_some_and(|last| last.lane == lane && last.extend(bytes)) {
            return;
        }
        if let Some(last) = self.pieces.back_mut() {
            last.close();
        }
        self.pieces.push_back(Held { lane, offset, body: Body::Open(bytes.to_vec()) });
        let held: u64 = (0..LANES).map(|lane| self.held(lane)).sum();
        let most = (held / BYTES_PER_PIECE).clamp(*MAX_PIECES.start(), *MAX_PIECES.end());
        if self.pieces.len() as u64 > most {
            self.put_together();
        }
    }

    /// The next bytes that were not read, in the order in which they came, as far as `limits` (offsets) let each stream
    /// be read.
    pub fn next(&mut self, limits: [u64; LANES]) -> Option<Piece> {
        let read = &mut self.read;
        let held = self.pieces.iter_mut().find(|held| {
            let from = read[held.lane].max(held.offset);
            held.end().min(limits[held.lane]) > from
        })?;
        let (lane, start) = (held.lane, held.offset);
        let offset = read[lane].max(start);
        let until = held.end().min(limits[lane]);
        let whole = held.share();
        // Within one piece, which is in memory.
        let range = usize::try_from(offset - start).ok()?..usize::try_from(until - start).ok()?;
        read[lane] = until;
        Some(Piece { lane, offset, bytes: whole.slice(range) })
    }

    /// All of a stream before `offset` is safe elsewhere, and forgotten here. One that is said again does nothing.
    ///
    /// # Errors
    /// When there is no such byte yet.
    pub fn acknowledge(&mut self, lane: usize, offset: u64) -> Result<(), OffsetError> {
        let end = self.end[lane];
        if offset > end {
            return Err(OffsetError::Beyond { offset, end });
        }
        if offset > self.acknowledged[lane] {
            self.acknowledged[lane] = offset;
            self.read[lane] = self.read[lane].max(offset);
            let acknowledged = self.acknowledged;
            self.pieces.retain(|held| held.end() > acknowledged[held.lane]);
        }
        Ok(())
    }

    /// Reads again from these offsets on.
    ///
    /// # Errors
    /// When one of them was acknowledged, or does not exist yet. Nothing has changed then.
    pub fn rewind(&mut self, offsets: [u64; LANES]) -> Result<(), OffsetError> {
        for (lane, offset) in offsets.into_iter().enumerate() {
            let (acknowledged, end) = (self.acknowledged[lane], self.end[lane]);
            if offset < acknowledged {
                return Err(OffsetError::Forgotten { offset, acknowledged });
            }
            if offset > end {
                return Err(OffsetError::Beyond { offset, end });
            }
        }
        self.read = offsets;
        Ok(())
    }

    /// Where each stream ends so far.
    pub fn end(&self) -> [u64; LANES] {
        self.end
    }

    /// Up to where each stream was read.
    pub fn read(&self) -> [u64; LANES] {
        self.read
    }

    pub fn acknowledged(&self) -> [u64; LANES] {
        self.acknowledged
    }

    /// How much of a stream is held: what came and was not acknowledged.
    pub fn held(&self, lane: usize) -> u64 {
        self.end[lane] - self.acknowledged[lane]
    }

    /// Fewer and larger pieces; each takes the place of the first that is in it.
    fn put_together(&mut self) {
        let mut fewer: Vec<Held> = Vec::new();
        let mut open: [Option<usize>; LANES] = [None; LANES];
        for held in self.pieces.drain(..) {
            let lane = held.lane;
            if let Some(index) = open[lane]
                && fewer[index].extend(held.bytes())
            {
                continue;
            }
            open[lane] = Some(fewer.len());
            let body = Body::Open(held.bytes().to_vec());
            fewer.push(Held { lane, offset: held.offset, body });
        }
        fewer.iter_mut().for_each(Held::close);
        self.pieces = fewer.into();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NO_LIMIT: [u64; 2] = [u64::MAX; 2];

    #[test]
    fn pieces_come_in_the_order_in_which_they_were_written() {
        let mut retained = Retained::<2>::default();
        retained.push(0, b"a");
        retained.push(0, b"b");
        retained.push(1, b"x");
        retained.push(0, b"c");
        let read: Vec<_> =
            std::iter::from_fn(|| retained.next(NO_LIMIT)).map(|piece| (piece.lane, piece.bytes)).collect();
        assert_eq!(read, [(0, "ab".into()), (1, "x".into()), (0, "c".into())]);
    }

    #[test]
    fn a_stream_at_its_limit_does_not_hold_up_the_other() {
        let mut retained = Retained::<2>::default();
        retained.push(0, b"abc");
        retained.push(1, b"xyz");
        assert_eq!(retained.next([1, 9]).unwrap().bytes, "a");
        assert_eq!(retained.next([1, 9]).unwrap().bytes, "xyz");
        assert_eq!(retained.next([1, 9]), None);
        assert_eq!(retained.next([2, 9]).unwrap().bytes, "b");
    }

    #[test]
    fn what_is_acknowledged_is_gone_and_what_is_not_can_be_read_again() {
        let mut retained = Retained::<1>::default();
        retained.push(0, b"abcdef");
        assert_eq!(retained.next([4]).unwrap().bytes, "abcd");
        retained.acknowledge(0, 2).unwrap();
        assert_eq!(retained.rewind([1]), Err(OffsetError::Forgotten { offset: 1, acknowledged: 2 }));
        assert_eq!(retained.rewind([7]), Err(OffsetError::Beyond { offset: 7, end: 6 }));
        retained.rewind([3]).unwrap();
        assert_eq!(retained.next([u64::MAX]), Some(Piece { lane: 0, offset: 3, bytes: "def".into() }));
        assert_eq!(retained.acknowledge(0, 7), Err(OffsetError::Beyond { offset: 7, end: 6 }));
        retained.acknowledge(0, 6).unwrap();
        assert!(retained.pieces.is_empty());
    }

    #[test]
    fn single_bytes_of_two_streams_in_turn_cost_little_more_than_themselves() {
        let mut retained = Retained::<2>::default();
        for number in 0..100_000_u32 {
            retained.push(0, &[number.to_le_bytes()[0]]);
            retained.push(1, &[!number.to_le_bytes()[0]]);
            // A reader that reads each at once and acknowledges nothing.
            while retained.next(NO_LIMIT).is_some() {}
        }
        assert!(retained.pieces.len() as u64 <= *MAX_PIECES.end());
        retained.rewind([0, 0]).unwrap();
        let mut lanes = [Vec::new(), Vec::new()];
        while let Some(piece) = retained.next(NO_LIMIT) {
            assert_eq!(piece.offset, lanes[piece.lane].len() as u64);
            lanes[piece.lane].extend_from_slice(&piece.bytes);
        }
        let first: Vec<u8> = (0..100_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        assert_eq!(lanes[1], first.iter().map(|byte| !byte).collect::<Vec<_>>());
        assert_eq!(lanes[0], first);
    }

    #[derive(Debug, Clone)]
    enum Act {
        Push(usize, Vec<u8>),
        Next([u64; 2]),
        Acknowledge(usize, u64),
        Rewind([u64; 2]),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let small = 0..60u64;
        proptest::collection::vec(
            prop_oneof![
                (0..2usize, proptest::collection::vec(any::<u8>(), 0..20)).prop_map(|(l, b)| Act::Push(l, b)),
                [small.clone(), small.clone()].prop_map(Act::Next),
                (0..2usize, small.clone()).prop_map(|(lane, offset)| Act::Acknowledge(lane, offset)),
                [small.clone(), small].prop_map(Act::Rewind),
            ],
            0..60,
        )
    }

    proptest! {
        /// Against two plain vectors.
        #[test]
        fn every_byte_is_read_at_its_place(acts in acts()) {
            let mut retained = Retained::<2>::default();
            let mut model = [Vec::new(), Vec::new()];
            let (mut read, mut acknowledged) = ([0u64; 2], [0u64; 2]);
            for act in acts {
                match act {
                    Act::Push(lane, bytes) => {
                        retained.push(lane, &bytes);
                        model[lane].extend(bytes);
                    }
                    Act::Next(limits) => {
                        let piece = retained.next(limits);
                        let readable = (0..2).any(|lane| limits[lane].min(model[lane].len() as u64) > read[lane]);
                        prop_assert_eq!(piece.is_some(), readable);
                        if let Some(Piece { lane, offset, bytes }) = piece {
                            prop_assert_eq!(offset, read[lane]);
                            let start = usize::try_from(offset).unwrap();
                            prop_assert_eq!(&bytes[..], &model[lane][start..start + bytes.len()]);
                            read[lane] += bytes.len() as u64;
                            prop_assert!(read[lane] <= limits[lane]);
                        }
                    }
                    Act::Acknowledge(lane, offset) => {
                        let possible = offset <= model[lane].len() as u64;
                        prop_assert_eq!(retained.acknowledge(lane, offset).is_ok(), possible);
                        if possible {
                            acknowledged[lane] = acknowledged[lane].max(offset);
                            read[lane] = read[lane].max(offset);
                        }
                    }
                    Act::Rewind(offsets) => {
                        let possible = (0..2).all(|lane| {
                            (acknowledged[lane]..=model[lane].len() as u64).contains(&offsets[lane])
                        });
                        prop_assert_eq!(retained.rewind(offsets).is_ok(), possible);
                        if possible {
                            read = offsets;
                        }
                    }
                }
                prop_assert_eq!(retained.read(), read);
                prop_assert_eq!(retained.held(0), model[0].len() as u64 - acknowledged[0]);
            }
        }
    }
}
