//! Names of machines and of those they belong to.

use std::fmt;

use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

/// Names one machine on this host. Everything the machine holds is named after it (`m-<id>`), so that
/// what is left behind can be recognised as ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MachineId(String);

/// 32 characters, none easily taken for another (Crockford's base 32, lower case).
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// 50 bits: a collision among a million living machines has a chance of one in two thousand, and would
/// be an error at `mkdir`, not a mix-up.
const ID_CHARS: usize = 10;

impl MachineId {
    /// A new random id of ten characters.
    ///
    /// # Errors
    /// When the kernel gives no random bytes (getrandom(2)).
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0; ID_CHARS];
        // Up to 256 bytes come whole and uninterrupted (getrandom(2)).
        getrandom(&mut bytes, GetRandomFlags::empty())?;
        Ok(Self(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()))
    }

    /// An id that somebody wrote down; `None` if it can't be one.
    pub fn parse(text: &str) -> Option<Self> {
        let well_formed = text.len() == ID_CHARS && text.bytes().all(|byte| ALPHABET.contains(&byte));
        well_formed.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for MachineId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("`{text}` is no machine id"))
    }
}

impl From<MachineId> for String {
    fn from(id: MachineId) -> Self {
        id.0
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Whose workflow it is. An embedded run's tenant is the local user.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tenant {
    /// A DID, or `local:<uid>`.
    pub owner: String,
    /// The repository's DID; empty for a local repository that has none.
    pub repo_did: String,
}

impl Tenant {
    /// The tenant of runs that a local user starts without a daemon.
    pub fn local(uid: u32) -> Self {
        Self { owner: format!("local:{uid}"), repo_did: String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ten_plain_characters_and_differ() {
        let (one, other) = (MachineId::random().unwrap(), MachineId::random().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.as_str().len(), ID_CHARS);
        assert!(one.as_str().bytes().all(|byte| ALPHABET.contains(&byte)));
        assert_eq!(MachineId::parse(one.as_str()), Some(one));
        for other in ["", "0123456789a", "012345678", "ABCDEFGHJK", "../../etc.", "éééé01"] {
            assert_eq!(MachineId::parse(other), None, "{other}");
        }
    }
}
