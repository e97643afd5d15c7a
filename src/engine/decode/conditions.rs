//! `when`: what sets the workflow off.

use super::suggestion::{hint, nearest};
use super::{Field, Fields, Problems};
use crate::engine::diagnostic::quote;
use crate::engine::yaml::{Node, Tree};
use crate::engine::{Condition, Event, Pattern, PullRequestAction};

/// Compiled patterns are large, and aliases could multiply them.
const MOST_PATTERNS: usize = 500;

const KEYS: &[&str] = &["event", "branch", "tag", "paths", "types"];

pub(super) fn conditions(field: &Field<'_>, problems: &mut Problems) -> Option<Vec<Condition>> {
    let items = field.list(problems)?;
    if items.is_empty() {
        return problems.add(field.span, "`when` is empty; without a condition the workflow never runs");
    }
    let patterns: usize = items.iter().map(|item| pattern_count(item.node)).sum();
    if patterns > MOST_PATTERNS {
        let message = format!("`when` has {patterns} patterns; {MOST_PATTERNS} is the limit");
        return problems.add(field.span, message);
    }
    let conditions: Vec<_> = items.iter().map(|item| condition(item, problems)).collect();
    conditions.into_iter().collect()
}

fn pattern_count(condition: &Node) -> usize {
    let count = |key: &&str| match condition.get(key).map(|node| &node.tree) {
        Some(Tree::List(items)) => items.len(),
        Some(_) => 1,
        None => 0,
    };
    ["branch", "tag", "paths"].iter().map(count).sum()
}

fn condition(field: &Field<'_>, problems: &mut Problems) -> Option<Condition> {
    let fields = Fields::of(field, KEYS, problems)?;
    let events = fields
        .required("event", "one or more of `push`, `pull_request`, `manual`", problems)
        .and_then(|field| names(&field, &Event::ALL.map(|event| (event.as_str(), event)), "event", problems));
    let mut patterns = |key: &str| match fields.optional(key) {
        Some(field) => patterns(&field, problems),
        None => Some(Vec::new()),
    };
    let (branches, tags, paths) = (patterns("branch"), patterns("tag"), patterns("paths"));
    let types = match fields.optional("types") {
        Some(field) => {
            names(&field, &PullRequestAction::ALL.map(|action| (action.as_str(), action)), "type", problems)
        }
        None => Some(Vec::new()),
    };
    let condition = Condition {
        events: events?,
        branches: branches?,
        tags: tags?,
        paths: paths?,
        types: types?,
        span: field.span,
    };
    consistent(&field.path, &condition, problems).then_some(condition)
}

/// Upstream's rules on what goes with what.
fn consistent(path: &str, condition: &Condition, problems: &mut Problems) -> bool {
    let has = |event| condition.events.contains(&event);
    let mut good = true;
    let mut refuse = |message: String| {
        problems.add::<()>(condition.span, message);
        good = false;
    };
    if has(Event::Push) && condition.branches.is_empty() && condition.tags.is_empty() {
        refuse(format!(
            "`{path}` is about `push` and needs `branch` or `tag`; `branch: \"**\"` is every branch"
        ));
    }
    if !condition.tags.is_empty() && !has(Event::Push) {
        refuse(format!("`{path}.tag` only applies to event `push`, which `{path}.event` does not name"));
    }
    if !condition.types.is_empty() && !has(Event::PullRequest) {
        refuse(format!(
            "`{path}.types` only applies to event `pull_request`, which `{path}.event` does not name"
        ));
    }
    good
}

fn names<T: Copy>(
    field: &Field<'_>,
    known: &[(&str, T)],
    what: &str,
    problems: &mut Problems,
) -> Option<Vec<T>> {
    let items = field.one_or_more(problems)?;
    if items.is_empty() {
        return problems.add(field.span, format!("`{}` is empty", field.path));
    }
    let values: Vec<_> = items.iter().map(|item| name(item, known, what, problems)).collect();
    values.into_iter().collect()
}

fn name<T: Copy>(field: &Field<'_>, known: &[(&str, T)], what: &str, problems: &mut Problems) -> Option<T> {
    let text = field.string(problems)?;
    if let Some((_, value)) = known.iter().find(|(name, _)| *name == text) {
        return Some(*value);
    }
    let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
    let hint = hint(nearest(&text, names.iter().copied()), &names, "it is one of");
    problems.add(field.node.span, format!("unknown {what} {}{hint}", quote(&text)))
}

fn patterns(field: &Field<'_>, problems: &mut Problems) -> Option<Vec<Pattern>> {
    let items = field.one_or_more(problems)?;
    let patterns: Vec<_> = items.iter().map(|item| pattern(item, problems)).collect();
    patterns.into_iter().collect()
}

fn pattern(field: &Field<'_>, problems: &mut Problems) -> Option<Pattern> {
    let text = field.string(problems)?;
    match Pattern::new(&text) {
        Ok(pattern) => Some(pattern),
        Err(error) => problems.add(field.node.span, format!("`{}`: {error}", field.path)),
    }
}
