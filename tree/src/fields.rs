//! Numbers in tar headers.

/// A number as tar headers have it: octal digits with blanks around them, or, where the first bit is set, a big-endian
/// two's complement (GNU's extension, "base-256"). An empty field is 0.
pub(crate) fn number(field: &[u8]) -> Option<i64> {
    match field {
        [first, rest @ ..] if first & 0x80 != 0 => {
            // The second bit is the sign.
            let start = if first & 0x40 == 0 { i64::from(first & 0x3f) } else { i64::from(*first) - 0x100 };
            rest.iter().try_fold(start, |value, byte| value.checked_mul(256)?.checked_add(i64::from(*byte)))
        }
        _ => {
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            let text = std::str::from_utf8(&field[..end]).ok()?.trim_matches(' ');
            match text {
                "" => Some(0),
                // `from_str_radix` takes a sign.
                _ if text.bytes().all(|byte| byte.is_ascii_digit()) => i64::from_str_radix(text, 8).ok(),
                _ => None,
            }
        }
    }
}

/// A number that can't be negative.
pub(crate) fn size(field: &[u8]) -> Option<u64> {
    number(field).and_then(|number| u64::try_from(number).ok())
}

/// The bytes before the first NUL.
pub(crate) fn text(field: &[u8]) -> &[u8] {
    field.iter().position(|byte| *byte == 0).map_or(field, |end| &field[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_tar_are_read() {
        let table: [(&[u8], Option<i64>); 9] = [
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"77777777777 ", Some(0o77_777_777_777)),
            (b"\0\0\0\0", Some(0)),
            (b"\x80\0\0\0\0\0\0\x02\0\0\0\0", Some(2 << 32)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"0000648\0", None),
            (b"-000644\0", None),
        ];
        for (field, expected) in table {
            assert_eq!(number(field), expected, "{field:?}");
        }
        assert_eq!(size(b"\xff\xff"), None);
    }
}
