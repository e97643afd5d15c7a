//! The globs of `branch`, `tag` and `paths`.

use std::fmt;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use thiserror::Error;

/// Longer patterns serve nobody, and what compiling one costs grows with it.
const LONGEST_PATTERN: usize = 512;

/// A compiled glob: `*` stops at `/`, `**` as a part of its own does not; `?`, `[…]` and `{a,b}` work as in a shell, and
/// `a/**` matches `a` too. That is the reading of upstream's library, Go's `doublestar`.
#[derive(Clone)]
pub struct Pattern {
    source: String,
    matcher: GlobSet,
}

/// Why a text is no pattern.
#[derive(Debug, Error)]
pub enum PatternError {
    #[error("an empty pattern matches nothing; remove it, or write `**` for everything")]
    Empty,
    #[error("a pattern may have {LONGEST_PATTERN} bytes, this one has {0}; shorten it with `*`")]
    TooLong(usize),
    #[error("not a valid pattern: {}; put `\\` before a character that stands for itself", reason(.0))]
    Syntax(#[source] globset::Error),
}

impl Pattern {
    /// Compiles `source`.
    ///
    /// # Errors
    /// When it is empty, too long, or no glob.
    pub fn new(source: &str) -> Result<Self, PatternError> {
        if source.is_empty() {
            return Err(PatternError::Empty);
        }
        if source.len() > LONGEST_PATTERN {
            return Err(PatternError::TooLong(source.len()));
        }
        let mut set = GlobSetBuilder::new();
        set.add(glob(source)?);
        let mut rest = source;
        while let Some(parent) = rest.strip_suffix("/**") {
            // What is left may be no pattern, as `\` of `\/**`: then there is no parent to match.
            if let Ok(glob) = glob(parent) {
                set.add(glob);
            }
            rest = parent;
        }
        let matcher = set.build().map_err(PatternError::Syntax)?;
        Ok(Self { source: source.to_owned(), matcher })
    }

    /// Whether the pattern matches all of `text`: a branch, a tag, or a path with `/` between its parts.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.matcher.is_match(text)
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

/// The library's reason without a sentence in itself.
fn reason(error: &globset::Error) -> String {
    error.kind().to_string().replace("; ", ", ")
}

fn glob(source: &str) -> Result<Glob, PatternError> {
    GlobBuilder::new(source)
        .literal_separator(true)
        .empty_alternates(true)
        .build()
        .map_err(PatternError::Syntax)
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.source)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

#[cfg(test)]
mod tests;
