//! The top of a workflow file.

use super::suggestion::{hint, nearest};
use super::{Field, Fields, Problems, conditions, engine_rules, environment, nix, steps};
use crate::engine::diagnostic::quote;
use crate::engine::yaml::{Loaded, Span};
use crate::engine::{CloneOptions, Diagnostic, EngineKind, Manifest, Spanned};

const KEYS: &[&str] = &[
    "name",
    "when",
    "engine",
    "image",
    "clone",
    "steps",
    "environment",
    "dependencies",
    "services",
    "virtualisation",
    "registry",
    "caches",
    "architecture",
    "runs_on",
];

const EMPTY: &str = "the file is empty; a workflow needs `when`, `engine` and `steps`";

/// The manifest of what was loaded, or everything that is wrong with it.
pub(in crate::engine) fn manifest(file_name: &str, loaded: Loaded) -> Result<Manifest, Vec<Diagnostic>> {
    let no_problem_yet = loaded.problems.is_empty();
    let mut problems = Problems::starting_with(loaded.problems);
    let manifest = match &loaded.root {
        Some(root) => read(file_name, &Field::root(root), &mut problems),
        None if no_problem_yet => problems.add(Span { line: 1, column: 1, width: 1 }, EMPTY),
        None => None,
    };
    let problems = problems.into_vec();
    match manifest {
        Some(manifest) if problems.is_empty() => Ok(manifest),
        _ => Err(problems),
    }
}

fn read(file_name: &str, root: &Field<'_>, problems: &mut Problems) -> Option<Manifest> {
    let fields = Fields::of(root, KEYS, problems)?;
    let engine = fields
        .required(
            "engine",
            "say what runs the steps: `microvm`, `nixery`, `docker` or `kubernetes`",
            problems,
        )
        .and_then(|field| engine(&field, problems));
    let when = fields
        .required("when", "say which events run the workflow, as `when: [{event: manual}]` does", problems)
        .and_then(|field| conditions::conditions(&field, problems));
    let steps = fields
        .required("steps", "give at least one, such as `- command: make`", problems)
        .and_then(|field| steps::steps(&field, problems));
    let clone = fields.optional("clone").and_then(|field| clone(&field, problems)).unwrap_or_default();
    let environment = fields
        .optional("environment")
        .map(|field| environment::environment(&field, problems))
        .unwrap_or_default();
    let mut text = |key: &str| {
        let field = fields.optional(key)?;
        Some(Spanned { value: field.filled_string(problems)?, span: field.node.span })
    };
    // The workflow is called like its file. Upstream lets a name stand there all the same.
    let (_, image, architecture) = (text("name"), text("image"), text("architecture"));
    let runs_on = fields.optional("runs_on").and_then(|field| labels(&field, problems)).unwrap_or_default();
    let dependencies = fields
        .optional("dependencies")
        .and_then(|field| Some(Spanned { value: nix::dependencies(&field, problems)?, span: field.span }));
    let services = fields.optional("services").and_then(|field| nix::options(&field, problems));
    let virtualisation = fields.optional("virtualisation").and_then(|field| nix::options(&field, problems));
    let registry = fields.optional("registry").and_then(|field| nix::registry(&field, problems));
    let caches = fields.optional("caches").and_then(|field| {
        if let Some(engine) = &engine
            && engine.value != EngineKind::Microvm
        {
            return problems.add(field.span, engine_rules::not_for(engine.value, "caches"));
        }
        nix::caches(&field, problems)
    });

    // The rules of an engine need the engine only; the stand-ins let them speak although other parts are broken.
    let complete = when.is_some() && steps.is_some();
    let manifest = Manifest {
        file_name: file_name.to_owned(),
        engine: engine?,
        when: when.unwrap_or_default(),
        clone,
        environment,
        steps: steps.unwrap_or_default(),
        image,
        architecture,
        runs_on,
        dependencies,
        caches: caches.unwrap_or_default(),
        services,
        virtualisation,
        registry,
    };
    engine_rules::check(&manifest, fields.optional("image").is_some(), problems);
    complete.then_some(manifest)
}

fn engine(field: &Field<'_>, problems: &mut Problems) -> Option<Spanned<EngineKind>> {
    let text = field.string(problems)?;
    if let Some(engine) = EngineKind::ALL.into_iter().find(|engine| engine.as_str() == text) {
        return Some(Spanned { value: engine, span: field.node.span });
    }
    let known = EngineKind::ALL.map(EngineKind::as_str);
    let hint = hint(nearest(&text, known), &known, "it is one of");
    problems.add(field.node.span, format!("unknown engine {}{hint}", quote(&text)))
}

fn clone(field: &Field<'_>, problems: &mut Problems) -> Option<CloneOptions> {
    let fields = Fields::of(field, &["skip", "depth", "submodules", "tags"], problems)?;
    let mut flag =
        |key: &str| fields.optional(key).and_then(|field| field.boolean(problems)).unwrap_or(false);
    let (skip, submodules, tags) = (flag("skip"), flag("submodules"), flag("tags"));
    let depth = fields.optional("depth").and_then(|field| field.count(problems)).unwrap_or(0);
    let depth = if depth == 0 { CloneOptions::default().depth } else { depth };
    Some(CloneOptions { skip, depth, submodules, tags })
}

fn labels(field: &Field<'_>, problems: &mut Problems) -> Option<Vec<String>> {
    let items = field.one_or_more(problems)?;
    let labels: Vec<_> = items.iter().map(|item| item.filled_string(problems)).collect();
    labels.into_iter().collect()
}
