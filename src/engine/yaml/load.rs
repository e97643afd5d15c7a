//! Events to a tree, within limits.
//!
//! Anchors and aliases are resolved, since people share step environments with them, but every copy is charged to the
//! same budget as what the file spells out: a "billion laughs" file ends in an error, not in memory.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Span as Range, Tag};

use super::{Entry, Key, Node, Scalar, Span, Style, Tree, problem};
use crate::engine::Diagnostic;

/// What a document may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Size of the text.
    pub source_bytes: usize,
    /// Values, copies made by aliases included.
    pub nodes: usize,
    /// Sum of all text in keys and scalars, copies included.
    pub expanded_bytes: usize,
    /// Nesting; what reads a tree may recurse.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { source_bytes: 1 << 20, nodes: 20_000, expanded_bytes: 4 << 20, depth: 64 }
    }
}

/// What came of a text.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The document, or `None` when it is empty, or so broken that nothing can be said about its content.
    pub root: Option<Node>,
    /// What is wrong with it as YAML. There may be problems *and* a root (say, a duplicate key), so that the content is
    /// checked in the same go.
    pub problems: Vec<Diagnostic>,
}

/// Reads one YAML document.
#[must_use]
pub fn load(text: &str, limits: &Limits) -> Loaded {
    if text.len() > limits.source_bytes {
        let message = format!(
            "the file is {} bytes long, and {} is the limit; move long scripts into files of the repository",
            text.len(),
            limits.source_bytes
        );
        return Loaded { root: None, problems: vec![Diagnostic::new(FILE_START, message)] };
    }
    let mut loader =
        Loader { limits, spent: Weight::default(), problems: Vec::new(), anchors: HashMap::new() };
    match loader.document(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        Ok(root) => Loaded { root, problems: loader.problems },
        Err(fatal) => {
            loader.problems.push(fatal);
            Loaded { root: None, problems: loader.problems }
        }
    }
}

const FILE_START: Span = Span { line: 1, column: 1, width: 1 };

/// What a finished node costs to copy.
#[derive(Clone, Copy, Default)]
struct Weight {
    nodes: usize,
    bytes: usize,
    depth: usize,
}

impl Weight {
    fn leaf(bytes: usize) -> Self {
        Self { nodes: 1, bytes, depth: 1 }
    }

    fn contains(&mut self, child: Weight) {
        self.nodes += child.nodes;
        self.bytes += child.bytes;
        self.depth = self.depth.max(child.depth + 1);
    }
}

struct Frame {
    span: Span,
    /// saphyr's number of the node's anchor; 0 is none.
    anchor: usize,
    weight: Weight,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, seen: HashSet<String>, next: Next },
}

/// What the map being read expects.
enum Next {
    Key,
    ValueOf(Key),
    /// The value of a key that was refused.
    Ignored,
}

struct Loader<'a> {
    limits: &'a Limits,
    spent: Weight,
    problems: Vec<Diagnostic>,
    anchors: HashMap<usize, (Node, Weight)>,
}

impl Loader<'_> {
    fn document(&mut self, text: &str) -> Result<Option<Node>, Diagnostic> {
        let mut parser = Parser::new_from_str(text);
        let mut stack: Vec<Frame> = Vec::new();
        let mut root = None;
        let mut documents = 0;
        while let Some(event) = parser.next_event() {
            let (event, range) = event.map_err(|error| problem::explain(&error))?;
            let span = span(range);
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(Diagnostic::new(
                            span,
                            "a workflow file holds one document, and a second one starts here; give it a file of its own",
                        ));
                    }
                }
                Event::Scalar(text, style, anchor, tag) => {
                    let scalar = self.scalar(text.into_owned(), style, tag.as_deref(), span);
                    let weight = Weight::leaf(scalar.text.len());
                    let node = Node { span, tree: Tree::Scalar(scalar) };
                    self.charge(weight, span)?;
                    self.remember(anchor, &node, weight)?;
                    self.finish(&mut stack, &mut root, node, weight)?;
                }
                Event::SequenceStart(anchor, tag) => {
                    self.collection_tag(tag.as_deref(), "seq", span);
                    self.open(&mut stack, span, anchor, Content::List(Vec::new()))?;
                }
                Event::MappingStart(anchor, tag) => {
                    self.collection_tag(tag.as_deref(), "map", span);
                    let content = Content::Map { entries: Vec::new(), seen: HashSet::new(), next: Next::Key };
                    self.open(&mut stack, span, anchor, content)?;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    let Some(frame) = stack.pop() else { continue };
                    let anchor = frame.anchor;
                    let (node, weight) = frame.close();
                    self.remember(anchor, &node, weight)?;
                    self.finish(&mut stack, &mut root, node, weight)?;
                }
                Event::Alias(anchor) => {
                    let (node, weight) = self.expand(anchor, span, stack.len())?;
                    self.finish(&mut stack, &mut root, node, weight)?;
                }
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            }
        }
        Ok(root.filter(|node: &Node| !node.is_null()))
    }

    fn open(
        &mut self,
        stack: &mut Vec<Frame>,
        span: Span,
        anchor: usize,
        content: Content,
    ) -> Result<(), Diagnostic> {
        if let Some(Frame { content: Content::Map { next: Next::Key, .. }, .. }) = stack.last() {
            let message = "a key must be text; a value that starts with `{` or `[` needs quotes";
            return Err(Diagnostic::new(span, message));
        }
        if stack.len() >= self.limits.depth {
            return Err(self.too_deep(span));
        }
        let weight = Weight::leaf(0);
        self.charge(weight, span)?;
        stack.push(Frame { span, anchor, weight, content });
        Ok(())
    }

    /// Puts a finished node where it belongs: into the innermost open collection, or at the root.
    fn finish(
        &mut self,
        stack: &mut [Frame],
        root: &mut Option<Node>,
        node: Node,
        weight: Weight,
    ) -> Result<(), Diagnostic> {
        let Some(frame) = stack.last_mut() else {
            *root = Some(node);
            return Ok(());
        };
        frame.weight.contains(weight);
        match &mut frame.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, seen, next } => {
                *next = match std::mem::replace(next, Next::Key) {
                    Next::Key => self.key(node, seen, entries)?,
                    Next::ValueOf(key) => {
                        entries.push(Entry { key, value: node });
                        Next::Key
                    }
                    Next::Ignored => Next::Key,
                };
            }
        }
        Ok(())
    }

    fn key(&mut self, node: Node, seen: &mut HashSet<String>, entries: &[Entry]) -> Result<Next, Diagnostic> {
        let Tree::Scalar(scalar) = node.tree else {
            return Err(Diagnostic::new(
                node.span,
                format!("a key must be text, found {}; put it in quotes", node.kind()),
            ));
        };
        if scalar.style == Style::Plain && scalar.text == "<<" {
            let message =
                "merge keys (`<<`) are not supported; repeat the entries, or share the whole map by an alias";
            self.problems.push(Diagnostic::new(node.span, message));
            return Ok(Next::Ignored);
        }
        if seen.insert(scalar.text.clone()) {
            return Ok(Next::ValueOf(Key { text: scalar.text, span: node.span }));
        }
        let first =
            entries.iter().find(|entry| entry.key.text == scalar.text).map_or(0, |entry| entry.key.span.line);
        let message = format!(
            "duplicate key `{}`, which is already set on line {first}; remove one of the two",
            scalar.text
        );
        self.problems.push(Diagnostic::new(node.span, message));
        Ok(Next::Ignored)
    }

    fn scalar(&mut self, text: String, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Scalar {
        let mut style = match style {
            ScalarStyle::Plain => Style::Plain,
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
            ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
        };
        match tag {
            None => {}
            Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => style = Style::Quoted,
            Some(tag) => self.refuse_tag(tag, span),
        }
        Scalar { text, style }
    }

    fn collection_tag(&mut self, tag: Option<&Tag>, expected: &str, span: Span) {
        if let Some(tag) = tag
            && !(tag.is_yaml_core_schema() && tag.suffix == expected)
        {
            self.refuse_tag(tag, span);
        }
    }

    fn refuse_tag(&mut self, tag: &Tag, span: Span) {
        let name = if tag.is_yaml_core_schema() { format!("!!{}", tag.suffix) } else { tag.to_string() };
        self.problems.push(Diagnostic::new(span, format!("the tag `{name}` is not supported; remove it")));
    }

    fn expand(&mut self, anchor: usize, span: Span, depth: usize) -> Result<(Node, Weight), Diagnostic> {
        let Some((node, weight)) = self.anchors.get(&anchor) else {
            return Err(Diagnostic::new(
                span,
                "this alias stands inside the value that it names; write the value out",
            ));
        };
        let (mut node, weight) = (node.clone(), *weight);
        if depth + weight.depth > self.limits.depth {
            return Err(self.too_deep(span));
        }
        self.charge(weight, span)?;
        node.span = span;
        Ok((node, weight))
    }

    fn remember(&mut self, anchor: usize, node: &Node, weight: Weight) -> Result<(), Diagnostic> {
        if anchor != 0 {
            self.charge(weight, node.span)?;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        Ok(())
    }

    fn charge(&mut self, weight: Weight, span: Span) -> Result<(), Diagnostic> {
        self.spent.nodes += weight.nodes;
        self.spent.bytes += weight.bytes;
        let message = if self.spent.nodes > self.limits.nodes {
            format!(
                "the file has more than {} values, counting what aliases copy; use fewer aliases, or split the workflow",
                self.limits.nodes
            )
        } else if self.spent.bytes > self.limits.expanded_bytes {
            format!(
                "the file has more than {} bytes of text, counting what aliases copy; use fewer aliases",
                self.limits.expanded_bytes
            )
        } else {
            return Ok(());
        };
        Err(Diagnostic::new(span, message))
    }

    fn too_deep(&self, span: Span) -> Diagnostic {
        Diagnostic::new(
            span,
            format!("values are nested more than {} levels deep; make it flatter", self.limits.depth),
        )
    }
}

impl Frame {
    fn close(self) -> (Node, Weight) {
        let tree = match self.content {
            Content::List(items) => Tree::List(items),
            Content::Map { entries, .. } => Tree::Map(entries),
        };
        (Node { span: self.span, tree }, self.weight)
    }
}

fn span(range: Range) -> Span {
    let Range { start, end } = range;
    let width = if start.line() == end.line() { end.col().saturating_sub(start.col()).max(1) } else { 1 };
    Span { line: start.line(), column: start.col() + 1, width }
}
