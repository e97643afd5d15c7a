//! Paths in archives: what may be one, and how one is shown.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

/// PATH_MAX (limits.h) without its NUL: a longer path names nothing that a program could open.
pub const MAX_PATH_BYTES: usize = 4095;

/// How many directories a path may lead through. Each costs a walk one descriptor, of which a process has 1024 by default.
pub const MAX_DEPTH: usize = 512;

/// Why a name is none that may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("it is empty")]
    Empty,
    #[error("it has a NUL byte in it")]
    Nul,
    #[error("it is absolute, and would lie outside of the destination")]
    Absolute,
    #[error("it leads up with `..`, and would lie outside of the destination")]
    Up,
    #[error("it is longer than {MAX_PATH_BYTES} bytes")]
    TooLong,
    #[error("it leads through more than {MAX_DEPTH} directories")]
    TooDeep,
}

/// A path of plain names, which may be empty: the destination itself.
pub(crate) fn inside(bytes: &[u8]) -> Result<PathBuf, NameError> {
    if bytes.is_empty() {
        return Err(NameError::Empty);
    }
    if bytes.len() > MAX_PATH_BYTES {
        return Err(NameError::TooLong);
    }
    if bytes.contains(&0) {
        return Err(NameError::Nul);
    }
    let mut inside = PathBuf::new();
    let mut depth = 0;
    for component in Path::new(OsStr::from_bytes(bytes)).components() {
        match component {
            Component::Normal(name) => {
                inside.push(name);
                depth += 1;
            }
            Component::CurDir => {}
            Component::ParentDir => return Err(NameError::Up),
            Component::RootDir | Component::Prefix(_) => return Err(NameError::Absolute),
        }
    }
    if depth > MAX_DEPTH { Err(NameError::TooDeep) } else { Ok(inside) }
}

/// A path for a message: on one line, with nothing in it that a terminal would obey, and not without end.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a>(pub &'a Path);

/// As much of a path as a message shows, in characters.
const SHOWN_CHARS: usize = 300;

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string_lossy();
        // Bidirectional overrides (Unicode TR 36, 2.6) make a name look like another one.
        let obeyed =
            |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        for (index, c) in text.chars().enumerate() {
            if index == SHOWN_CHARS {
                return f.write_str("…");
            }
            fmt::Write::write_char(f, if obeyed(c) { char::REPLACEMENT_CHARACTER } else { c })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_inside_is_a_path() {
        let long = vec![b'a'; MAX_PATH_BYTES + 1];
        let deep = "d/".repeat(MAX_DEPTH + 1).into_bytes();
        let table: &[(&[u8], Result<&str, NameError>)] = &[
            (b"a/b", Ok("a/b")),
            (b"./a//b/.", Ok("a/b")),
            (b"./", Ok("")),
            (b"..a/b..", Ok("..a/b..")),
            (b"", Err(NameError::Empty)),
            (b"/etc", Err(NameError::Absolute)),
            (b"..", Err(NameError::Up)),
            (b"a/../b", Err(NameError::Up)),
            (b"a\0b", Err(NameError::Nul)),
            (&long, Err(NameError::TooLong)),
            (&deep, Err(NameError::TooDeep)),
        ];
        for (bytes, expected) in table {
            assert_eq!(inside(bytes), expected.map(PathBuf::from), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_shown_path_is_tame() {
        assert_eq!(Shown(Path::new("a\n\x1b[2Jb\u{202e}")).to_string(), "a\u{fffd}\u{fffd}[2Jb\u{fffd}");
        assert_eq!(Shown(Path::new(&"x".repeat(5000))).to_string().chars().count(), SHOWN_CHARS + 1);
    }
}
