//! Removes a machine's directory without ever leaving it: by descriptors, following no symbolic link, entering no
//! other file system. The guest and the helpers write into that directory, so its content is not to be trusted.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, statat, unlinkat};
use rustix::io::{Errno, Result};

/// How deep a directory may nest; machines make one level.
const MAX_DEPTH: u32 = 16;

/// Removes everything in the directory behind `directory`, which stays.
///
/// # Errors
/// The first failure, after everything else that could be removed is gone.
pub fn remove_contents(directory: BorrowedFd<'_>) -> Result<()> {
    let device = fstat(directory)?.st_dev;
    remove_level(directory, device, MAX_DEPTH)
}

/// Removes `directory` with all it holds, given that it still is what `name` in `parent` stands for. It is no error when
/// it is gone, or when another directory has its name now: that one is left alone.
///
/// # Errors
/// The first failure, after everything else that could be removed is gone.
pub fn remove_directory(parent: BorrowedFd<'_>, name: &str, directory: BorrowedFd<'_>) -> Result<()> {
    let contents = remove_contents(directory);
    if !is_still(parent, name, directory)? {
        return contents;
    }
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => contents.and(Err(error)),
    }
}

/// Whether `name` in `parent` is the directory behind `directory`.
///
/// # Errors
/// Those of `fstatat(2)`, but for a name that is gone.
pub fn is_still(parent: BorrowedFd<'_>, name: &str, directory: BorrowedFd<'_>) -> Result<bool> {
    let opened = fstat(directory)?;
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(named) => Ok((named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

fn remove_level(directory: BorrowedFd<'_>, device: u64, depth: u32) -> Result<()> {
    if depth == 0 {
        return Err(Errno::LOOP);
    }
    let mut outcome = Ok(());
    // Names are gathered first: what a directory stream returns after an unlink is unspecified (readdir(3)).
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    for (name, file_type) in names {
        let mut removed = match file_type {
            FileType::Directory => Err(Errno::ISDIR),
            _ => unlinkat(directory, &name, AtFlags::empty()),
        };
        // EISDIR also answers file systems that do not report types.
        if removed == Err(Errno::ISDIR) {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
            removed = openat(directory, &name, flags, Mode::empty())
                .and_then(|inner| match fstat(&inner)?.st_dev == device {
                    true => remove_level(inner.as_fd(), device, depth - 1),
                    false => Err(Errno::XDEV),
                })
                .and_then(|()| unlinkat(directory, &name, AtFlags::REMOVEDIR));
        }
        if let Err(error) = removed
            && error != Errno::NOENT
        {
            outcome = outcome.and(Err(error));
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn removes_a_tree_and_follows_no_link() {
        let base = tempfile::tempdir().expect("a scratch directory");
        let outside = base.path().join("outside");
        fs::create_dir(&outside).expect("mkdir");
        fs::write(outside.join("precious"), "x").expect("write");
        let victim = base.path().join("m-1");
        fs::create_dir_all(victim.join("a/b")).expect("mkdir");
        fs::write(victim.join("a/b/file"), "x").expect("write");
        symlink(&outside, victim.join("link")).expect("symlink");
        symlink(&outside, victim.join("a/link")).expect("symlink");

        let parent = fs::File::open(base.path()).expect("open");
        let directory = fs::File::open(&victim).expect("open");
        remove_directory(parent.as_fd(), "m-1", directory.as_fd()).expect("removed");
        assert!(!victim.exists());
        assert!(outside.join("precious").exists());
        remove_directory(parent.as_fd(), "m-1", directory.as_fd()).expect("removing twice is no error");
    }

    #[test]
    fn whatever_took_the_directorys_name_is_left_alone() {
        let base = tempfile::tempdir().expect("a scratch directory");
        let parent = fs::File::open(base.path()).expect("open");
        let path = base.path().join("m-1");
        fs::create_dir(&path).expect("mkdir");
        let old = fs::File::open(&path).expect("open");
        fs::rename(&path, base.path().join("elsewhere")).expect("renamed");
        fs::create_dir(&path).expect("mkdir");
        fs::write(path.join("precious"), "x").expect("write");
        remove_directory(parent.as_fd(), "m-1", old.as_fd()).expect("nothing to remove");
        assert!(path.join("precious").exists());

        fs::remove_dir_all(&path).expect("removed");
        symlink("elsewhere", &path).expect("symlink");
        fs::write(base.path().join("elsewhere/file"), "x").expect("write");
        remove_directory(parent.as_fd(), "m-1", old.as_fd()).expect("a link is not the directory");
        assert!(base.path().join("elsewhere").exists());
    }
}
