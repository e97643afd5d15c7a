//! Copies a sparse file as cheaply as the file system allows.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek};
use rustix::io::Errno;

/// Makes `dest`, an empty file, equal to `source` cut or extended to `size` bytes: by sharing its blocks, else by
/// copying its data and leaving its holes.
pub(super) fn sparse(source: &File, dest: &File, size: u64) -> io::Result<()> {
    match ioctl_ficlone(dest, source) {
        Ok(()) => return dest.set_len(size),
        Err(error) if cannot_share(error) => {}
        Err(error) => return Err(error.into()),
    }
    dest.set_len(size)?;
    let mut at = 0;
    while at < size {
        let data = match seek(source, SeekFrom::Data(at)) {
            Ok(data) => data,
            // No data from here to the end (lseek(2)).
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let hole = seek(source, SeekFrom::Hole(data))?.min(size);
        copy_extent(source, dest, data, hole)?;
        at = hole;
    }
    Ok(())
}

/// FICLONE where it does not exist, or between file systems (ioctl_ficlone(2)).
fn cannot_share(error: Errno) -> bool {
    matches!(error, Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS | Errno::PERM)
}

fn copy_extent(source: &File, dest: &File, from: u64, to: u64) -> io::Result<()> {
    let (mut read_at, mut write_at) = (from, from);
    while read_at < to {
        let length = usize::try_from(to - read_at).unwrap_or(usize::MAX).min(1 << 30);
        match copy_file_range(source, Some(&mut read_at), dest, Some(&mut write_at), length) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if cannot_share(error) => return copy_by_hand(source, dest, read_at, to),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(source: &File, dest: &File, mut at: u64, to: u64) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    while at < to {
        let length = usize::try_from(to - at).unwrap_or(usize::MAX).min(buffer.len());
        source.read_exact_at(&mut buffer[..length], at)?;
        dest.write_all_at(&buffer[..length], at)?;
        at += length as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand_the_bytes_are_the_same() {
        let (source, dest) = (tempfile::tempfile().expect("file"), tempfile::tempfile().expect("file"));
        let content: Vec<u8> = (0..200_000u32).map(|i| i.to_le_bytes()[0]).collect();
        source.write_all_at(&content, 4096).expect("room");
        copy_by_hand(&source, &dest, 4096, 4096 + 200_000).expect("copied");
        let mut copied = vec![0; content.len()];
        dest.read_exact_at(&mut copied, 4096).expect("as long");
        assert!(copied == content);
    }
}
