//! The machine key: what proves that a connection comes from the agent that the host has greeted first.
//!
//! It is in this process's memory and nowhere else in the guest: never written, logged, passed on or shown, and overwritten
//! when it is dropped. That no other process can read the memory is [`crate::sys::hide_memory`]'s part.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The contract's.
const KEY_BYTES: usize = 32;

/// What the proof begins with, so that it is one of this and of nothing else.
const CONTEXT: &[u8] = b"creel.resume.1";

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the host gave a machine key of {0} bytes; {KEY_BYTES} are needed")]
pub struct InvalidKey(usize);

pub struct MachineKey([u8; KEY_BYTES]);

impl TryFrom<&[u8]> for MachineKey {
    type Error = InvalidKey;

    fn try_from(key: &[u8]) -> Result<Self, InvalidKey> {
        key.try_into().map(Self).map_err(|_| InvalidKey(key.len()))
    }
}

impl MachineKey {
    /// RFC 2104 with SHA-256.
    pub fn prove(&self, nonce: &[u8], boot_id: &str) -> Vec<u8> {
        let mut hmac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length will do");
        for part in [CONTEXT, nonce, boot_id.as_bytes()] {
            hmac.update(part);
        }
        hmac.finalize().into_bytes().to_vec()
    }
}

impl fmt::Debug for MachineKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MachineKey(..)")
    }
}

impl Drop for MachineKey {
    fn drop(&mut self) {
        // Not to be left out as a write that nobody reads.
        std::hint::black_box(&mut self.0).fill(0);
        std::hint::black_box(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python's `hmac`.
    #[test]
    fn the_proof_is_the_contract_s() {
        let key = MachineKey::try_from(&[0x0b; 32][..]).unwrap();
        let hmac = key.prove(&[7; 32], "11111111-2222-3333-4444-555555555555");
        let hex: String = hmac.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "3628147076673435756c96a363c5d8806c60fcdbfb063b488e4922454e997123");
    }

    #[test]
    fn a_key_is_32_bytes_and_is_not_shown() {
        assert_eq!(MachineKey::try_from(&[1; 31][..]).unwrap_err(), InvalidKey(31));
        let key = MachineKey::try_from(&[77; 32][..]).unwrap();
        assert_eq!(format!("{key:?}"), "MachineKey(..)");
    }
}
