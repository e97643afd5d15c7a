//! An archive, entry by entry, into a directory.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::below::{EntryError, Tree, failed};
use crate::destination::Destination;
use crate::name::{NameError, Shown, inside};
use crate::reader::{Entries, Entry, Kind, ReadError};
use crate::sparse::{Map, Segment};
use crate::writer::COPY_BYTES;

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unpacked {
    /// Files and links; directories are not counted.
    pub files: u64,
    pub directories: u64,
    /// In files, holes included.
    pub bytes: u64,
    /// How many complaints there were.
    pub complaints: u64,
}

/// Why the unpacking has ended early. What was unpacked before that stays.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("archive entry `{}` is refused: {reason}", Shown(.name))]
    Name { name: PathBuf, reason: NameError },
    #[error("archive entry `{}`, a hard link, is refused: of its target `{}`, {reason}", Shown(.name), Shown(.target))]
    Target { name: PathBuf, target: PathBuf, reason: NameError },
    #[error("archive entry `./` is refused: the destination itself can only be a directory")]
    Root,
    #[error(
        "the archive has more than one top entry, `{}` and `{}`, so its destination has to be a directory; make `{}` first",
        Shown(.first), Shown(.other), Shown(.destination)
    )]
    SeveralTops { first: PathBuf, other: PathBuf, destination: PathBuf },
    #[error("`{}` was asked for, and the archive has `{}`", Shown(.asked), Shown(.sent))]
    OtherTop { asked: PathBuf, sent: PathBuf },
    #[error(transparent)]
    Complaint(#[from] Complaint),
}

/// Why one entry is not there as the archive has it. The rest goes on, if whoever is told so wants that.
#[derive(Debug, thiserror::Error)]
pub enum Complaint {
    #[error(transparent)]
    Entry(#[from] EntryError),
    #[error("`{}` is {kind}; only files, directories and links are unpacked", Shown(.path))]
    Kind { path: PathBuf, kind: &'static str },
    #[error("symbolic link `{}` has no target", Shown(.0))]
    NoTarget(PathBuf),
}

/// Unpacks `archive` into the destination, in which nothing but that is touched, whatever the archive says. Owners in the
/// archive are ignored: everything belongs to the calling thread's file-system ids. Files that are there are replaced, never
/// written through; directories are merged. Memory is bounded: about 8 MiB, however long the archive.
///
/// Nothing is read behind the archive's end mark.
///
/// `complain` hears what can't be unpacked as it is, and returns `Ok` to go on without it.
///
/// # Errors
/// When the archive is broken or cut short, wants to get out of the destination, when the disk is full, or `complain` wants
/// it. A file that was not completed is removed again.
pub fn unpack<R: Read>(
    archive: R,
    into: Destination,
    complain: &mut dyn FnMut(Complaint) -> Result<(), Complaint>,
) -> Result<Unpacked, UnpackError> {
    let Destination { root, rename, only_top, path: destination } = into;
    let mut work = Work {
        entries: Entries::new(archive),
        tree: Tree::new(root),
        place: Place { rename, only_top, top: None, destination },
        complain: Complainer { complain, unpacked: Unpacked::default() },
        buffer: vec![0; COPY_BYTES],
    };
    let result = work.all();
    // Also after an error: a directory that was made has its mode and time.
    let Work { mut tree, mut complain, .. } = work;
    let settled = tree.finish(|error| complain.entry(error));
    result?;
    settled.map_err(Complaint::from)?;
    Ok(complain.unpacked)
}

struct Work<'a, R> {
    entries: Entries<R>,
    tree: Tree,
    place: Place,
    complain: Complainer<'a>,
    buffer: Vec<u8>,
}

struct Complainer<'a> {
    complain: &'a mut dyn FnMut(Complaint) -> Result<(), Complaint>,
    unpacked: Unpacked,
}

impl Complainer<'_> {
    fn tell(&mut self, complaint: Complaint) -> Result<(), Complaint> {
        self.unpacked.complaints += 1;
        match complaint {
            Complaint::Entry(error) if error.is_everybodys() => Err(error.into()),
            complaint => (self.complain)(complaint),
        }
    }

    fn entry(&mut self, error: EntryError) -> Result<(), EntryError> {
        match self.tell(error.into()) {
            Err(Complaint::Entry(error)) => Err(error),
            // Nobody makes another kind of complaint of one.
            _ => Ok(()),
        }
    }
}

/// How one entry's content ends that could not be taken over.
enum ContentError {
    Archive(ReadError),
    File(EntryError),
}

impl<R: Read> Work<'_, R> {
    fn all(&mut self) -> Result<(), UnpackError> {
        while let Some(entry) = self.entries.next()? {
            let Some(path) = self.place.of(&entry)? else { continue };
            match self.entry(&entry, &path) {
                Ok(()) => {}
                Err(UnpackError::Complaint(complaint)) => self.complain.tell(complaint)?,
                Err(error) => return Err(error),
            }
            let Self { tree, complain, .. } = self;
            tree.make_room(&path, |error| complain.entry(error)).map_err(Complaint::from)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, path: &Path) -> Result<(), UnpackError> {
        let attributes = entry.attributes;
        match &entry.kind {
            Kind::Directory => {
                self.tree.directory(path, attributes).map_err(Complaint::from)?;
                self.complain.unpacked.directories += 1;
                return Ok(());
            }
            Kind::File { sparse } => {
                let bytes = self.file(entry, path, sparse.as_ref())?;
                self.complain.unpacked.bytes += bytes;
            }
            Kind::Symlink(target) if target.is_empty() => {
                return Err(Complaint::NoTarget(path.to_owned()).into());
            }
            Kind::Symlink(target) => {
                self.tree.symlink(path, attributes, OsStr::from_bytes(target)).map_err(Complaint::from)?;
            }
            Kind::HardLink(target) => {
                let target = self.place.of_target(entry, target)?;
                self.tree.hard_link(path, &target).map_err(Complaint::from)?;
            }
            Kind::Other(kind) => return Err(Complaint::Kind { path: path.to_owned(), kind }.into()),
        }
        self.complain.unpacked.files += 1;
        Ok(())
    }

    fn file(&mut self, entry: &Entry, path: &Path, sparse: Option<&Map>) -> Result<u64, UnpackError> {
        let mut file = self.tree.file(path).map_err(Complaint::from)?;
        let written = self.content(&mut file, path, sparse).and_then(|size| {
            Tree::complete(&file, path, entry.attributes).map_err(ContentError::File).map(|()| size)
        });
        written.map_err(|error| {
            self.tree.remove(path);
            match error {
                ContentError::Archive(error) => error.into(),
                ContentError::File(error) => Complaint::from(error).into(),
            }
        })
    }

    /// Returns the file's size.
    fn content(&mut self, file: &mut File, path: &Path, sparse: Option<&Map>) -> Result<u64, ContentError> {
        let Some(map) = sparse else {
            return self.copy(file, path, self.entries.left());
        };
        for Segment { offset, length } in &map.segments {
            let seek = file.seek(SeekFrom::Start(*offset));
            seek.map_err(failed("write", path)).map_err(ContentError::File)?;
            self.copy(file, path, *length)?;
        }
        let sized = file.set_len(map.size).map_err(failed("set the size of", path));
        sized.map_err(ContentError::File).map(|()| map.size)
    }

    fn copy(&mut self, file: &mut File, path: &Path, bytes: u64) -> Result<u64, ContentError> {
        let mut left = bytes;
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let length = match self.entries.data().read(&mut self.buffer[..room]) {
                Ok(0) => return Err(ContentError::Archive(ReadError::Cut)),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ContentError::Archive(ReadError::Read(error))),
            };
            let written = file.write_all(&self.buffer[..length]);
            written.map_err(failed("write", path)).map_err(ContentError::File)?;
            left -= length as u64;
        }
        Ok(bytes)
    }
}

/// Archive paths as paths below the destination's root.
struct Place {
    rename: Option<OsString>,
    only_top: Option<OsString>,
    /// The archive's top entry, where it gets another name; empty: `./`.
    top: Option<PathBuf>,
    destination: PathBuf,
}

impl Place {
    /// `None`: the destination itself, whose attributes are not the archive's business.
    fn of(&mut self, entry: &Entry) -> Result<Option<PathBuf>, UnpackError> {
        let named = || PathBuf::from(OsStr::from_bytes(&entry.name));
        let path = inside(&entry.name).map_err(|reason| UnpackError::Name { name: named(), reason })?;
        let path = self.renamed(path)?;
        match (path.as_os_str().is_empty(), &entry.kind) {
            (true, Kind::Directory) => Ok(None),
            (true, _) => Err(UnpackError::Root),
            (false, _) => Ok(Some(path)),
        }
    }

    fn of_target(&mut self, entry: &Entry, target: &[u8]) -> Result<PathBuf, UnpackError> {
        let refused = |reason| UnpackError::Target {
            name: PathBuf::from(OsStr::from_bytes(&entry.name)),
            target: PathBuf::from(OsStr::from_bytes(target)),
            reason,
        };
        match inside(target).map_err(refused)? {
            path if path.as_os_str().is_empty() => Err(refused(NameError::Empty)),
            path => self.renamed(path),
        }
    }

    fn renamed(&mut self, path: PathBuf) -> Result<PathBuf, UnpackError> {
        let first = PathBuf::from(path.iter().next().unwrap_or_default());
        if let Some(only) = self.only_top.as_ref().filter(|only| first.as_os_str() != only.as_os_str()) {
            return Err(UnpackError::OtherTop { asked: PathBuf::from(only), sent: first });
        }
        let Some(name) = &self.rename else { return Ok(path) };
        let top = self.top.get_or_insert_with(|| first.clone());
        if top.as_os_str().is_empty() {
            return Ok(Path::new(name).join(path));
        }
        if *top != first {
            return Err(UnpackError::SeveralTops {
                first: top.clone(),
                other: first,
                destination: self.destination.clone(),
            });
        }
        let below: PathBuf = path.iter().skip(1).collect();
        // `join` with nothing would add a slash.
        Ok(if below.as_os_str().is_empty() { PathBuf::from(name) } else { Path::new(name).join(below) })
    }
}
