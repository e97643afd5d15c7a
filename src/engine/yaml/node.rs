//! The tree: what a document says, and where it says it.

use super::Scalar;

/// Where something stands in the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// How many characters of that line it covers; at least 1.
    pub width: usize,
}

impl Span {
    /// The place of the character at byte `offset` of `text`, where lines end as YAML says: `\n`, `\r\n` or `\r`. A byte
    /// order mark has no column.
    pub(in crate::engine) fn of_offset(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let before = before.strip_prefix('\u{feff}').unwrap_or(before).replace("\r\n", "\n");
        let lines: Vec<_> = before.split(['\n', '\r']).collect();
        let column = lines.last().map_or(0, |line| line.chars().count()) + 1;
        Self { line: lines.len(), column, width: 1 }
    }
}

/// One value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub span: Span,
    pub tree: Tree,
}

/// The three shapes of YAML.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One line of a map. Keys are text, and unique within their map.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: Key,
    pub value: Node,
}

/// A map's key and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub text: String,
    pub span: Span,
}

impl Node {
    /// Whether this is a scalar that says nothing: empty, `~` or `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.tree, Tree::Scalar(scalar) if scalar.is_null())
    }

    /// What a person would call this, for "must be a list, found a string".
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.tree {
            Tree::Scalar(scalar) => scalar.kind(),
            Tree::List(_) => "a list",
            Tree::Map(_) => "a map",
        }
    }

    /// The value of `key`, when this is a map that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.tree {
            Tree::Map(entries) => {
                entries.iter().find(|entry| entry.key.text == key).map(|entry| &entry.value)
            }
            Tree::Scalar(_) | Tree::List(_) => None,
        }
    }
}
