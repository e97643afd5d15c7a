//! Whole files through the parser and the planner.

mod files;
mod malformed;
mod mutations;
mod planning;
mod upstream;

use std::fmt::Write as _;

use super::{
    Action, GitRef, ImageFacts, Manifest, Plan, PlanInput, Repository, RunFacts, Secret, SourceKind, Trigger,
};

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
    }
}

/// The same as spindle asks it: the machine fetches the commit.
fn remote() -> PlanInput {
    let facts = RunFacts {
        sha: Some(SHA.to_owned()),
        pipeline_id: Some("at://did:web:knot.example.org/sh.tangled.pipeline/3kx5".to_owned()),
        ..input().facts
    };
    PlanInput { facts, source: SourceKind::Remote { verify_tls: true }, ..input() }
}

fn nixos() -> ImageFacts {
    ImageFacts {
        name: "nixos".to_owned(),
        shell: "/run/current-system/sw/bin/bash".to_owned(),
        base_config_hash: Some("0c2k5q1jv8w0m5y2h7l3s6d9f4g1x8z0".to_owned()),
    }
}

/// A plan in full, for people to compare.
fn rendered(plan: &Plan) -> String {
    let mut out = format!("{} on engine {}, image {:?}\n", plan.name, plan.engine, plan.image);
    let mut line = |text: String| writeln!(out, "{text}").expect("a string takes it");
    if let Some(container) = &plan.container {
        line(format!("{container:?}"));
    }
    for cache in &plan.caches {
        line(format!("cache {} key {:?}", cache.url, cache.public_key));
    }
    line(format!("runnable: {:?}", plan.runnable().map_err(|error| error.to_string())));
    line("environment".to_owned());
    for entry in plan.environment.to_entries() {
        line(format!("  {entry}"));
    }
    for step in &plan.steps {
        line(format!("step {} ({}) {}", step.index, step.kind.as_str(), step.name));
        for shown in step.command.lines() {
            line(format!("  $ {shown}"));
        }
        match &step.action {
            Action::UnpackSource { destination } => line(format!("  unpack the source to {destination}")),
            Action::ActivateConfig { user_config } => line(format!("  activate {user_config}")),
            Action::Exec(exec) => {
                assert_eq!(exec.environment, plan.environment);
                line(format!("  argv {:?}", exec.argv));
                line(format!("  in {} as {:?}", exec.cwd, exec.user));
                for (name, value) in &exec.own_environment {
                    line(format!("  own {name}={value}"));
                }
                for (name, value) in &exec.fixed_environment {
                    line(format!("  fixed {name}={value}"));
                }
            }
        }
    }
    out
}

fn secrets() -> Vec<(String, Secret)> {
    vec![("TOKEN".to_owned(), Secret::new("hunter2"))]
}
