//! Trees packed and unpacked in real directories, and archives of others, honest and hostile.

#![expect(clippy::unwrap_used, reason = "all of this crate is tests, helpers included")]

mod changing;
mod forge;
mod hostile;
mod interop;
mod places;
mod random;
mod snapshot;
mod sparse;

use std::path::Path;

use creel_tree::{Complaint, Destination, PackComplaint, Packed, Source, UnpackError, Unpacked};

/// Packs without a complaint.
fn pack(path: &Path) -> Vec<u8> {
    let (archive, _, complaints) = pack_with_complaints(path);
    assert_eq!(complaints, Vec::<String>::new());
    archive
}

fn pack_with_complaints(path: &Path) -> (Vec<u8>, Packed, Vec<String>) {
    let mut complaints = Vec::new();
    let mut tell = |complaint: PackComplaint| {
        complaints.push(complaint.to_string());
        Ok(())
    };
    let mut archive = Vec::new();
    let source = Source::open(path, false).unwrap();
    let packed = creel_tree::pack(&source, &mut archive, &mut tell).unwrap();
    assert_eq!(packed.complaints, complaints.len() as u64);
    (archive, packed, complaints)
}

/// Unpacks below an existing directory, or under another name. The first complaint is the error.
fn unpack(archive: &[u8], into: &Path) -> Result<Unpacked, UnpackError> {
    creel_tree::unpack(archive, Destination::resolve(into).unwrap(), &mut Err)
}

fn unpack_with_complaints(archive: &[u8], into: &Path) -> (Result<Unpacked, UnpackError>, Vec<String>) {
    let mut complaints = Vec::new();
    let mut tell = |complaint: Complaint| {
        complaints.push(complaint.to_string());
        Ok(())
    };
    let unpacked = creel_tree::unpack(archive, Destination::resolve(into).unwrap(), &mut tell);
    (unpacked, complaints)
}
