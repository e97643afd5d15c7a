//! The globs of `branch`, `tag` and `paths`.

use std::fmt;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use thiserror::Error;

/// Longer patterns serve nobody, and what compiling one costs grows with it.
const LONGEST_PATTERN: usize = 512;

/// A compiled glob: `*` stops at `/`, `**` does not; `?`, `[…]` and `{a,b}` work as in a shell.
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
    #[error("a pattern may have {LONGEST_PATTERN} bytes, this one has {0}")]
    TooLong(usize),
    #[error("not a valid pattern: {}", .0.kind())]
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
        let glob = GlobBuilder::new(source).literal_separator(true).build().map_err(PatternError::Syntax)?;
        // A set of one, because `Glob::compile_matcher` panics where the set returns an error.
        let matcher = GlobSetBuilder::new().add(glob).build().map_err(PatternError::Syntax)?;
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).expect("a pattern").matches(text)
    }

    #[test]
    fn one_star_stops_at_a_slash_and_two_do_not() {
        assert!(matches("release/*", "release/1.0"));
        assert!(!matches("release/*", "release/1/0"));
        assert!(matches("release/**", "release/1/0"));
        assert!(!matches("*", "feature/x"));
        assert!(matches("**", "feature/x"));
        assert!(matches("blog/**", "blog/posts/a.md"));
        assert!(!matches("blog/**", "cmd/blog/main.go"));
        assert!(matches("**/*.rs", "src/a/b.rs"));
        assert!(matches("**/*.rs", "b.rs"));
    }

    #[test]
    fn patterns_are_anchored_and_case_counts() {
        assert!(matches("v*", "v1.2.3"));
        assert!(!matches("v*", "preview"));
        assert!(!matches("main", "Main"));
        assert!(!matches("main", "main2"));
        assert!(matches("Cargo.lock", "Cargo.lock"));
        assert!(!matches("Cargo.lock", "sub/Cargo.lock"));
        assert!(matches("{main,next}", "next"));
        assert!(matches("v[0-9].?", "v1.x"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["", "[", "a{b", "[z-a]", &"x".repeat(LONGEST_PATTERN + 1)] {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_compiled_or_refused_without_a_panic(source in "[-*?{}\\[\\],!a/.\\\\]{0,40}", text in "[a/.]{0,12}") {
            if let Ok(pattern) = Pattern::new(&source) {
                let _ = pattern.matches(&text);
            }
        }

        #[test]
        fn a_plain_name_matches_itself_alone(name in "[a-z][a-z0-9./-]{0,20}", other in "[a-z][a-z0-9./-]{0,20}") {
            prop_assert!(matches(&name, &name));
            prop_assert_eq!(matches(&name, &other), name == other);
        }
    }
}
