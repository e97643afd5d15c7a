//! Entries as an archive's bytes. Whatever becomes of what is read meanwhile, the archive is well-formed.

use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use tar::{EntryType, Header};

use crate::attributes::Attributes;
use crate::pax::record;
use crate::sparse::{BLOCK_BYTES, Map};

/// One read of a file and one write of the archive.
pub(crate) const COPY_BYTES: usize = 128 << 10;

/// Of a header's name fields.
const NAME_BYTES: usize = 100;

/// What eleven octal digits hold: seconds and bytes (POSIX.1-2024 pax, "ustar Header Block").
const MAX_OCTAL: u64 = 0o77_777_777_777;

/// What is in the place of a name that stands in an extended header.
const NAME_ELSEWHERE: &[u8] = b"pax-entry";

/// A file's content was not what was announced: zeroes stand in for what is missing.
#[derive(Debug)]
pub struct ContentFault {
    /// How much of the content there was.
    pub bytes: u64,
    /// `None`: it ended early.
    pub error: Option<io::Error>,
}

/// An archive being written.
#[derive(Debug)]
pub struct Writer<W: Write> {
    sink: BufWriter<W>,
    buffer: Vec<u8>,
}

/// All errors are the sink's.
impl<W: Write> Writer<W> {
    pub fn new(sink: W) -> Self {
        Self { sink: BufWriter::with_capacity(COPY_BYTES, sink), buffer: vec![0; COPY_BYTES] }
    }

    pub fn directory(&mut self, path: &Path, attributes: Attributes) -> io::Result<()> {
        let mut name = path.as_os_str().as_bytes().to_vec();
        name.push(b'/');
        self.header(EntryType::Directory, &name, b"", 0, attributes, Vec::new())
    }

    pub fn symlink(&mut self, path: &Path, attributes: Attributes, target: &Path) -> io::Result<()> {
        self.link(EntryType::Symlink, path, attributes, target)
    }

    /// `target` is the path of an entry before this one.
    pub fn hard_link(&mut self, path: &Path, attributes: Attributes, target: &Path) -> io::Result<()> {
        self.link(EntryType::Link, path, attributes, target)
    }

    fn link(
        &mut self,
        kind: EntryType,
        path: &Path,
        attributes: Attributes,
        target: &Path,
    ) -> io::Result<()> {
        let (name, target) = (path.as_os_str().as_bytes(), target.as_os_str().as_bytes());
        self.header(kind, name, target, 0, attributes, Vec::new())
    }

    /// A file of `size` bytes: what `content` has more is not read.
    pub fn file(
        &mut self,
        path: &Path,
        attributes: Attributes,
        size: u64,
        content: impl Read,
    ) -> io::Result<Option<ContentFault>> {
        let name = path.as_os_str().as_bytes();
        self.header(EntryType::Regular, name, b"", size, attributes, Vec::new())?;
        self.content(size, content)
    }

    /// A file with holes. `content` is that of the map's segments, one behind the other.
    pub(crate) fn sparse_file(
        &mut self,
        path: &Path,
        attributes: Attributes,
        map: &Map,
        content: impl Read,
    ) -> io::Result<Option<ContentFault>> {
        let name = path.as_os_str().as_bytes();
        let mut records = Vec::new();
        record(&mut records, "GNU.sparse.major", b"1");
        record(&mut records, "GNU.sparse.minor", b"0");
        record(&mut records, "GNU.sparse.name", name);
        record(&mut records, "GNU.sparse.realsize", map.size.to_string().as_bytes());
        let text = map.to_text();
        let stored = map.stored();
        // The name that the file gets where the format is not known: there it is the map and the data.
        self.header(
            EntryType::Regular,
            NAME_ELSEWHERE,
            b"",
            text.len() as u64 + stored,
            attributes,
            records,
        )?;
        self.sink.write_all(&text)?;
        self.content(stored, content)
    }

    /// Writes the end mark.
    pub fn finish(mut self) -> io::Result<W> {
        self.sink.write_all(&[0; 2 * BLOCK_BYTES])?;
        self.sink.into_inner().map_err(io::IntoInnerError::into_error)
    }

    fn header(
        &mut self,
        kind: EntryType,
        name: &[u8],
        link: &[u8],
        size: u64,
        attributes: Attributes,
        mut records: Vec<u8>,
    ) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(attributes.permissions());
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size);
        if size > MAX_OCTAL {
            record(&mut records, "size", size.to_string().as_bytes());
        }
        let modified = attributes.modified;
        let seconds = u64::try_from(modified.seconds).ok().filter(|seconds| *seconds <= MAX_OCTAL);
        header.set_mtime(seconds.unwrap_or(0));
        if modified.nanos != 0 || seconds.is_none() {
            record(&mut records, "mtime", modified.to_pax().as_bytes());
        }
        let long = |name: &[u8]| name.len() > NAME_BYTES;
        if [name, link].into_iter().any(|name| long(name) && std::str::from_utf8(name).is_err()) {
            // Records are UTF-8 unless they say otherwise (POSIX.1-2024 pax, "hdrcharset").
            records.splice(0..0, *b"21 hdrcharset=BINARY\n");
        }
        let fields = header.as_old_mut();
        for (field, keyword, value) in
            [(&mut fields.name, "path", name), (&mut fields.linkname, "linkpath", link)]
        {
            let short = if long(value) { NAME_ELSEWHERE } else { value };
            field[..short.len()].copy_from_slice(short);
            if long(value) {
                record(&mut records, keyword, value);
            }
        }
        header.set_cksum();
        if !records.is_empty() {
            self.records(&records)?;
        }
        self.sink.write_all(header.as_bytes())
    }

    fn records(&mut self, records: &[u8]) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(records.len() as u64);
        header.as_old_mut().name[..NAME_ELSEWHERE.len()].copy_from_slice(NAME_ELSEWHERE);
        header.set_cksum();
        self.sink.write_all(header.as_bytes())?;
        self.sink.write_all(records)?;
        self.pad(records.len() as u64)
    }

    fn pad(&mut self, written: u64) -> io::Result<()> {
        let rest = written.next_multiple_of(BLOCK_BYTES as u64) - written;
        io::copy(&mut io::repeat(0).take(rest), &mut self.sink).map(|_| ())
    }

    fn content(&mut self, size: u64, mut content: impl Read) -> io::Result<Option<ContentFault>> {
        let mut left = size;
        let mut fault = None;
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let buffer = &mut self.buffer[..room];
            let error = match content.read(buffer) {
                Ok(0) => None,
                Ok(length) => {
                    self.sink.write_all(&buffer[..length])?;
                    left -= length as u64;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Some(error),
            };
            fault = Some(ContentFault { bytes: size - left, error });
            io::copy(&mut io::repeat(0).take(left), &mut self.sink)?;
            break;
        }
        self.pad(size)?;
        Ok(fault)
    }
}
