//! What kind of value a key takes, and how one is written.

use std::fmt;

/// The kinds of values.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expected {
    Map,
    List,
    Boolean,
    Number,
    Text,
    Texts,
    Packages,
    FlakeReference,
}

impl Expected {
    /// What to do about a value of another kind.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::Map => "write `key: value` lines below it",
            Self::List => "begin each of its items with `- `",
            Self::Boolean => "write one of them, without quotes",
            Self::Number => "write digits, without quotes",
            Self::Text => "write one text, in quotes where it has brackets, braces or `: `",
            Self::Texts => "write one text, or several in `[…]`",
            Self::Packages => "begin each package with `- `",
            Self::FlakeReference => "write one, such as `github:nixos/nixpkgs`",
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Map => "a map",
            Self::List => "a list",
            Self::Boolean => "`true` or `false`",
            Self::Number => "a whole number",
            Self::Text => "a string",
            Self::Texts => "a string or a list of strings",
            Self::Packages => "a list, or a map of lists",
            Self::FlakeReference => "a flake reference (text or a map)",
        })
    }
}
