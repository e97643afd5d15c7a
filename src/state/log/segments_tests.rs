use super::segments::{Limits, Location, Offsets, Segments};

const PAYLOAD: usize = 4000;

fn written(segments: &mut Segments, step: i32, records: usize) {
    for _ in 0..records {
        segments.place(step, PAYLOAD, [Offsets::default(); 2]);
        segments.commit(PAYLOAD, PAYLOAD);
    }
}

/// Bytes of output that are kept of a step.
fn kept(segments: &Segments, step: i32) -> u64 {
    segments.all().iter().filter(|segment| segment.step == step).map(|segment| segment.bytes).sum()
}

#[test]
fn a_workflow_over_its_cap_keeps_its_first_steps_and_the_running_one() {
    let limits = Limits { max_step_bytes: 256 << 10, max_total_bytes: 1 << 20 };
    let mut segments = Segments::new(limits, limits.segment_bytes());
    for step in 0..40 {
        written(&mut segments, step, 200);
        // Whatever came before, the last step has what a step may have.
        assert!(kept(&segments, step) > limits.max_step_bytes * 3 / 4, "step {step}");
        let all: u64 = segments.all().iter().map(|segment| segment.used).sum();
        assert!(all <= limits.max_total_bytes, "{all} after step {step}");
    }
    for step in 0..3 {
        assert!(
            kept(&segments, step) > limits.max_step_bytes / 3,
            "the first steps' beginnings stay: {step}"
        );
    }
    assert_eq!(kept(&segments, 20), 0, "those in the middle go");
}

#[test]
fn a_workflows_cap_below_a_steps_is_kept_too() {
    let limits = Limits { max_step_bytes: 1 << 20, max_total_bytes: 256 << 10 };
    let mut segments = Segments::new(limits, limits.segment_bytes());
    written(&mut segments, 0, 1000);
    assert!(segments.all().iter().map(|segment| segment.used).sum::<u64>() <= limits.max_total_bytes);
    assert!(matches!(segments.locate(0), Location::In(_)), "the first is there");
    assert!(matches!(segments.locate(999), Location::In(_)), "the last is there");
}

#[test]
fn a_record_beyond_all_numbers_is_one_to_wait_for() {
    let limits = Limits::of_step(1 << 20);
    let mut segments = Segments::new(limits, limits.segment_bytes());
    written(&mut segments, 0, 3);
    assert_eq!(segments.locate(3), Location::Ahead);
    assert_eq!(segments.locate(u64::MAX), Location::Ahead);
}
