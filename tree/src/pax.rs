//! The records of pax extended headers: `<length> <keyword>=<value>\n`, the length counting all of it (POSIX.1-2024, pax).
//!
//! They are split by their lengths: a value may hold any byte, newlines among them.

/// Adds a record.
pub(crate) fn record(records: &mut Vec<u8>, keyword: &str, value: &[u8]) {
    // The blank, `=` and the newline.
    let rest = keyword.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {keyword}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// The records in `bytes`; `None` in the place of what is not one, after which nothing comes.
pub(crate) fn records(mut bytes: &[u8]) -> impl Iterator<Item = Option<(&[u8], &[u8])>> {
    std::iter::from_fn(move || {
        // Some writers fill up with NULs.
        if bytes.first().is_none_or(|first| *first == 0) {
            return None;
        }
        let Some((keyword, value, rest)) = split(bytes) else {
            bytes = &[];
            return Some(None);
        };
        bytes = rest;
        Some(Some((keyword, value)))
    })
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..blank]).ok()?.parse().ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let content = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = content.iter().position(|byte| *byte == b'=')?;
    Some((&content[..equals], &content[equals + 1..], rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_count_themselves() {
        for (value, expected) in [(5, "11 a=xxxxx\n"), (92, "98 a="), (93, "99 a="), (94, "101 a=")] {
            let mut bytes = Vec::new();
            record(&mut bytes, "a", &vec![b'x'; value]);
            assert!(bytes.starts_with(expected.as_bytes()), "{}", String::from_utf8_lossy(&bytes));
            assert!(expected.starts_with(&bytes.len().to_string()));
        }
    }

    #[test]
    fn what_is_no_record_ends_the_list() {
        for broken in
            [&b"5 a=b"[..], b"99 a=b\n", b"6 a=bc", b"x a=b\n", b"5 abc\n", b"3 \n", b"0 a=b\n", b"7a=bcd\n"]
        {
            assert_eq!(records(broken).collect::<Vec<_>>(), [None], "{}", String::from_utf8_lossy(broken));
        }
        assert_eq!(records(b"6 a=b\n\0\0\0").collect::<Vec<_>>(), [Some((&b"a"[..], &b"b"[..]))]);
    }

    proptest! {
        #[test]
        fn records_survive(written in proptest::collection::vec(("[a-zA-Z.]{1,20}", proptest::collection::vec(any::<u8>(), 0..200)), 0..5)) {
            let mut bytes = Vec::new();
            for (keyword, value) in &written {
                record(&mut bytes, keyword, value);
            }
            let read: Vec<_> = records(&bytes).map(|record| record.map(|(k, v)| (k.to_vec(), v.to_vec()))).collect();
            let expected: Vec<_> = written.into_iter().map(|(k, v)| Some((k.into_bytes(), v))).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            records(&bytes).count();
        }
    }
}
