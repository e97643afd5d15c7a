//! Bytes of which no part repeats, so that anything lost, doubled or moved shows.

/// Marsaglia's xorshift64.
#[derive(Debug)]
pub struct Noise(u64);

impl Default for Noise {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Noise {
    /// The next bytes. A length that is no multiple of eight loses the rest of its last word.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes()[..word.len()]);
        }
    }

    pub fn take(bytes: usize) -> Vec<u8> {
        let mut taken = vec![0; bytes];
        Self::default().fill(&mut taken);
        taken
    }
}
