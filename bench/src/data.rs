//! Bytes to be moved: the same in each run, and not to be squeezed.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// How much is made once, and sent again and again.
pub const BLOCK_BYTES: usize = 1 << 20;

/// xorshift64*: good enough that no filter and no disk finds a pattern.
#[derive(Debug)]
struct Noise(u64);

impl Iterator for Noise {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        Some(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }
}

/// Random bytes: a whole number of eights.
pub fn noise(bytes: usize) -> Bytes {
    Noise(0x9e37_79b9_7f4a_7c15).take(bytes / 8).flat_map(u64::to_le_bytes).collect::<Vec<u8>>().into()
}

/// Lines of 63 characters, as a build writes them: what a mask has to look through.
pub fn text(bytes: usize) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .";
    let letters = Noise(0x0123_4567_89ab_cdef).flat_map(|word| {
        let digits = (0..10).map(move |n| usize::try_from((word >> (6 * n)) & 63).unwrap_or_default());
        digits.map(|digit| ALPHABET[digit])
    });
    let mut text: Vec<u8> = letters.take(bytes).collect();
    text.iter_mut().skip(63).step_by(64).for_each(|end| *end = b'\n');
    text
}

/// In hexadecimal, as sha256sum prints it.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_come_each_time() {
        assert_eq!(noise(4096), noise(4096));
        assert_eq!(noise(4096).len(), 4096);
        let text = String::from_utf8(text(640)).unwrap();
        assert_eq!(text.lines().count(), 10);
        assert!(text.lines().all(|line| line.len() == 63));
    }

    #[test]
    fn hashes_are_written_as_sha256sum_does() {
        assert_eq!(sha256(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
