use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

/// Once for all cases: it takes a while to make.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 1u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(4 * BUFFER_BYTES).collect()
});

fn push(ring: &mut Ring, buffers: &Buffers, most: usize, bytes: &[u8]) -> usize {
    let read = |buffer: &mut Limit<&mut BytesMut>| {
        let length = bytes.len().min(buffer.remaining_mut());
        buffer.put_slice(&bytes[..length]);
        Ok(length)
    };
    ring.fill(most, buffers, read).unwrap()
}

#[test]
fn full_buffers_are_sent_from_where_they_lie_and_used_again() {
    let (mut ring, buffers) = (Ring::default(), Buffers::default());
    let noise = vec![7; BUFFER_BYTES];
    assert_eq!(push(&mut ring, &buffers, BUFFER_BYTES, &noise), FIRST_BUFFER_BYTES);
    let mut places = Vec::new();
    for _ in 0..10 {
        while ring.held() < 2 * BUFFER_BYTES as u64 {
            push(&mut ring, &buffers, BUFFER_BYTES, &noise);
        }
        while let Some(piece) = ring.next(u64::MAX, BUFFER_BYTES) {
            places.push(piece.bytes.as_ptr());
        }
        ring.acknowledge(ring.end(), &buffers).unwrap();
    }
    places.sort_unstable();
    places.dedup();
    assert!(places.len() <= 5, "{} buffers were used", places.len());
}

#[test]
fn single_bytes_cost_little_more_than_themselves() {
    let (mut ring, buffers) = (Ring::default(), Buffers::default());
    for number in 0..200_000_u32 {
        push(&mut ring, &buffers, 1, &number.to_le_bytes()[..1]);
        assert_eq!(ring.next(u64::MAX, BUFFER_BYTES).unwrap().bytes.len(), 1);
    }
    assert!(ring.sealed.len() < 10);
    ring.rewind(0, &buffers).unwrap();
    let mut all = Vec::new();
    while let Some(piece) = ring.next(u64::MAX, BUFFER_BYTES) {
        all.extend_from_slice(&piece.bytes);
    }
    assert!(all.iter().zip(0_u32..).all(|(byte, number)| *byte == number.to_le_bytes()[0]));
    assert_eq!(all.len(), 200_000);
}

#[test]
fn offsets_that_are_not_there_are_refused_and_change_nothing() {
    let (mut ring, buffers) = (Ring::default(), Buffers::default());
    push(&mut ring, &buffers, 9, b"abcdef");
    ring.acknowledge(3, &buffers).unwrap();
    assert_eq!(ring.rewind(2, &buffers), Err(OffsetError::Forgotten { offset: 2, acknowledged: 3 }));
    assert_eq!(ring.rewind(7, &buffers), Err(OffsetError::Beyond { offset: 7, end: 6 }));
    assert_eq!(ring.acknowledge(7, &buffers), Err(OffsetError::Beyond { offset: 7, end: 6 }));
    assert_eq!(ring.next(5, 9), Some(Piece { offset: 3, bytes: "de".into() }));
}

#[derive(Debug, Clone)]
enum Act {
    Fill { most: usize, length: usize },
    Next { ahead: u64, most: usize },
    Acknowledge(u64),
    Rewind(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let size = || prop_oneof![1..40usize, 1..3 * BUFFER_BYTES];
    // Relative to the stream's end so far, counted back.
    let back = || prop_oneof![0..40u64, 0..3 * BUFFER_BYTES as u64];
    proptest::collection::vec(
        prop_oneof![
            3 => (size(), size()).prop_map(|(most, length)| Act::Fill { most, length }),
            3 => (back(), size()).prop_map(|(ahead, most)| Act::Next { ahead, most }),
            1 => back().prop_map(Act::Acknowledge),
            1 => back().prop_map(Act::Rewind),
        ],
        0..60,
    )
}

proptest! {
    /// Against a plain vector.
    #[test]
    fn every_byte_is_sent_at_its_place(acts in acts()) {
        let (mut ring, buffers) = (Ring::default(), Buffers::default());
        let mut model = Vec::new();
        let (mut cursor, mut acknowledged, mut place) = (0u64, 0u64, 0);
        for act in acts {
            let end = model.len() as u64;
            match act {
                Act::Fill { most, length } => {
                    // Where it comes from changes with each: no two places look alike.
                    place = (place + 7919) % BUFFER_BYTES;
                    let taken = push(&mut ring, &buffers, most, &NOISE[place..place + length]);
                    prop_assert!(taken >= 1 && taken <= most.min(BUFFER_BYTES));
                    model.extend_from_slice(&NOISE[place..place + taken]);
                }
                Act::Next { ahead, most } => {
                    let limit = cursor + ahead;
                    let piece = ring.next(limit, most);
                    prop_assert_eq!(piece.is_some(), limit.min(end) > cursor);
                    if let Some(Piece { offset, bytes }) = piece {
                        prop_assert_eq!(offset, cursor);
                        prop_assert!(!bytes.is_empty() && bytes.len() <= most);
                        let start = usize::try_from(offset).unwrap();
                        prop_assert_eq!(&bytes[..], &model[start..start + bytes.len()]);
                        cursor += bytes.len() as u64;
                        prop_assert!(cursor <= limit);
                    }
                }
                Act::Acknowledge(back) => {
                    let offset = end.saturating_sub(back);
                    ring.acknowledge(offset, &buffers).unwrap();
                    acknowledged = acknowledged.max(offset);
                    cursor = cursor.max(offset);
                }
                Act::Rewind(back) => {
                    let offset = end.saturating_sub(back);
                    prop_assert_eq!(ring.rewind(offset, &buffers).is_ok(), offset >= acknowledged);
                    if offset >= acknowledged {
                        (acknowledged, cursor) = (offset, offset);
                    }
                }
            }
            prop_assert_eq!(ring.end(), model.len() as u64);
            prop_assert_eq!(ring.held(), model.len() as u64 - acknowledged);
            prop_assert_eq!(ring.is_sent(), cursor == model.len() as u64);
            let kept: usize = ring.sealed.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() + ring.open.len();
            prop_assert!(kept as u64 <= ring.held() + BUFFER_BYTES as u64);
        }
    }
}
