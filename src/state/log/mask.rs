//! Hides secrets in a byte stream, across whatever borders its chunks have.
//!
//! Every byte that belongs to an occurrence of a masked form is hidden; occurrences that overlap are hidden by one
//! mask. (To replace the longest match and go on behind it would leave the tail of a second secret that begins inside
//! the first.) The result depends on the bytes alone, never on how they were cut.
//!
//! An Aho-Corasick automaton over all forms reads the stream. Its state tells the longest suffix read so far with which
//! some form begins, which is exactly what must be held back. Most output is nowhere near a secret: while no form has begun,
//! a filter (`skip`) runs ahead to where one may.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, MatchKind};

use super::forms::{MIN_SECRET_BYTES, forms};
use super::skip::Skip;

/// What stands in the output where a secret stood.
pub const MASK: &[u8] = b"***";

/// Why a mask can't be made.
#[derive(Debug, thiserror::Error)]
pub enum MaskError {
    #[error("the secrets of the workflow are too large to be masked; make them smaller or fewer")]
    TooLarge(#[source] aho_corasick::BuildError),
}

/// The compiled forms of a workflow's secrets, shared by all its streams.
#[derive(Clone)]
pub struct Mask {
    /// None when there is nothing to hide.
    forms: Option<Arc<Forms>>,
    patterns: Arc<BTreeSet<Vec<u8>>>,
    ignored: usize,
}

impl Mask {
    /// Compiles `secrets`; those shorter than [`MIN_SECRET_BYTES`] are not masked.
    pub fn new<S: AsRef<[u8]>>(secrets: &[S]) -> Result<Self, MaskError> {
        Self::none().also(secrets)
    }

    /// A mask that hides nothing.
    pub fn none() -> Self {
        Self { forms: None, patterns: Arc::default(), ignored: 0 }
    }

    /// A mask that hides `secrets` too.
    ///
    /// # Errors
    /// When there are too many bytes of them.
    pub fn also<S: AsRef<[u8]>>(&self, secrets: &[S]) -> Result<Self, MaskError> {
        let short = secrets.iter().filter(|secret| secret.as_ref().len() < MIN_SECRET_BYTES).count();
        let ignored = self.ignored + short;
        let mut patterns = forms(secrets);
        if patterns.is_subset(&self.patterns) {
            return Ok(Self { ignored, ..self.clone() });
        }
        patterns.extend(self.patterns.iter().cloned());
        let list: Vec<_> = patterns.iter().cloned().collect();
        Ok(Self { forms: Some(Arc::new(Forms::new(&list)?)), patterns: Arc::new(patterns), ignored })
    }

    /// How many secrets are too short to be masked; the user should hear of it.
    pub fn ignored(&self) -> usize {
        self.ignored
    }

    /// Masks a whole text at once.
    pub fn apply(&self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len());
        let mut masker = Masker::new(self.clone(), 0);
        masker.push(text, &mut out);
        masker.flush(&mut out);
        out
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The automaton's own Debug prints the secrets.
        f.debug_struct("Mask").field("active", &self.forms.is_some()).finish_non_exhaustive()
    }
}

struct Forms {
    automaton: NFA,
    start: StateID,
    /// For each state the length of the longest suffix read that begins some form without ending it. States' ids have gaps.
    pending: Vec<u16>,
    skip: Skip,
}

impl Forms {
    fn new(patterns: &[Vec<u8>]) -> Result<Self, MaskError> {
        let automaton = NFA::builder()
            .match_kind(MatchKind::Standard)
            .prefilter(false)
            .build(patterns)
            .map_err(MaskError::TooLarge)?;
        let start = automaton.start_state(Anchored::No).expect("an NFA of this kind has an unanchored start");
        let read = |bytes: &[u8]| {
            bytes.iter().fold(start, |state, byte| automaton.next_state(Anchored::No, state, *byte))
        };

        let mut pending = HashMap::from([(start, 0)]);
        for pattern in patterns {
            let mut state = start;
            for (depth, byte) in pattern.iter().enumerate() {
                pending.insert(state, depth);
                state = automaton.next_state(Anchored::No, state, *byte);
            }
        }
        // A form that begins no longer one waits for nothing itself, only for what its own end may begin; shorter forms
        // first, as that end may be one of them.
        let mut by_length: Vec<_> = patterns.iter().collect();
        by_length.sort_by_key(|pattern| pattern.len());
        for pattern in by_length {
            let of_end = pending[&read(&pattern[1..])];
            pending.entry(read(pattern)).or_insert(of_end);
        }
        let states = pending.keys().map(|state| state.as_usize() + 1).max().unwrap_or(0);
        let mut by_state = vec![0; states];
        for (state, length) in pending {
            by_state[state.as_usize()] =
                u16::try_from(length).expect("no form is longer than MAX_FORM_BYTES");
        }
        let skip = Skip::new(patterns);
        Ok(Self { automaton, start, pending: by_state, skip })
    }

    fn pending(&self, state: StateID) -> usize {
        self.pending[state.as_usize()].into()
    }

    /// The length of the longest form that ends in `state`.
    fn longest_match(&self, state: StateID) -> usize {
        let matches = 0..self.automaton.match_len(state);
        let lengths =
            matches.map(|index| self.automaton.pattern_len(self.automaton.match_pattern(state, index)));
        lengths.max().unwrap_or(0)
    }
}

/// Hides the secrets of one stream. Offsets are raw: counted in bytes pushed.
pub struct Masker {
    mask: Mask,
    state: Option<StateID>,
    /// All before this raw offset is out.
    written: u64,
    /// The raw bytes from `written` on.
    held: Vec<u8>,
    /// Occurrences not yet wholly out; starts and ends both ascend.
    hidden: VecDeque<(u64, u64)>,
    /// The end of the last occurrence whose mask is out; one that overlaps it gets no mask of its own.
    masked_until: u64,
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Held bytes may be the beginning of a secret.
        f.debug_struct("Masker")
            .field("written", &self.written)
            .field("held", &self.held.len())
            .finish_non_exhaustive()
    }
}

impl Masker {
    /// A masker for a stream whose next byte has the raw offset `raw_offset`.
    pub fn new(mask: Mask, raw_offset: u64) -> Self {
        let state = mask.forms.as_ref().map(|forms| forms.start);
        let hidden = VecDeque::new();
        Self { mask, state, written: raw_offset, held: Vec::new(), hidden, masked_until: raw_offset }
    }

    /// The raw offset up to which output is out. A new masker that is given the stream from here on hides all that
    /// this one would have hidden: the offset never lies where a secret would be cut.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The raw offset of the next byte to be pushed.
    pub fn next(&self) -> u64 {
        self.written + self.held.len() as u64
    }

    /// Reads `bytes`, gives `out` what can be decided, and returns [`written`](Self::written). At most twice the longest
    /// form is held back.
    pub fn push(&mut self, bytes: &[u8], out: &mut impl MaskedOutput) -> u64 {
        let (Some(forms), Some(mut state)) = (self.mask.forms.clone(), self.state) else {
            out.plain(self.written, bytes);
            self.written += bytes.len() as u64;
            return self.written;
        };
        let base = self.next();
        let mut index = 0;
        while index < bytes.len() {
            if state == forms.start {
                index = forms.skip.next(bytes, index);
            }
            while let Some(byte) = bytes.get(index) {
                state = forms.automaton.next_state(Anchored::No, state, *byte);
                index += 1;
                if state == forms.start {
                    break;
                }
                if forms.automaton.is_match(state) {
                    let end = base + index as u64;
                    self.hide(end - forms.longest_match(state) as u64, end);
                }
                // With many forms every other byte begins some, and the automaton alone would never be done.
                let pending = forms.pending(state);
                if pending < FEW_BYTES && !forms.skip.may_have_begun(bytes, index, pending) {
                    state = forms.start;
                    break;
                }
            }
        }
        self.state = Some(state);
        // No form that is still to be completed begins before this.
        let settled = base + bytes.len() as u64 - forms.pending(state) as u64;
        self.write_until(self.uncut(settled), bytes, out)
    }

    /// Gives `out` all that is held back: the stream is at its end.
    pub fn flush(&mut self, out: &mut impl MaskedOutput) -> u64 {
        self.state = self.mask.forms.as_ref().map(|forms| forms.start);
        self.write_until(self.next(), &[], out)
    }

    fn hide(&mut self, start: u64, end: u64) {
        while self.hidden.back().is_some_and(|(inner, _)| *inner >= start) {
            self.hidden.pop_back();
        }
        self.hidden.push_back((start, end));
    }

    /// `settled`, or if an occurrence covers it, the start of the last such: whoever reads from there finds that
    /// occurrence and all after it, and so hides the same bytes. Going back to the start of the whole overlapping run
    /// would be as right, but a guest that prints `aaaa…` could then hold the offset still for ever.
    fn uncut(&self, settled: u64) -> u64 {
        match self.hidden.iter().rev().find(|(start, _)| *start <= settled) {
            Some((start, end)) if settled < *end => *start,
            _ => settled,
        }
    }

    fn write_until(&mut self, end: u64, bytes: &[u8], out: &mut impl MaskedOutput) -> u64 {
        let mut at = self.written.max(self.masked_until);
        while let Some(&(start, hidden_end)) = self.hidden.front().filter(|(start, _)| *start < end) {
            if start >= self.masked_until {
                self.copy(at, start, bytes, out);
                out.mask(start);
            }
            self.masked_until = hidden_end;
            at = hidden_end;
            self.hidden.pop_front();
        }
        self.copy(at, end, bytes, out);

        let advance = usize::try_from(end - self.written).expect("what was in memory has a length in memory");
        if let Some(consumed) = advance.checked_sub(self.held.len()) {
            self.held.clear();
            self.held.extend_from_slice(&bytes[consumed..]);
        } else {
            self.held.drain(..advance);
            self.held.extend_from_slice(bytes);
        }
        self.written = end;
        end
    }

    /// Gives `out` the raw bytes `from..to`, which lie in `held` followed by `bytes`.
    fn copy(&self, from: u64, to: u64, bytes: &[u8], out: &mut impl MaskedOutput) {
        if from >= to {
            return;
        }
        let index = |offset: u64| usize::try_from(offset - self.written).expect("offsets here are in memory");
        let (first, end, held) = (index(from), index(to), self.held.len());
        let of_held = &self.held[first.min(held)..end.min(held)];
        out.plain(from, of_held);
        out.plain(from + of_held.len() as u64, &bytes[first.saturating_sub(held)..end.saturating_sub(held)]);
    }
}

/// While so few bytes may begin a form, it is worth asking the filter whether they do.
const FEW_BYTES: usize = 4;

/// Takes what a [`Masker`] lets out, in order.
pub trait MaskedOutput {
    /// Bytes that hide nothing, the first of them at `raw_offset`; perhaps none.
    fn plain(&mut self, raw_offset: u64, bytes: &[u8]);

    /// A [`MASK`] in place of one or more secrets, the first of which begins at `raw_offset`.
    fn mask(&mut self, raw_offset: u64);
}

impl MaskedOutput for Vec<u8> {
    fn plain(&mut self, _: u64, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn mask(&mut self, _: u64) {
        self.extend_from_slice(MASK);
    }
}
