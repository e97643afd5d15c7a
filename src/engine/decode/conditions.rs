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
        return problems
            .add(field.span, "`when` is empty and the workflow never runs; name at least one `event`");
    }
    let patterns: usize = items.iter().map(|item| pattern_count(item.node)).sum();
    if patterns > MOST_PATTERNS {
        let message = format!(
            "`when` has {patterns} patterns, and {MOST_PATTERNS} is the limit; `*` and `**` stand for many names"
        );
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
        .required("event", "name one or more of `push`, `pull_request`, `manual`", problems)
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
    consistent(&field.path, &fields, &condition, problems).then_some(condition)
}

/// Upstream's rules on what goes with what.
fn consistent(path: &str, fields: &Fields<'_>, condition: &Condition, problems: &mut Problems) -> bool {
    let has = |event| condition.events.contains(&event);
    let mut good = true;
    // At the key that is wrong, or at the entry where one is missing.
    let mut refuse = |key: &str, message: String| {
        let span = fields.optional(key).map_or(condition.span, |field| field.span);
        problems.add::<()>(span, message);
        good = false;
    };
    if has(Event::Push) && condition.branches.is_empty() && condition.tags.is_empty() {
        let message = "is about `push` and needs `branch` or `tag`; `branch: \"**\"` is every branch";
        refuse("branch", format!("`{path}` {message}"));
    }
    let of_one_event =
        [("tag", condition.tags.len(), Event::Push), ("types", condition.types.len(), Event::PullRequest)];
    for (key, count, event) in of_one_event {
        if count > 0 && !has(event) {
            let message = format!("which `{path}.event` does not name; add it there, or remove `{key}`");
            refuse(key, format!("`{path}.{key}` only applies to event `{event}`, {message}"));
        }
    }
    for (key, patterns) in [("branch", &condition.branches), ("paths", &condition.paths)] {
        if condition.events == [Event::Manual] && !patterns.is_empty() {
            let message = "has no effect on event `manual`, which no name keeps from running";
            refuse(key, format!("`{path}.{key}` {message}; remove it, or name another event"));
        }
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
        return problems.add(field.span, format!("`{}` is empty; name at least one {what}", field.path));
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
