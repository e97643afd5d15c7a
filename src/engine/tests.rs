//! Whole files through the parser and the planner.

mod files;
mod malformed;
mod mutations;
mod planning;

use super::{GitRef, ImageFacts, Manifest, PlanInput, Repository, RunFacts, Secret, SourceKind, Trigger};

/// A commit that looks like one.
const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

fn parse(text: &str) -> Manifest {
    Manifest::parse("test.yml", text).unwrap_or_else(|errors| panic!("{}", errors.render()))
}

/// A small workflow with `more` lines at its top level.
fn microvm(more: &str) -> Manifest {
    parse(&format!(
        "engine: microvm\nwhen: [{{event: manual}}]\nsteps: [{{name: one, command: make}}]\n{more}\n"
    ))
}

/// A push to main, from a disk, on an image that is no NixOS.
fn input() -> PlanInput {
    PlanInput {
        workflow_name: "test".to_owned(),
        trigger: Trigger::push(GitRef::Branch("main".to_owned())),
        facts: RunFacts {
            pipeline_id: None,
            repository: Repository {
                knot: Some("knot.example.org".to_owned()),
                owner_did: Some("did:plc:owner".to_owned()),
                repo_did: Some("did:plc:repo".to_owned()),
                name: Some("core".to_owned()),
                default_branch: Some("main".to_owned()),
                url: None,
            },
            sha: None,
        },
        image: Some(ImageFacts {
            name: "tiny".to_owned(),
            shell: "/bin/sh".to_owned(),
            base_config_hash: None,
        }),
        source: SourceKind::Disk { commit: Some(SHA.to_owned()), dirty: false },
        secrets: vec![("TOKEN".to_owned(), Secret::new("hunter2"))],
    }
}
