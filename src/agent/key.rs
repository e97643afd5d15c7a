//! The secret of a machine's life, by which its agent is known again on a later connection.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::Sha256;

/// What a proof begins with: one of this contract is none of another's.
const PURPOSE: &[u8] = b"creel.resume.1";

/// Random bytes that are never used twice.
pub type Nonce = [u8; 32];

/// 32 bytes that only a machine's agent and its host know.
#[derive(Clone)]
pub struct MachineKey([u8; 32]);

impl MachineKey {
    /// # Errors
    /// As getrandom(2) has them.
    pub fn generate() -> std::io::Result<Self> {
        random().map(Self)
    }

    /// The key itself: for the first Init, and for the one place where it may be kept for whoever owns the machine after
    /// us. Never to be logged.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `proof` is what the owner of this key says to `nonce`, in a time that does not depend on where it is
    /// wrong.
    pub fn proves(&self, nonce: &Nonce, boot_id: &str, proof: &[u8]) -> bool {
        // HMAC takes keys of every length.
        let Ok(mut hmac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return false };
        hmac.update(PURPOSE);
        hmac.update(nonce);
        hmac.update(boot_id.as_bytes());
        hmac.verify_slice(proof).is_ok()
    }
}

impl fmt::Debug for MachineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MachineKey(..)")
    }
}

/// # Errors
/// As getrandom(2) has them.
pub fn random() -> std::io::Result<Nonce> {
    let mut bytes = [0; 32];
    // Up to 256 bytes come whole and uninterrupted (getrandom(2)).
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With another implementation: `printf 'creel.resume.1' | cat - nonce boot | openssl dgst -sha256 -mac HMAC`.
    fn proof(key: &MachineKey, nonce: &Nonce, boot_id: &str) -> Vec<u8> {
        let mut hmac = Hmac::<Sha256>::new_from_slice(&key.0).unwrap();
        hmac.update(&[PURPOSE, nonce, boot_id.as_bytes()].concat());
        hmac.finalize().into_bytes().to_vec()
    }

    #[test]
    fn a_proof_is_of_one_key_one_nonce_and_one_boot() {
        let (key, other) = (MachineKey::generate().unwrap(), MachineKey::generate().unwrap());
        let (nonce, fresh) = (random().unwrap(), random().unwrap());
        let right = proof(&key, &nonce, "boot");
        assert!(key.proves(&nonce, "boot", &right));
        assert!(!key.proves(&fresh, "boot", &right), "it is replayed");
        assert!(!key.proves(&nonce, "toob", &right));
        assert!(!other.proves(&nonce, "boot", &right));
        assert!(!key.proves(&nonce, "boot", &right[..31]), "half of it is none");
        assert!(!key.proves(&nonce, "boot", b""));
    }

    #[test]
    fn a_key_is_not_shown() {
        let key = MachineKey([0xab; 32]);
        assert_eq!(format!("{key:?}"), "MachineKey(..)");
    }
}
