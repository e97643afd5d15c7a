//! SHA-256 in the two forms images need: of one file, and of a list of inputs.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Hashes a list of named inputs. Every part is preceded by its length, so no two lists hash alike by running
/// together.
#[derive(Debug)]
pub(super) struct InputHasher(Sha256);

impl InputHasher {
    /// `domain` keeps different kinds of inputs apart and carries the version of the code that uses them.
    pub(super) fn new(domain: &str) -> Self {
        let mut hasher = Self(Sha256::new());
        hasher.part(domain.as_bytes());
        hasher
    }

    pub(super) fn part(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    pub(super) fn file(&mut self, path: &Path) -> io::Result<()> {
        self.part(&sha256_of_file(path)?);
        Ok(())
    }

    /// The same as [`Self::file`] on a file with this content.
    pub(super) fn text_as_file(&mut self, text: &str) {
        self.part(&Sha256::digest(text.as_bytes()));
    }

    pub(super) fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

/// The digest of a file's content.
pub(super) fn sha256_of_file(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().into()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]])
        .map(char::from)
        .collect()
}

/// What [`hex`] was made of.
pub(super) fn from_hex(text: &str) -> Option<[u8; 32]> {
    if !is_sha256_hex(text) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Whether `text` is a SHA-256 as [`hex`] writes it.
pub(super) fn is_sha256_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
