//! Maps with known keys, and values with known types.

use super::suggestion::{hint, nearest};
use super::{Expected, Problems};
use crate::engine::diagnostic::quote;
use crate::engine::yaml::{Entry, Node, Resolved, Scalar, Span, Tree};

/// Unknown keys of one map for which a known one is searched.
const MOST_GUESSES: usize = 20;

/// A value and what to call it in a message, as in `steps[2].command`.
#[derive(Clone, Debug)]
pub(super) struct Field<'n> {
    pub(super) path: String,
    pub(super) node: &'n Node,
    /// Where the key stands; for list items the value.
    pub(super) span: Span,
}

/// A map whose keys are known; others have been reported.
#[derive(Debug)]
pub(super) struct Fields<'n> {
    path: String,
    entries: &'n [Entry],
    /// For each unknown key the one that it was taken for, which then is not missing as well.
    meant: Vec<Option<String>>,
    /// Where to say that a key is missing.
    span: Span,
}

impl<'n> Fields<'n> {
    /// Reads `field` as a map that may have the keys `known`.
    pub(super) fn of(field: &Field<'n>, known: &[&str], problems: &mut Problems) -> Option<Self> {
        let entries = field.map(problems)?;
        let mut meant = Vec::new();
        for Entry { key, .. } in entries {
            if !known.contains(&key.text.as_str()) {
                // In a file that is wrong all over, the hundredth guess helps nobody and costs as much as the first.
                let guess =
                    if meant.len() < MOST_GUESSES { nearest(&key.text, known.iter().copied()) } else { None };
                let hint = hint(guess, known, "known keys here");
                problems.add::<()>(key.span, format!("unknown key {}{hint}", quote(&key.text)));
                meant.push(guess.map(str::to_owned));
            }
        }
        Some(Self { path: field.path.clone(), entries, meant, span: field.node.span })
    }

    /// The value of `key`. A key with nothing behind it counts as absent, as it does upstream: that is what remains of
    /// `environment:` when its entries are commented out.
    pub(super) fn optional(&self, key: &str) -> Option<Field<'n>> {
        self.field(key).filter(|field| !field.node.is_null())
    }

    /// The value of `key`; a problem if there is none, or there was one already. `why` completes the sentence.
    pub(super) fn required(&self, key: &str, why: &str, problems: &mut Problems) -> Option<Field<'n>> {
        match self.field(key) {
            Some(field) if field.node.is_null() => {
                problems.add(field.span, format!("`{}` has no value; {why}", field.path))
            }
            Some(field) => Some(field),
            None if self.meant.iter().any(|meant| meant.as_deref() == Some(key)) => None,
            None if self.path.is_empty() => problems.add(self.span, format!("missing key `{key}`; {why}")),
            None => problems.add(self.span, format!("missing key `{key}` in `{}`; {why}", self.path)),
        }
    }

    fn field(&self, key: &str) -> Option<Field<'n>> {
        let entry = self.entries.iter().find(|entry| entry.key.text == key)?;
        Some(Field { path: join(&self.path, key), node: &entry.value, span: entry.key.span })
    }
}

impl<'n> Field<'n> {
    /// The whole document.
    pub(super) fn root(node: &'n Node) -> Self {
        Self { path: String::new(), node, span: node.span }
    }

    /// A text. Numbers and booleans count as what was written, as they do upstream: `image: 1.20`, `command: true`.
    pub(super) fn string(&self, problems: &mut Problems) -> Option<String> {
        match &self.node.tree {
            Tree::Scalar(scalar) if !self.node.is_null() => Some(scalar.text.clone()),
            _ => self.wrong(Expected::Text, problems),
        }
    }

    /// A text with something in it.
    pub(super) fn filled_string(&self, problems: &mut Problems) -> Option<String> {
        let text = self.string(problems)?;
        if text.trim().is_empty() {
            return problems.add(self.node.span, format!("`{}` is empty; write a text", self.path));
        }
        Some(text)
    }

    pub(super) fn boolean(&self, problems: &mut Problems) -> Option<bool> {
        match self.scalar().and_then(Scalar::as_bool) {
            Some(value) => Some(value),
            None => self.wrong(Expected::Boolean, problems),
        }
    }

    /// An integer from 0 to 2^32 - 1.
    pub(super) fn count(&self, problems: &mut Problems) -> Option<u32> {
        let value = match self.scalar().map(|scalar| (scalar, scalar.resolve())) {
            Some((_, Resolved::Integer(value))) => value,
            Some((scalar, Resolved::Float(_))) => {
                let message = format!(
                    "`{}` must be a whole number, found {}; leave the fraction out",
                    self.path,
                    quote(&scalar.text)
                );
                return problems.add(self.node.span, message);
            }
            _ => return self.wrong(Expected::Number, problems),
        };
        match u32::try_from(value) {
            Ok(value) => Some(value),
            Err(_) if value < 0 => {
                problems.add(self.node.span, format!("`{}` can't be negative; write 0 or more", self.path))
            }
            Err(_) => problems
                .add(self.node.span, format!("`{}` is too large; {} is the most", self.path, u32::MAX)),
        }
    }

    pub(super) fn list(&self, problems: &mut Problems) -> Option<Vec<Field<'n>>> {
        let Tree::List(items) = &self.node.tree else { return self.wrong(Expected::List, problems) };
        let item = |(index, node): (usize, &'n Node)| Field {
            path: format!("{}[{index}]", self.path),
            node,
            span: node.span,
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// One text, or a list of them.
    pub(super) fn one_or_more(&self, problems: &mut Problems) -> Option<Vec<Field<'n>>> {
        match &self.node.tree {
            Tree::Scalar(_) => Some(vec![self.clone()]),
            Tree::List(_) => self.list(problems),
            Tree::Map(_) => self.wrong(Expected::Texts, problems),
        }
    }

    /// A list of texts, none empty.
    pub(super) fn strings(&self, problems: &mut Problems) -> Option<Vec<String>> {
        let items = self.list(problems)?;
        // No early return: each bad item is to be reported.
        let texts: Vec<_> = items.iter().map(|item| item.filled_string(problems)).collect();
        texts.into_iter().collect()
    }

    pub(super) fn map(&self, problems: &mut Problems) -> Option<&'n [Entry]> {
        match &self.node.tree {
            Tree::Map(entries) => Some(entries),
            Tree::Scalar(_) | Tree::List(_) => self.wrong(Expected::Map, problems),
        }
    }

    /// The entries of a map with free keys.
    pub(super) fn entries(&self, problems: &mut Problems) -> Option<Vec<(&'n str, Field<'n>)>> {
        let entry = |entry: &'n Entry| {
            let path = join(&self.path, &entry.key.text);
            (entry.key.text.as_str(), Field { path, node: &entry.value, span: entry.key.span })
        };
        Some(self.map(problems)?.iter().map(entry).collect())
    }

    /// Reports that this is not `expected`.
    pub(super) fn wrong<T>(&self, expected: Expected, problems: &mut Problems) -> Option<T> {
        let found = self.node.kind();
        // Nothing has no place of its own worth pointing at.
        let span = if self.node.is_null() { self.span } else { self.node.span };
        if self.path.is_empty() {
            let message = format!(
                "a workflow file must be {expected} at the top, found {found}; it begins with a key such as `engine:`"
            );
            return problems.add(span, message);
        }
        let remedy = expected.remedy();
        problems.add(span, format!("{} must be {expected}, found {found}; {remedy}", quote(&self.path)))
    }

    fn scalar(&self) -> Option<&'n Scalar> {
        match &self.node.tree {
            Tree::Scalar(scalar) => Some(scalar),
            Tree::List(_) | Tree::Map(_) => None,
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
