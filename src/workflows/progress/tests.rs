//! Whatever is done to a workflow, in whatever order.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Act {
    ClaimSetup,
    SetUp(bool),
    ClaimStep(usize),
    StepEnded(bool),
    Stop,
    End,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => Just(Act::ClaimSetup),
        3 => prop::bool::weighted(0.8).prop_map(Act::SetUp),
        8 => (0_usize..4).prop_map(Act::ClaimStep),
        6 => prop::bool::weighted(0.9).prop_map(Act::StepEnded),
        1 => Just(Act::Stop),
        1 => Just(Act::End),
    ]
}

fn steps(count: usize) -> Vec<StepProgress> {
    let step =
        || StepProgress { name: "s".into(), kind: "user".into(), command: "true".into(), verdict: None };
    (0..count).map(|_| step()).collect()
}

fn exited(code: i32) -> Verdict {
    Verdict::of(Outcome::Exited { code })
}

proptest! {
    #[test]
    fn a_workflow_goes_forward_and_each_thing_begins_once(acts in prop::collection::vec(act(), 0..40)) {
        let mut progress = Progress::new(steps(3));
        let (mut setups, mut begun) = (0, Vec::new());
        for act in acts {
            let before = progress.clone();
            match act {
                Act::ClaimSetup => setups += usize::from(progress.claim_setup() == SetupClaim::Begin),
                Act::SetUp(true) => progress.set_up(Ok(())),
                Act::SetUp(false) => progress.set_up(Err(SetupError::new(
                    Phase::Boot,
                    SetupFailure::HostCannot("no".into()),
                ))),
                Act::ClaimStep(index) => {
                    let (seen, claim) = (progress.step_seen(index), progress.claim_step(index));
                    prop_assert_eq!(&seen, &claim);
                    if claim == StepClaim::Begin {
                        begun.push(index);
                        prop_assert_eq!(progress.claim_step(index), StepClaim::Attach);
                    }
                }
                Act::StepEnded(ok) => progress.step_ended(exited(i32::from(!ok))),
                Act::Stop => progress.stop(Verdict::of(Outcome::TimedOut)),
                Act::End => progress.end(SystemTime::UNIX_EPOCH, None),
            }
            prop_assert!(before.state() <= progress.state(), "it went back");
            prop_assert!(setups <= 1);
            prop_assert_eq!(&begun, &(0..begun.len()).collect::<Vec<_>>(), "in order, each once");
            prop_assert_eq!(progress.verdict().is_some(), progress.is_over());
            prop_assert_eq!(progress.ended_at().is_some(), progress.state() == State::Ended);
            prop_assert!(progress.running().is_none() || progress.state() == State::Running);
            if before.is_over() {
                prop_assert_eq!(before.verdict(), progress.verdict(), "how it ended stays");
                prop_assert_eq!(before.steps(), progress.steps());
            }
            let ended = progress.steps().iter().take_while(|step| step.verdict.is_some()).count();
            prop_assert!(progress.steps()[ended..].iter().all(|step| step.verdict.is_none()));
            prop_assert_eq!(begun.len(), ended + usize::from(progress.running().is_some()), "each claim ends");
            let failed = progress.steps().iter().filter_map(|step| step.verdict.as_ref());
            let failed = failed.filter(|verdict| !verdict.outcome.is_success()).count();
            prop_assert!(failed <= 1 && (failed == 0 || progress.is_over()), "nothing follows a failure");
            if ended == 3 {
                prop_assert!(progress.is_over());
            }
        }
        // However it stands, its end is one.
        progress.end(SystemTime::UNIX_EPOCH, None);
        prop_assert!(matches!(progress.setup_seen(), SetupClaim::Over(_) | SetupClaim::Failed(_)));
        prop_assert!(!matches!(progress.step_seen(0), StepClaim::Begin | StepClaim::Attach));
    }
}

#[test]
fn what_is_claimed_and_has_not_begun_ends_with_the_workflow() {
    let mut progress = Progress::new(steps(1));
    progress.claim_setup();
    progress.stop(Verdict::of(Outcome::Cancelled));
    let SetupClaim::Failed(error) = progress.setup_seen() else { panic!("{progress:?}") };
    assert_eq!(error.failure, SetupFailure::Ended(Outcome::Cancelled));

    let mut progress = Progress::new(steps(1));
    progress.claim_setup();
    progress.set_up(Ok(()));
    progress.claim_step(0);
    progress.stop(Verdict::of(Outcome::TimedOut));
    assert_eq!(progress.step_seen(0), StepClaim::Ended(Verdict::of(Outcome::TimedOut)));
}

#[test]
fn the_workflow_ends_as_its_last_step_did() {
    let run = |codes: &[i32]| {
        let mut progress = Progress::new(steps(2));
        progress.claim_setup();
        progress.set_up(Ok(()));
        for (index, code) in codes.iter().enumerate() {
            assert_eq!(progress.claim_step(index), StepClaim::Begin);
            progress.step_ended(exited(*code));
        }
        (progress.state(), progress.verdict().cloned())
    };
    assert_eq!(run(&[0]), (State::Running, None));
    assert_eq!(run(&[0, 0]), (State::Stopped, Some(exited(0))));
    assert_eq!(run(&[3]), (State::Stopped, Some(exited(3))));
}
