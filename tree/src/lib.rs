//! File trees as tar archives, for both ends of a copy: the agent in the guest and `creel cp` on the host.
//!
//! [`pack`] walks a tree and writes an archive, [`unpack`] reads one and writes below one directory. Neither trusts what it
//! reads: a tree may change while it is read, and an archive may be a lie.
//!
//! ```text
//! pack      walks a tree            unpack    an archive, entry by entry, into a destination
//! writer    entries to bytes        reader    bytes to entries
//! source    what is packed          below     writes below a directory, and nowhere else
//! holes     where a file has data   pending   directories that get their modes and times later
//!           pax, sparse, fields: the formats    name: paths in archives    attributes: modes and times
//! ```
//!
//! # Format
//!
//! POSIX pax: ustar headers, and extended ones where a name or a time does not fit. Sparse files are GNU's pax format 1.0.
//! Read are also GNU's long names and GNU's old sparse files, so that what any common tar writes can be unpacked.
//!
//! # What is kept
//!
//! Regular files with their holes, directories, symbolic links (as they are: where one points is nobody's business here),
//! hard links among what is copied, permission bits, and modification times to the nanosecond. Not kept: owners,
//! set-user-id, set-group-id and sticky bits, extended attributes and access control lists. Devices, fifos and sockets are
//! left out.

mod attributes;
mod below;
mod destination;
mod fields;
mod holes;
mod name;
mod pack;
mod pax;
mod pending;
mod reader;
mod source;
mod sparse;
mod unpack;
mod writer;

pub use attributes::{Attributes, Time};
pub use below::EntryError;
pub use destination::{Destination, DestinationError};
pub use name::{MAX_DEPTH, MAX_PATH_BYTES, NameError, Shown};
pub use pack::{PackComplaint, PackError, Packed, pack};
pub use reader::{FormatError, ReadError};
pub use source::{Source, SourceError};
pub use unpack::{Complaint, UnpackError, Unpacked, unpack};
pub use writer::{ContentFault, Writer};
