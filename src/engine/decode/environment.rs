//! `environment`, of a workflow or a step.

use super::{Expected, Field, Problems};
use crate::engine::diagnostic::quote;
use crate::engine::environment::{name_fault, value_fault};
use crate::engine::yaml::Tree;

/// Reads a map of names to values, in the file's order.
///
/// Any scalar is taken as its source text: `1`, `true`, `1.10` and `0x10` arrive in the step as written. A name with
/// nothing behind it is the empty string, as upstream has it.
pub(super) fn environment(field: &Field<'_>, problems: &mut Problems) -> Vec<(String, String)> {
    let Some(entries) = field.entries(problems) else { return Vec::new() };
    entries
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), variable(name, &value, problems)?)))
        .collect()
}

fn variable(name: &str, field: &Field<'_>, problems: &mut Problems) -> Option<String> {
    if name.is_empty() {
        return problems.add(field.span, "a variable without a name; write `NAME: value`");
    }
    if let Some(fault) = name_fault(name) {
        return problems.add(
            field.span,
            format!("{} is no name for a variable: {fault}; write `NAME: value`", quote(name)),
        );
    }
    let Tree::Scalar(scalar) = &field.node.tree else { return field.wrong(Expected::Text, problems) };
    if field.node.is_null() {
        return Some(String::new());
    }
    if let Some(fault) = value_fault(name, &scalar.text) {
        return problems.add(field.node.span, format!("the value of {} {fault}", quote(&field.path)));
    }
    Some(scalar.text.clone())
}
