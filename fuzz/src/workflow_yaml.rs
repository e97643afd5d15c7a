//! A workflow file, from its bytes to its plan: what is wrong is said on lines that no file can forge.

use creel::engine::{ImageFacts, Manifest, PlanInput, RunFacts, SourceKind, Trigger, plan};

pub fn run(data: &[u8]) {
    let manifest = match Manifest::parse_bytes("fuzz.yml", data) {
        Ok(manifest) => manifest,
        Err(errors) => {
            let text = errors.render();
            assert!(!errors.problems().is_empty() && !text.is_empty());
            assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
            return;
        }
    };
    let planned = plan(
        &manifest,
        &PlanInput {
            workflow_name: "fuzz".into(),
            trigger: Trigger::manual(),
            facts: RunFacts::default(),
            image: Some(ImageFacts { name: "tiny".into(), shell: "/bin/sh".into(), base_config_hash: None }),
            source: SourceKind::Disk { commit: None, dirty: false },
        },
    );
    if let Ok(plan) = planned {
        for (index, step) in plan.steps.iter().enumerate() {
            assert_eq!(step.index, index);
            assert!(!step.name.contains(char::is_control), "{:?}", step.name);
        }
        let _ = plan.runnable();
    }
}
