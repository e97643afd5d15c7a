//! The parser's complaints, said so that the author of a workflow knows what to change.

use saphyr_parser::ScanError;

use super::Span;
use crate::engine::Diagnostic;

/// What a complaint contains, and what to say instead. The first match counts.
const EXPLANATIONS: &[(&str, &str)] = &[
    ("tabs disallowed", "a tab is used as indentation, and YAML wants spaces; replace it"),
    ("tab cannot", "a tab is used as indentation, and YAML wants spaces; replace it"),
    ("with a tab", "a tab is used as indentation, and YAML wants spaces; replace it"),
    ("found a tab", "a tab is used as indentation, and YAML wants spaces; replace it"),
    (
        "unprintable character",
        "this character may not stand in a YAML file; write it as an escape in double quotes",
    ),
    (
        "mapping values are not allowed",
        "unexpected `:`; quote a value that contains `: `, check the indentation, and that the line above has its `:`",
    ),
    ("illegal placement of ':'", "unexpected `:`; is a `]` or `}` missing before it?"),
    ("did not find expected ',' or '}'", "expected `,` or `}`; is a `}` missing before this?"),
    ("expected ',' or ']'", "expected `,` or `]`; is a `]` missing before this?"),
    (
        "invalid indentation in flow construct",
        "wrong indentation inside `[…]` or `{…}`; is a `]` or `}` missing before this?",
    ),
    ("misplaced bracket", "this closing bracket has no opening one; remove it"),
    (
        "did not find expected key",
        "expected a key of the map above; check the indentation, and quote a value that starts with a special character",
    ),
    (
        "did not find expected '-' indicator",
        "expected `-`, the next item of the list above; check the indentation",
    ),
    ("block sequence entries are not allowed", "a list can't start here; put `- ` on a line of its own"),
    ("simple key expect", "expected `key: value`; the `:` is missing"),
    ("unexpected end of stream", "this quoted text never ends; put the closing quote"),
    (
        "invalid indentation in quoted scalar",
        "this quoted text never ends, or its next line is not indented; close the quote",
    ),
    (
        "invalid trailing content",
        "unexpected text after the closing quote; quote the whole value, or use a `|` block",
    ),
    (
        "unknown escape character",
        "unknown escape in double quotes; write `\\\\` for a backslash, or use single quotes",
    ),
    (
        "unknown anchor",
        "this alias names an anchor (`&name`) that is not defined above; define it, or put a value that starts with `*` in quotes",
    ),
    (
        "block scalar, did not find",
        "only an indentation or `+`/`-` may follow `|` or `>`; the text starts on the next line",
    ),
    (
        "wrongly indented line in block scalar",
        "this line of the text block is indented less than its first line; indent it alike",
    ),
    ("recursion limit", "values are nested too deeply; make it flatter"),
];

/// A diagnostic for what the parser could not read.
pub(super) fn explain(error: &ScanError) -> Diagnostic {
    let marker = error.marker();
    let span = Span { line: marker.line(), column: marker.col() + 1, width: 1 };
    let info = error.info();
    let message = if let Some(character) = info.strip_prefix("unexpected character: ") {
        // saphyr quotes as in `x', also where x is a backquote.
        let character = character.chars().nth(1).unwrap_or(' ');
        format!("a value can't start with '{character}'; put it in quotes")
    } else if let Some((_, explanation)) = EXPLANATIONS.iter().find(|(part, _)| info.contains(part)) {
        (*explanation).to_owned()
    } else {
        format!("{info}; check indentation, quotes and brackets up to here")
    };
    Diagnostic::new(span, format!("broken YAML: {message}"))
}
