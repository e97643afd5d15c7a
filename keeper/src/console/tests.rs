use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;

fn scratch(sizes: ConsoleSizes) -> (tempfile::TempDir, ConsoleWriter, File) {
    let directory = tempfile::tempdir().expect("a scratch directory");
    let fd = File::open(directory.path()).expect("open");
    let writer = ConsoleWriter::create(fd.as_fd(), "console", sizes).expect("created");
    let reader = File::open(directory.path().join("console")).expect("open");
    (directory, writer, reader)
}

proptest! {
    #[test]
    fn keeps_the_first_and_the_last_bytes_of_any_stream(
        head_bytes in 0u32..40,
        tail_bytes in 0u32..40,
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20),
    ) {
        let (_directory, mut writer, reader) = scratch(ConsoleSizes { head_bytes, tail_bytes });
        let mut model: Vec<u8> = Vec::new();
        for chunk in &chunks {
            writer.append(chunk);
            model.extend(chunk);
            let history = ConsoleHistory::read(&reader).expect("readable");
            let head = model.len().min(head_bytes as usize);
            let tail = (model.len() - head).min(tail_bytes as usize);
            prop_assert_eq!(&history.head, &model[..head]);
            prop_assert_eq!(&history.tail, &model[model.len() - tail..]);
            prop_assert_eq!(history.dropped_bytes(), (model.len() - head - tail) as u64);
            let last = history.last(10);
            prop_assert!(model.ends_with(&last));
            if history.dropped_bytes() == 0 {
                prop_assert_eq!(last.len(), model.len().min(10));
            }
        }
    }

    /// A file of which only a part reached the disk, or whose bytes are anything, never panics a reader.
    #[test]
    fn any_file_is_read_or_refused(cut in 0u64..200, junk in prop::collection::vec((0u64..160, any::<u8>()), 0..12)) {
        let (directory, mut writer, reader) = scratch(ConsoleSizes { head_bytes: 32, tail_bytes: 64 });
        writer.append(&[7; 300]);
        let file = File::options().write(true).open(directory.path().join("console")).expect("open");
        for (offset, byte) in junk {
            // The sizes are left alone: a reader rightly allocates what they say, up to their bound.
            if !(12..20).contains(&offset) {
                write_at(file.as_fd(), &[byte], offset).expect("written");
            }
        }
        file.set_len(cut).expect("cut");
        if let Ok(history) = ConsoleHistory::read(&reader) {
            prop_assert!(history.head.len() <= 32 && history.tail.len() <= 64);
            let _ = (history.last(1000), history.dropped_bytes());
        }
    }
}

#[test]
fn a_writer_that_died_between_bytes_and_commit_leaves_whole_bytes() {
    let (_directory, mut writer, reader) = scratch(ConsoleSizes { head_bytes: 0, tail_bytes: 8 });
    writer.append(b"abcdefgh");
    // As if it had announced four more and stored two of them.
    write_at(writer.file.as_fd(), &12u64.to_le_bytes(), ANNOUNCED_AT).expect("written");
    write_at(writer.file.as_fd(), b"XX", HEADER_BYTES).expect("written");
    let history = ConsoleHistory::read(&reader).expect("readable");
    assert_eq!(history.tail, b"efgh");
    assert_eq!(history.total, 8);
    assert_eq!(history.dropped_bytes(), 4);
}

/// The stream is a counter, so a reader can tell whether each byte is the one that belongs at its offset.
#[test]
fn a_reader_beside_a_fast_writer_sees_only_whole_bytes() {
    let (_directory, mut writer, reader) = scratch(ConsoleSizes { head_bytes: 100, tail_bytes: 4096 });
    let byte_at = |offset: u64| (offset % 251) as u8;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut offset = 0;
            while offset < 20_000_000 {
                let chunk: Vec<u8> = (offset..offset + 777).map(byte_at).collect();
                writer.append(&chunk);
                offset += 777;
            }
            done.store(true, Ordering::Relaxed);
        });
        let mut previous = 0;
        while !done.load(Ordering::Relaxed) {
            let history = ConsoleHistory::read(&reader).expect("readable");
            assert!(history.total >= previous, "the stream only grows");
            previous = history.total;
            let head = (0..).zip(&history.head);
            let tail = (history.total - history.tail.len() as u64..).zip(&history.tail);
            assert!(
                head.chain(tail).all(|(offset, byte)| *byte == byte_at(offset)),
                "a torn byte was returned"
            );
        }
    });
}
