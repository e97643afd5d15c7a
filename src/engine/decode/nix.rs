//! What concerns Nix: `dependencies`, `caches`, and the options of a NixOS image.

use serde_json::Value;

use super::{Expected, Field, Problems};
use crate::engine::diagnostic::quote;
use crate::engine::yaml::{Tree, to_json};
use crate::engine::{Cache, Dependencies, Spanned};

/// A list (microvm) or a map from registry to lists (nixery); which of the two is right, the engine's rules say.
pub(super) fn dependencies(field: &Field<'_>, problems: &mut Problems) -> Option<Dependencies> {
    match &field.node.tree {
        Tree::List(_) => Some(Dependencies::Packages(field.strings(problems)?)),
        Tree::Map(_) => {
            let registries: Vec<_> = field
                .entries(problems)?
                .into_iter()
                .map(|(registry, packages)| Some((registry.to_owned(), packages.strings(problems)?)))
                .collect();
            Some(Dependencies::ByRegistry(registries.into_iter().collect::<Option<_>>()?))
        }
        Tree::Scalar(_) => field.wrong(Expected::Packages, problems),
    }
}

/// A map of URL to public key; the key may be empty.
pub(super) fn caches(field: &Field<'_>, problems: &mut Problems) -> Option<Vec<Cache>> {
    let caches: Vec<_> =
        field.entries(problems)?.into_iter().map(|(url, key)| cache(url, &key, problems)).collect();
    caches.into_iter().collect()
}

fn cache(url: &str, field: &Field<'_>, problems: &mut Problems) -> Option<Cache> {
    if let Some(fault) = url_fault(url) {
        return problems.add(field.span, format!("{} is no cache: {fault}", quote(url)));
    }
    let key = if field.node.is_null() { String::new() } else { field.string(problems)? };
    Some(Cache { url: url.to_owned(), public_key: (!key.trim().is_empty()).then(|| key.trim().to_owned()) })
}

fn url_fault(url: &str) -> Option<&'static str> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Some("it is not a URL; write `https://…`");
    };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Some("only `http` and `https` caches are read; remove it, or give its web address");
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    if host.is_empty() || host.starts_with(':') {
        return Some("the host is missing; write `https://cache.example.org`");
    }
    url.contains(|c: char| c.is_whitespace() || c.is_control())
        .then_some("a URL contains no spaces; remove them")
}

/// A map of anything, for NixOS to judge.
pub(super) fn options(field: &Field<'_>, problems: &mut Problems) -> Option<Spanned<Value>> {
    field.map(problems)?;
    match to_json(field.node) {
        Ok(value) => Some(Spanned { value, span: field.span }),
        Err(error) => problems.add(error.span, format!("`{}`: {error}", field.path)),
    }
}

/// The flake registry: each value is a reference, as text or as attributes.
pub(super) fn registry(field: &Field<'_>, problems: &mut Problems) -> Option<Spanned<Value>> {
    let entries = field.entries(problems)?;
    let mut good = true;
    for (_, value) in &entries {
        if matches!(value.node.tree, Tree::List(_)) || value.node.is_null() {
            value.wrong::<()>(Expected::FlakeReference, problems);
            good = false;
        }
    }
    if good { options(field, problems) } else { None }
}
