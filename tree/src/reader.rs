//! An archive's bytes as entries. Knows nothing of files.
//!
//! The bytes may come from anywhere: what one entry costs in memory is bounded, whatever it says.

use std::io::{self, Read};

use tar::Header;

use crate::attributes::{Attributes, Time};
use crate::fields::{number, size, text};
use crate::pax;
use crate::sparse::{BLOCK_BYTES, Map, MapError, Segment};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// Of what describes one entry: names, times, and what others put there (extended attributes).
const MAX_DESCRIPTION_BYTES: u64 = 1 << 20;

/// What is wrong with an archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("a header's checksum is wrong")]
    Checksum,
    #[error("the {field} in the header of `{name}` is not a number that makes sense")]
    Number { field: &'static str, name: String },
    #[error("an extended header of {0} bytes, over the limit of {MAX_DESCRIPTION_BYTES}")]
    DescriptionTooLong(u64),
    #[error("an extended header is not a list of records")]
    Records,
    #[error("an extended header that describes no entry")]
    NothingDescribed,
    #[error("a sparse file's map can't be used: {0}")]
    SparseMap(&'static str),
    #[error(
        "a sparse file in GNU's pax format 0, which is not supported; write it with --sparse-version=1.0"
    )]
    SparseVersion,
}

/// Why no entry could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("failed to read the archive: {0}")]
    Read(#[source] io::Error),
    #[error("the archive is cut short")]
    Cut,
    #[error("this is not a tar archive: {0}")]
    NotTar(#[source] FormatError),
    #[error("the archive is broken: {0}")]
    Format(#[from] FormatError),
}

impl From<MapError> for ReadError {
    fn from(error: MapError) -> Self {
        match error {
            MapError::Format(error) => Self::Format(error),
            MapError::Read(error) => read_error(error),
        }
    }
}

fn read_error(error: io::Error) -> ReadError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ReadError::Cut,
        _ => ReadError::Read(error),
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File {
        /// `None`: data from end to end.
        sparse: Option<Map>,
    },
    Directory,
    /// The target, as it is.
    Symlink(Vec<u8>),
    /// The path of an earlier entry.
    HardLink(Vec<u8>),
    /// By its name in messages.
    Other(&'static str),
}

/// An entry; its data is read by [`Entries::data`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As the archive has it: any bytes.
    pub name: Vec<u8>,
    pub kind: Kind,
    pub attributes: Attributes,
}

/// What stood before an entry's own header.
#[derive(Debug, Default)]
struct Description {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    modified: Option<Time>,
    sparse: SparseRecords,
    is_empty: bool,
}

#[derive(Debug, Default)]
struct SparseRecords {
    is_version_1: bool,
    is_other_version: bool,
    name: Option<Vec<u8>>,
    size: Option<u64>,
}

/// The entries of an archive, one after the other.
#[derive(Debug)]
pub(crate) struct Entries<R> {
    input: R,
    /// Of the present entry's data.
    left: u64,
    /// What follows the data, up to a block's end.
    padding: u64,
    began: bool,
}

impl<R: Read> Entries<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, left: 0, padding: 0, began: false }
    }

    /// The next entry, past what was not read of the one before; `None` at the archive's end mark, behind which nothing is
    /// read.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, ReadError> {
        let mut description = Description { is_empty: true, ..Description::default() };
        loop {
            let rest = self.left.saturating_add(self.padding);
            let skipped =
                io::copy(&mut self.input.by_ref().take(rest), &mut io::sink()).map_err(read_error)?;
            (self.left, self.padding) = (0, 0);
            if skipped < rest {
                return Err(ReadError::Cut);
            }
            let Some(header) = self.header()? else {
                return if description.is_empty {
                    Ok(None)
                } else {
                    Err(FormatError::NothingDescribed.into())
                };
            };
            if let Some(entry) = self.entry(&header, &mut description)? {
                return Ok(Some(entry));
            }
        }
    }

    /// The rest of the present entry's data as it is in the archive: of a sparse file its segments, one behind the other.
    /// It ends early only where the archive does.
    pub(crate) fn data(&mut self) -> impl Read {
        Data { input: &mut self.input, left: &mut self.left }
    }

    /// How much of the present entry's data was not read yet.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// `None` at the end mark: a block of zeroes, which is followed by another one, or by nothing.
    fn header(&mut self) -> Result<Option<Header>, ReadError> {
        let mut header = Header::new_old();
        self.input.read_exact(header.as_mut_bytes()).map_err(read_error)?;
        let began = std::mem::replace(&mut self.began, true);
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| i64::from(*byte)).sum::<i64>();
        let bytes = header.as_bytes();
        // As if its own field were blank.
        let actual = sum(&bytes[..148]) + 8 * i64::from(b' ') + sum(&bytes[156..]);
        match number(&header.as_old().cksum) {
            Some(said) if said == actual => Ok(Some(header)),
            _ if began => Err(FormatError::Checksum.into()),
            _ => Err(ReadError::NotTar(FormatError::Checksum)),
        }
    }

    /// `None` when it only describes the next one.
    fn entry(&mut self, header: &Header, described: &mut Description) -> Result<Option<Entry>, ReadError> {
        let fields = header.as_old();
        let kind = fields.linkflag[0];
        let name = || String::from_utf8_lossy(text(&fields.name)).into_owned();
        let wrong = |field| FormatError::Number { field, name: name() };
        let own_size = size(&fields.size).ok_or_else(|| wrong("size"))?;
        if matches!(kind, b'x' | b'g' | b'L' | b'K' | b'V') {
            self.set_size(own_size)?;
            self.describe(kind, own_size, described)?;
            return Ok(None);
        }
        let stored = match kind {
            // Of the file that it is another name of.
            b'1' => 0,
            _ => described.size.unwrap_or(own_size),
        };
        self.set_size(stored)?;
        let sparse = std::mem::take(&mut described.sparse);
        let name = sparse.name.clone().or(described.name.take()).unwrap_or_else(|| name_in(header));
        let link = described.link.take().unwrap_or_else(|| text(&fields.linkname).to_vec());
        let entry_kind = match kind {
            b'0' | b'\0' | b'7' if name.ends_with(b"/") => Kind::Directory,
            b'0' | b'\0' | b'7' => Kind::File { sparse: self.pax_map(&sparse)? },
            b'S' => Kind::File { sparse: Some(self.gnu_map(header, stored)?) },
            b'1' => Kind::HardLink(link),
            b'2' => Kind::Symlink(link),
            b'5' | b'D' => Kind::Directory,
            b'3' => Kind::Other("a character device"),
            b'4' => Kind::Other("a block device"),
            b'6' => Kind::Other("a fifo"),
            _ => Kind::Other("of an unknown kind"),
        };
        let mode = number(&fields.mode).ok_or_else(|| wrong("mode"))?;
        let modified = match described.modified {
            Some(time) => time,
            None => Time { seconds: number(&fields.mtime).ok_or_else(|| wrong("mtime"))?, nanos: 0 },
        };
        let mode = u32::try_from(mode & 0o7777).unwrap_or(0);
        Ok(Some(Entry { name, kind: entry_kind, attributes: Attributes { mode, modified } }))
    }

    fn set_size(&mut self, bytes: u64) -> Result<(), ReadError> {
        let whole = bytes
            .checked_next_multiple_of(BLOCK)
            .ok_or(FormatError::Number { field: "size", name: String::new() })?;
        (self.left, self.padding) = (bytes, whole - bytes);
        Ok(())
    }

    fn describe(&mut self, kind: u8, bytes: u64, described: &mut Description) -> Result<(), ReadError> {
        // Global headers hold `git archive`'s commit, and could hold defaults, which nothing writes; `V` is a tape's label.
        if !matches!(kind, b'x' | b'L' | b'K') {
            return Ok(());
        }
        if bytes > MAX_DESCRIPTION_BYTES {
            return Err(FormatError::DescriptionTooLong(bytes).into());
        }
        let mut content = Vec::new();
        self.data().read_to_end(&mut content).map_err(read_error)?;
        if (content.len() as u64) < bytes {
            return Err(ReadError::Cut);
        }
        described.is_empty = false;
        match kind {
            b'L' => described.name = Some(text(&content).to_vec()),
            b'K' => described.link = Some(text(&content).to_vec()),
            _ => described.take_records(&content)?,
        }
        Ok(())
    }

    /// Of GNU's pax format 1.0: the map is in front of the data.
    fn pax_map(&mut self, sparse: &SparseRecords) -> Result<Option<Map>, ReadError> {
        if sparse.is_other_version && !sparse.is_version_1 {
            return Err(FormatError::SparseVersion.into());
        }
        if !sparse.is_version_1 {
            return Ok(None);
        }
        let size = sparse.size.ok_or(FormatError::SparseMap("its file has no size"))?;
        let (map, _) = Map::from_text(&mut self.data(), size)?;
        map.check(self.left)?;
        Ok(Some(map))
    }

    /// Of the old GNU format: in the header, and in blocks between it and the data.
    fn gnu_map(&mut self, header: &Header, stored: u64) -> Result<Map, ReadError> {
        let gnu = header.as_gnu().ok_or(FormatError::SparseMap("its header is not GNU's"))?;
        let no_number = || FormatError::SparseMap("it is not a list of numbers");
        let mut map = Map { segments: Vec::new(), size: size(&gnu.realsize).ok_or_else(no_number)? };
        let mut add = |offset: &[u8; 12], length: &[u8; 12]| -> Result<(), FormatError> {
            // Unused places are empty.
            match (offset[0], length[0]) {
                (0, _) | (_, 0) => Ok(()),
                _ => map.push(Segment {
                    offset: size(offset).ok_or_else(no_number)?,
                    length: size(length).ok_or_else(no_number)?,
                }),
            }
        };
        for place in &gnu.sparse {
            add(&place.offset, &place.numbytes)?;
        }
        let mut more = gnu.isextended[0] != 0;
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            self.input.read_exact(block.as_mut_bytes()).map_err(read_error)?;
            let places = block.sparse();
            if places.iter().all(|place| place.offset[0] == 0) {
                // They would have no end.
                return Err(FormatError::SparseMap("a block of it is empty").into());
            }
            for place in places {
                add(&place.offset, &place.numbytes)?;
            }
            more = block.is_extended();
        }
        map.check(stored)?;
        Ok(map)
    }
}

impl Description {
    fn take_records(&mut self, content: &[u8]) -> Result<(), FormatError> {
        for record in pax::records(content) {
            let (keyword, value) = record.ok_or(FormatError::Records)?;
            let wrong = |field| FormatError::Number { field, name: String::new() };
            let decimal = |field| {
                let text = std::str::from_utf8(value).ok();
                text.and_then(|text| text.parse::<u64>().ok()).ok_or_else(|| wrong(field))
            };
            match keyword {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(decimal("size")?),
                b"mtime" => self.modified = Some(Time::from_pax(value).ok_or_else(|| wrong("mtime"))?),
                b"GNU.sparse.major" => self.sparse.is_version_1 = value == b"1",
                b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
                b"GNU.sparse.realsize" => self.sparse.size = Some(decimal("size")?),
                b"GNU.sparse.map" | b"GNU.sparse.offset" | b"GNU.sparse.numblocks" => {
                    self.sparse.is_other_version = true;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// POSIX splits long names in two.
fn name_in(header: &Header) -> Vec<u8> {
    let name = text(&header.as_old().name);
    match header.as_ustar() {
        Some(ustar) if ustar.prefix[0] != 0 => [text(&ustar.prefix), b"/", name].concat(),
        _ => name.to_vec(),
    }
}

struct Data<'a, R> {
    input: &'a mut R,
    left: &'a mut u64,
}

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(*self.left).unwrap_or(usize::MAX).min(into.len());
        let length = self.input.read(&mut into[..room])?;
        *self.left -= length as u64;
        Ok(length)
    }
}
