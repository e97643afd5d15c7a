//! Holes stay holes, and are not sent.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use crate::{pack, unpack};

const MIB: u64 = 1 << 20;

/// 4 KiB of sevens at each offset.
fn make(path: &Path, size: u64, data: &[u64]) {
    let file = File::create_new(path).unwrap();
    file.set_len(size).unwrap();
    for offset in data {
        file.write_all_at(&[7; 4096], *offset).unwrap();
    }
}

fn taken(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

/// The machine's own file system has to know holes, or this shows nothing.
#[test]
fn a_gibibyte_with_a_page_of_data_moves_as_little() {
    let room = tempfile::tempdir().unwrap();
    for (name, data) in
        [("begin", vec![0]), ("middle", vec![512 * MIB]), ("end", vec![1024 * MIB - 4096]), ("none", vec![])]
    {
        let from = room.path().join(name);
        make(&from, 1024 * MIB, &data);
        assert!(taken(&from) < MIB, "the file system of {} keeps no holes", from.display());
        let archive = pack(&from);
        assert!(archive.len() < 16 << 10, "{name}: {}", archive.len());
        let into = room.path().join("into");
        let unpacked = unpack(&archive, &into).unwrap();
        assert_eq!((unpacked.files, unpacked.bytes), (1, 1024 * MIB), "{name}");
        assert_eq!(fs::metadata(&into).unwrap().len(), 1024 * MIB, "{name}");
        assert!(taken(&into) < MIB, "{name}: {}", taken(&into));
        let file = File::open(&into).unwrap();
        for offset in data {
            let mut page = [0; 4096];
            file.read_exact_at(&mut page, offset).unwrap();
            assert_eq!(page, [7; 4096], "{name}");
        }
    }
}

#[test]
fn a_file_of_many_parts_arrives_whole() {
    let room = tempfile::tempdir().unwrap();
    let (from, into) = (room.path().join("from"), room.path().join("into"));
    let parts: Vec<u64> = (0..3000).map(|number| number * 12288).collect();
    // It ends in the midst of a block.
    make(&from, 3000 * 12288 + 1234, &parts);
    let archive = pack(&from);
    assert!((archive.len() as u64) < 3000 * 4096 + 100_000, "{}", archive.len());
    unpack(&archive, &into).unwrap();
    assert!(fs::read(&from).unwrap() == fs::read(&into).unwrap());
    assert!(taken(&into) < 2 * taken(&from));
}
