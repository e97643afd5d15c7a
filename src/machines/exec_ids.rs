//! The ids of execs that callers chose: each may be used once in a machine's life.
//!
//! Version 1 of the agent's contract has no way to say whether an exec that is no longer waited for has ended, so a
//! second one of its id could get the first one's output and end.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

/// How many a machine may have had.
pub const MAX_CHOSEN_IDS: usize = 1 << 16;

/// Who chose an exec's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedBy {
    /// It may be one that was used before.
    Caller,
    /// It is random, and told to nobody.
    Us,
}

/// What a machine has seen. Digests, since an id may be long.
#[derive(Debug, Default)]
pub(super) struct ExecIds(Mutex<HashSet<[u8; DIGEST_BYTES]>>);

/// Of SHA-256's 32; two ids that share them take 2^64 tries to find, and are refused.
const DIGEST_BYTES: usize = 16;

/// Why an id can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    Used,
    TooMany,
}

impl ExecIds {
    pub(super) fn take(&self, id: &str) -> Result<(), Unusable> {
        let mut digest = [0; DIGEST_BYTES];
        digest.copy_from_slice(&Sha256::digest(id)[..DIGEST_BYTES]);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.contains(&digest) {
            return Err(Unusable::Used);
        }
        if seen.len() == MAX_CHOSEN_IDS {
            return Err(Unusable::TooMany);
        }
        seen.insert(digest);
        Ok(())
    }

    /// The machine has ended.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = HashSet::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_once_and_there_is_an_end_to_them() {
        let ids = ExecIds::default();
        for number in 0..MAX_CHOSEN_IDS {
            assert_eq!(ids.take(&number.to_string()), Ok(()));
        }
        assert_eq!(ids.take("7"), Err(Unusable::Used));
        assert_eq!(ids.take("one more"), Err(Unusable::TooMany));
    }
}
