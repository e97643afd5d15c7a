//! One stream of output of one exec, as far as its credit goes. Pure.

use crate::agent::credit::{Pool, Window};
use crate::agent::ending::Violation;
use crate::runtime::Stream;

const LEAST_CREDIT: u64 = 4 << 10;

/// Offsets of a stream: acknowledged by its reader <= received <= limit. The guest keeps what is not acknowledged, so that
/// not even this host's death loses it; on a new connection it begins there, and says again what is known here already.
#[derive(Debug)]
pub(super) struct Lane {
    stream: Stream,
    window: Window,
    received: u64,
    acknowledged: u64,
    /// Where the connection of the moment goes on.
    next: u64,
    /// As the guest was told.
    limit: u64,
    ended: bool,
}

impl Lane {
    pub(super) fn new(stream: Stream, window: Window) -> Self {
        let limit = window.bytes();
        Self { stream, window, received: 0, acknowledged: 0, next: 0, limit, ended: false }
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// All before it need never be sent again.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Takes a chunk's place in the stream. Returns how many of its first bytes were known.
    pub(super) fn receive(
        &mut self,
        id: &str,
        offset: u64,
        length: u64,
        end: bool,
    ) -> Result<u64, Violation> {
        let (id, stream) = (|| id.to_owned(), self.stream);
        if self.ended {
            return Err(Violation::AfterEnd { id: id(), stream });
        }
        // What was acknowledged meanwhile it leaves out.
        if offset < self.next || offset > self.next.max(self.acknowledged) {
            return Err(Violation::Offset { id: id(), stream, claimed: offset, expected: self.next });
        }
        let after = offset + length;
        if after > self.limit {
            return Err(Violation::OverCredit { id: id(), stream, end: after, limit: self.limit });
        }
        if end && after < self.received {
            return Err(Violation::Length { id: id(), stream, said: after, received: self.received });
        }
        let known = self.received.saturating_sub(offset).min(length);
        self.next = after;
        self.received = self.received.max(after);
        self.ended = end;
        Ok(known)
    }

    /// The stream is over, and this long.
    pub(super) fn finish(&self, id: &str, said: u64) -> Result<(), Violation> {
        if said == self.received {
            return Ok(());
        }
        let (stream, received) = (self.stream, self.received);
        Err(Violation::Length { id: id.to_owned(), stream, said, received })
    }

    /// What its reader has done with; never goes back.
    pub(super) fn acknowledge(&mut self, offset: u64) {
        self.acknowledged = self.acknowledged.max(offset.min(self.received));
    }

    /// Nobody reads it any more.
    pub(super) fn acknowledge_all(&mut self) {
        self.acknowledged = self.received;
    }

    /// Whether the guest should hear of new credit: for half a window, or where it has none left and its reader, who has
    /// read all that came, acknowledges no more before more comes.
    pub(super) fn is_due(&self, all_read: bool) -> bool {
        let freed = (self.acknowledged + self.window.bytes()).saturating_sub(self.limit);
        let starved = all_read && self.received == self.limit;
        !self.ended && (freed >= self.window.bytes().div_ceil(2) || starved && freed > 0)
    }

    /// Raises the limit as far as its window goes now.
    pub(super) fn renew(&mut self, pool: &mut Pool) {
        // Who has none left gets some even where a reader keeps much unacknowledged, as one that looks for secrets does.
        let more = if self.received == self.limit { LEAST_CREDIT } else { 0 };
        pool.fit(&mut self.window, self.limit - self.acknowledged + more);
        self.limit = self.limit.max(self.acknowledged + self.window.bytes());
    }

    /// A connection has ended, and with it the limit that was told on it.
    pub(super) fn begin_again(&mut self, pool: &mut Pool) {
        (self.next, self.ended) = (self.acknowledged, false);
        self.limit = self.received;
        self.renew(pool);
    }

    pub(super) fn into_window(self) -> Window {
        self.window
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::agent::credit::OUTPUT;

    fn lane() -> (Pool, Lane) {
        let mut pool = Pool::new(OUTPUT);
        let window = pool.take().unwrap();
        (pool, Lane::new(Stream::Stdout, window))
    }

    #[test]
    fn credit_is_told_by_the_half_window_and_to_who_has_none_left() {
        let (mut pool, mut lane) = lane();
        let window = lane.limit();
        lane.receive("x", 0, window - 1, false).unwrap();
        lane.acknowledge(window / 2 - 1);
        assert!(!lane.is_due(true), "there is credit left");
        lane.acknowledge(window / 2);
        assert!(lane.is_due(false));
        lane.renew(&mut pool);
        assert!(!lane.is_due(true));
        lane.receive("x", window - 1, window / 2 + 1, false).unwrap();
        assert!(!lane.is_due(true), "nothing is freed");
        lane.acknowledge(window / 2 + 1);
        assert!(!lane.is_due(false), "its reader goes on");
        assert!(lane.is_due(true), "it waits for more");
    }

    #[test]
    fn what_is_said_again_is_known_and_what_was_acknowledged_may_be_left_out() {
        let (mut pool, mut lane) = lane();
        assert_eq!(lane.receive("x", 0, 1000, false).unwrap(), 0);
        lane.acknowledge(400);
        lane.begin_again(&mut pool);
        assert!(lane.receive("x", 300, 1, false).is_err(), "it is gone in the guest");
        assert!(lane.receive("x", 401, 1, false).is_err(), "a gap");
        assert_eq!(lane.receive("x", 400, 100, false).unwrap(), 100);
        lane.acknowledge(700);
        assert!(lane.receive("x", 701, 1, false).is_err(), "a gap");
        assert_eq!(lane.receive("x", 700, 400, true).unwrap(), 300);
        assert_eq!(lane.received(), 1100);
        lane.begin_again(&mut pool);
        assert_eq!(lane.receive("x", 700, 400, true).unwrap(), 400, "its end is said again too");
        assert!(lane.finish("x", 1100).is_ok());
        lane.begin_again(&mut pool);
        assert!(lane.receive("x", 700, 399, true).is_err(), "it has become shorter");
    }

    proptest! {
        /// A guest that keeps to its limit can always go on once its reader has acknowledged all, never has more under way
        /// than its window, and may say again what it likes to after each cut.
        #[test]
        fn a_stream_neither_stalls_nor_overflows_nor_doubles_a_byte(
            steps in proptest::collection::vec((1..300_000u64, 0..=100u64, any::<bool>()), 1..200),
        ) {
            let (mut pool, mut lane) = lane();
            // Where the guest sends from.
            let (mut sent, mut counted) = (0, 0);
            for (wanted, percent, cut) in steps {
                let length = wanted.min(lane.limit() - sent);
                counted += length - lane.receive("x", sent, length, false).unwrap();
                sent += length;
                prop_assert_eq!(counted, lane.received());
                let held = lane.received - lane.acknowledged;
                lane.acknowledge(lane.acknowledged + held * percent / 100);
                if cut {
                    lane.begin_again(&mut pool);
                    sent = lane.acknowledged();
                } else if lane.is_due(percent == 100) {
                    lane.renew(&mut pool);
                    sent = sent.max(lane.acknowledged());
                }
                prop_assert!(lane.limit - lane.acknowledged <= lane.window.bytes());
                prop_assert!(lane.received <= lane.limit);
                if percent == 100 {
                    prop_assert!(lane.limit > lane.received, "it stalls");
                }
            }
        }
    }
}
