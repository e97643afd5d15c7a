//! Which parts of a log are kept: for each step the first and the last, the middle given up. Pure.
//!
//! The file is an array of slots of one size. A *segment* is a slot's worth of consecutive records of one step; the
//! log is the segments in the order of their first records. The segments that take a step's first `max_step / 2` bytes
//! are its head and stay; the rest is a ring: when it is full, its oldest segment is given up and the slot serves
//! again. So a log is bounded on any file system, without renaming, truncating or punching holes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound::{Excluded, Unbounded};

use super::frame::FRAME_OVERHEAD;

/// Bytes before the first slot; a whole block, so that slots are aligned.
pub(super) const FILE_HEADER_BYTES: u64 = 4096;

/// Bytes of a slot before its first record.
pub(super) const SEGMENT_HEADER_BYTES: u64 = 64;

const SEGMENTS_PER_STEP: u64 = 16;
/// How large slots are.
pub(super) const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 16 << 10..=1 << 20;

/// How much of a log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes kept of one step, half of them its first. At least 256 KiB are.
    pub max_step_bytes: u64,
    /// Bytes kept of the workflow, unused ends of slots not counted. Beyond, what other steps than the running one have kept
    /// of their ends goes first, then their beginnings; but the first half of the workflow's beginnings stays.
    pub max_total_bytes: u64,
}

impl Limits {
    /// `max_step_bytes`, and eight times that for the workflow.
    pub fn of_step(max_step_bytes: u64) -> Self {
        Self { max_step_bytes, max_total_bytes: max_step_bytes.saturating_mul(8) }
    }

    pub(super) fn segment_bytes(self) -> u64 {
        (self.max_step_bytes / SEGMENTS_PER_STEP).clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end())
    }
}

/// How far a stream of a step has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Offsets {
    pub(super) stored: u64,
    pub(super) raw: u64,
}

/// A run of consecutive records of one step, in one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Sequence number of its first record.
    pub(super) first: u64,
    pub(super) records: u64,
    pub(super) step: i32,
    /// Kept as part of the step's beginning.
    pub(super) head: bool,
    pub(super) slot: u32,
    /// Bytes of the slot in use, its header included.
    pub(super) used: u64,
    /// Bytes of output in the log before this segment, and in it.
    pub(super) bytes_before: u64,
    pub(super) bytes: u64,
    /// Where the step's two streams stood before it.
    pub(super) begins: [Offsets; 2],
}

impl Segment {
    /// The number of the record after its last.
    pub(super) fn end(&self) -> u64 {
        self.first + self.records
    }
}

/// What a reader that wants some record finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Location {
    In(Segment),
    /// It is given up; `next` is the segment to go on with, `bytes_known` the bytes of output before the gap.
    Gone {
        next: Segment,
        bytes_known: u64,
    },
    /// It is not written yet.
    Ahead,
}

#[derive(Debug, Default)]
struct StepUse {
    head: u64,
    ring: u64,
}

/// The segments of a log.
#[derive(Debug)]
pub(super) struct Segments {
    limits: Limits,
    segment_bytes: u64,
    by_first: BTreeMap<u64, Segment>,
    free: Vec<u32>,
    slots: u32,
    steps: HashMap<i32, StepUse>,
    used: u64,
    next_sequence: u64,
    next_bytes: u64,
    pub(super) sealed: bool,
}

impl Segments {
    pub(super) fn new(limits: Limits, segment_bytes: u64) -> Self {
        Self {
            limits: Limits {
                max_step_bytes: limits.max_step_bytes.max(SEGMENTS_PER_STEP * SEGMENT_BYTES.start()),
                ..limits
            },
            segment_bytes,
            by_first: BTreeMap::new(),
            free: Vec::new(),
            slots: 0,
            steps: HashMap::new(),
            used: 0,
            next_sequence: 0,
            next_bytes: 0,
            sealed: false,
        }
    }

    /// Takes up what was found in a file of `slots` slots.
    pub(super) fn recovered(limits: Limits, segment_bytes: u64, slots: u32, found: Vec<Segment>) -> Self {
        let mut segments = Self::new(limits, segment_bytes);
        segments.slots = slots;
        let taken: HashSet<u32> = found.iter().map(|segment| segment.slot).collect();
        segments.free = (0..slots).filter(|slot| !taken.contains(slot)).collect();
        for segment in found {
            segments.account(segment, segment.used);
            segments.next_sequence = segments.next_sequence.max(segment.first + segment.records);
            segments.next_bytes = segments.next_bytes.max(segment.bytes_before + segment.bytes);
            segments.by_first.insert(segment.first, segment);
        }
        segments
    }

    pub(super) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    pub(super) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Every segment, in order.
    pub(super) fn all(&self) -> Vec<Segment> {
        self.by_first.values().copied().collect()
    }

    /// The longest payload of one record: small enough that a slot's unused end is no great loss.
    pub(super) fn max_payload(&self) -> usize {
        usize::try_from(self.segment_bytes / 4).map_or(usize::MAX, |quarter| quarter.min(64 << 10))
    }

    pub(super) fn file_offset(&self, segment: &Segment) -> u64 {
        FILE_HEADER_BYTES + u64::from(segment.slot) * self.segment_bytes
    }

    /// The segment that the next record, of `step` and with `payload` bytes, goes to; others may be given up for it. The
    /// step's streams stand at `now`.
    pub(super) fn place(&mut self, step: i32, payload: usize, now: [Offsets; 2]) -> Segment {
        let frame = (payload + FRAME_OVERHEAD) as u64;
        if let Some(last) = self.by_first.values().next_back().copied() {
            if last.step == step && last.used + frame <= self.segment_bytes {
                return last;
            }
            if last.records == 0 {
                // The write that it was made for failed.
                self.give_up(last.first);
            }
        }
        let head = self.steps.get(&step).is_none_or(|used| used.head < self.limits.max_step_bytes / 2);
        self.make_room(step, head);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        });
        let (first, bytes_before) = (self.next_sequence, self.next_bytes);
        let used = SEGMENT_HEADER_BYTES;
        let segment =
            Segment { first, records: 0, step, head, slot, used, bytes_before, bytes: 0, begins: now };
        self.account(segment, used);
        self.by_first.insert(first, segment);
        segment
    }

    /// The record for which `place` was called is written; `output` of its bytes are a step's output.
    pub(super) fn commit(&mut self, payload: usize, output: usize) {
        let Some(mut entry) = self.by_first.last_entry() else { return };
        let segment = entry.get_mut();
        let frame = (payload + FRAME_OVERHEAD) as u64;
        segment.used += frame;
        segment.records += 1;
        segment.bytes += output as u64;
        let segment = *segment;
        self.next_sequence += 1;
        self.next_bytes += output as u64;
        self.account(segment, frame);
    }

    pub(super) fn locate(&self, sequence: u64) -> Location {
        let before = self.by_first.range(..=sequence).next_back().map(|(_, segment)| *segment);
        match before {
            Some(segment) if sequence < segment.first + segment.records => Location::In(segment),
            _ => match self.by_first.range((Excluded(sequence), Unbounded)).next() {
                Some((_, next)) => {
                    let bytes_known = before.map_or(0, |segment| segment.bytes_before + segment.bytes);
                    Location::Gone { next: *next, bytes_known }
                }
                None => Location::Ahead,
            },
        }
    }

    /// The last segment of `step` that begins early enough.
    pub(super) fn last_of(&self, step: i32, early_enough: impl Fn(&Segment) -> bool) -> Option<Segment> {
        let of_step = self.by_first.values().filter(|segment| segment.step == step);
        of_step.take_while(|segment| early_enough(segment)).last().copied()
    }

    /// Whether the segment that begins with `first` still holds its slot. Sequence numbers never come again.
    pub(super) fn holds(&self, first: u64) -> bool {
        self.by_first.contains_key(&first)
    }

    fn make_room(&mut self, step: i32, head: bool) {
        let ring = self.limits.max_step_bytes - self.limits.max_step_bytes / 2;
        while !head && self.steps.get(&step).is_some_and(|used| used.ring + self.segment_bytes > ring) {
            let oldest = self.by_first.values().find(|segment| segment.step == step && !segment.head);
            let Some(oldest) = oldest.map(|segment| segment.first) else { break };
            self.give_up(oldest);
        }
        while self.used + self.segment_bytes > self.limits.max_total_bytes {
            let Some(victim) = self.victim(step) else { break };
            self.give_up(victim);
        }
    }

    /// The first record of the segment that the workflow can spare most while `running` writes.
    fn victim(&self, running: i32) -> Option<u64> {
        let mut before = 0;
        let rank = |segment: &Segment| {
            let in_workflows_head = before < self.limits.max_total_bytes / 2;
            before += segment.used;
            match (segment.step == running, segment.head) {
                (false, false) => 0,
                (false, true) if !in_workflows_head => 1,
                (true, false) => 2,
                _ if !in_workflows_head => 3,
                _ => 4,
            }
        };
        // The oldest of those that rank first.
        self.by_first.values().map(rank).zip(self.by_first.keys()).min().map(|(_, first)| *first)
    }

    fn give_up(&mut self, first: u64) {
        let Some(segment) = self.by_first.remove(&first) else { return };
        let step = self.steps.entry(segment.step).or_default();
        *(if segment.head { &mut step.head } else { &mut step.ring }) -= segment.used;
        self.used -= segment.used;
        self.free.push(segment.slot);
    }

    fn account(&mut self, segment: Segment, bytes: u64) {
        let step = self.steps.entry(segment.step).or_default();
        *(if segment.head { &mut step.head } else { &mut step.ring }) += bytes;
        self.used += bytes;
    }
}
