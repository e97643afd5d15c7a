use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

/// What stands at an offset of the input depends on the offset alone.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| (0..=250).cycle().take(251 + (64 << 10)).collect());

fn take(input: &mut InputBuffer, offset: u64, data: &str) -> Result<(), InputError> {
    input.take(offset, Bytes::copy_from_slice(data.as_bytes()), false)
}

#[test]
fn what_is_known_is_passed_over_and_a_gap_is_refused() {
    let mut input = InputBuffer::open();
    take(&mut input, 0, "abc").unwrap();
    take(&mut input, 1, "bcde").unwrap();
    assert_eq!(take(&mut input, 6, "x"), Err(InputError::Gap { offset: 6, received: 5 }));
    assert_eq!(input.peek(), NextInput::Bytes("abcde".into()));
    input.wrote(2);
    assert_eq!(input.peek(), NextInput::Bytes("cde".into()));
    input.wrote(3);
    assert_eq!(input.peek(), NextInput::Wait);
    input.take(5, Bytes::new(), true).unwrap();
    assert_eq!(input.peek(), NextInput::End);
}

#[test]
fn an_end_is_one_place() {
    let mut input = InputBuffer::open();
    take(&mut input, 0, "abc").unwrap();
    assert!(input.take(1, Bytes::new(), true).is_err(), "there is more than that");
    input.take(0, "abc".into(), true).unwrap();
    input.take(0, "abc".into(), true).unwrap();
    take(&mut input, 0, "ab").unwrap();
    assert_eq!(take(&mut input, 3, "x"), Err(InputError::BeyondEnd { until: 4, end: 3 }));
    assert!(input.take(2, Bytes::new(), true).is_err());
}

#[test]
fn the_limit_is_what_was_told() {
    let mut input = InputBuffer::open();
    let block = Bytes::from(vec![0; MAX_DATA_BYTES]);
    for number in 0..4 {
        input.take(number * MAX_DATA_BYTES as u64, block.clone(), false).unwrap();
    }
    let until = WINDOW_BYTES + 1;
    assert_eq!(
        take(&mut input, WINDOW_BYTES, "x"),
        Err(InputError::BeyondLimit { until, limit: WINDOW_BYTES })
    );
    input.wrote(MAX_DATA_BYTES);
    assert!(!input.has_news());
    assert!(take(&mut input, WINDOW_BYTES, "x").is_err());
    input.peek();
    input.wrote(MAX_DATA_BYTES);
    assert!(input.has_news(), "half of the window has moved");
    assert_eq!(input.tell().input_limit, WINDOW_BYTES + 2 * MAX_DATA_BYTES as u64);
    take(&mut input, WINDOW_BYTES, "x").unwrap();
    let too_long = vec![0; MAX_DATA_BYTES + 1];
    assert!(matches!(input.take(0, too_long.into(), false), Err(InputError::TooLong { .. })));
}

#[test]
fn what_nobody_reads_is_dropped_and_told() {
    let mut input = InputBuffer::open();
    take(&mut input, 0, "abc").unwrap();
    input.peek();
    input.wrote(1);
    input.close();
    assert!(input.has_news());
    let state = input.tell();
    assert_eq!((state.input_written, state.input_closed), (1, true));
    take(&mut input, 3, "defg").unwrap();
    assert_eq!(input.peek(), NextInput::End);
    assert!(!input.has_news());
}

proptest! {
    /// A host that sends from wherever it believes to be, a program that reads as it likes.
    #[test]
    fn the_program_is_given_every_byte_once(
        acts in proptest::collection::vec((0..3u8, 0..50u64, 1..60_000usize), 0..120),
    ) {
        let expected = |from: u64, length: usize| {
            let start = usize::try_from(from % 251).unwrap();
            &PATTERN[start..start + length]
        };
        let mut input = InputBuffer::open();
        let (mut sent, mut limit, mut got) = (0u64, WINDOW_BYTES, 0u64);
        for (act, back, length) in acts {
            match act {
                0 => {
                    let from = sent.saturating_sub(back);
                    let until = (from + length as u64).min(limit);
                    let data = expected(from, usize::try_from(until - from).unwrap());
                    input.take(from, data.into(), false).unwrap();
                    sent = sent.max(until);
                }
                1 => if let NextInput::Bytes(bytes) = input.peek() {
                    let length = length.min(bytes.len());
                    prop_assert!(&bytes[..length] == expected(got, length));
                    input.wrote(length);
                    got += length as u64;
                },
                _ => if input.has_news() {
                    let state = input.tell();
                    prop_assert_eq!(state.input_written, got);
                    prop_assert!(state.input_limit >= limit);
                    limit = state.input_limit;
                },
            }
            prop_assert!(sent - got <= 2 * WINDOW_BYTES);
            prop_assert!(got < sent || got == input.told.input_written || input.has_news());
        }
    }

    #[test]
    fn nothing_that_a_host_says_panics(
        acts in proptest::collection::vec((0..10u64, 0..10usize, any::<bool>(), 0..8usize), 0..40),
    ) {
        let mut input = InputBuffer::open();
        for (offset, length, end, read) in acts {
            let offset = if offset == 9 { u64::MAX } else { offset };
            let before = (input.received, input.end);
            if input.take(offset, vec![0; length].into(), end).is_err() {
                prop_assert_eq!((input.received, input.end), before);
            }
            if let NextInput::Bytes(bytes) = input.peek() {
                input.wrote(read.min(bytes.len()));
            }
            prop_assert!(input.end.is_none_or(|end| input.received <= end));
        }
    }
}
