//! Execs that callers hold: who is attached, what waits, and what is given up.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::machines::{
    Ask, Attachment, Detached, Followed, Happening, HeldExec, Holding, MAX_WAITING_EXECS, News, NewsReader,
};
use crate::runtime::{OffsetError, OutputOffsets, STREAM_WINDOW_BYTES, Stream};

const SOON: Duration = Duration::from_secs(10);
const FROM_START: OutputOffsets = OutputOffsets { stdout: 0, stderr: 0 };

fn lingering(linger: Duration) -> Holding {
    Holding { linger: Some(linger), acknowledges: true }
}

fn held(id: &str, holding: Holding) -> HeldExec {
    let work = Work::UnpackSource { destination: "/workspace".into(), user: String::new() };
    let request = ExecRequest { id: id.into(), work, deadline: None };
    HeldExec { request, named_by: NamedBy::Caller, input: true, fingerprint: [1; 32], holding }
}

impl World {
    async fn start(&self, machine: &MachineId, id: &str, holding: Holding) -> Attachment {
        self.machines.start(machine, held(id, holding)).await.unwrap()
    }

    async fn attach(&self, machine: &MachineId, stdout: u64) -> Result<Attachment, ExecError> {
        let holding = Holding { linger: None, acknowledges: true };
        let offsets = OutputOffsets { stdout, stderr: 0 };
        self.machines.attach(machine, "e", offsets, holding).await
    }

    fn running(&self) -> u32 {
        self.machines.list(false).iter().map(|machine| machine.execs).sum()
    }

    async fn runs(&self, count: u32) {
        let counted = async {
            while self.running() != count {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, counted).await.unwrap();
    }
}

fn input(offset: u64, bytes: &'static [u8]) -> Ask {
    Ask::Input { offset, bytes: Bytes::from_static(bytes) }
}

/// The next thing that is not about input.
async fn next(news: &mut NewsReader) -> Result<News, Detached> {
    loop {
        match timeout(SOON, news.next()).await.unwrap().unwrap() {
            Ok(News::InputWritten(_)) => {}
            other => return other,
        }
    }
}

/// So many bytes of output, from an offset on.
async fn reads(news: &mut NewsReader, offset: u64, bytes: &str) {
    let mut read = Vec::new();
    while read.len() < bytes.len() {
        let News::Output(chunk) = next(news).await.unwrap() else { panic!("no output") };
        assert_eq!(chunk.raw_offset, offset + read.len() as u64);
        read.extend_from_slice(&chunk.bytes);
    }
    assert_eq!(String::from_utf8(read).unwrap(), bytes);
}

async fn ends(news: &mut NewsReader) -> Outcome {
    let News::Verdict(verdict) = next(news).await.unwrap() else { panic!("another end") };
    assert_eq!(news.next().await, None);
    verdict.outcome
}

#[tokio::test]
async fn what_is_said_is_read_and_the_end_of_it_ends_the_program() {
    let world = world(ScriptedSetup::Ready, [ScriptedExec::echoes()]);
    let id = world.created().await;
    let Attachment { exec_id, input_offset, asks, mut news } =
        world.start(&id, "e", Holding::default()).await;
    assert_eq!((exec_id.as_str(), input_offset), ("e", 0));
    asks.say(input(0, b"one ")).await;
    asks.say(input(4, b"two")).await;
    reads(&mut news, 0, "one two").await;
    asks.say(Ask::Resize(crate::runtime::TerminalSize { rows: 3, columns: 4 })).await;
    asks.say(Ask::CloseInput).await;
    assert_eq!(ends(&mut news).await, Outcome::Exited { code: 0 });
    assert_eq!(world.journal.entries(), ["setup", "exec e", "resize 3x4"]);
    drop(news);
    world.runs(0).await;
    assert!(matches!(world.attach(&id, 0).await, Err(ExecError::UnknownExec { .. })));
}

#[tokio::test]
async fn a_caller_that_goes_takes_its_exec_with_it_unless_that_lingers() {
    let world = world(ScriptedSetup::Ready, [ScriptedExec::hangs(), ScriptedExec::hangs()]);
    let id = world.created().await;
    let attachment = world.start(&id, "plain", Holding::default()).await;
    world.runs(1).await;
    drop(attachment);
    world.runs(0).await;
    drop(world.start(&id, "e", lingering(SOON)).await);
    world.runs(1).await;
    sleep(Duration::from_millis(50)).await;
    let mut attachment = world.attach(&id, 0).await.unwrap();
    attachment.asks.say(Ask::Cancel).await;
    assert_eq!(ends(&mut attachment.news).await, Outcome::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn an_exec_lingers_so_long_and_its_verdict_as_long_again() {
    let linger = Duration::from_secs(60);
    let ends_at_30 = ScriptedExec { takes: Duration::from_secs(30), ..ScriptedExec::exits(7) };
    let world = world(ScriptedSetup::Ready, [ScriptedExec::hangs(), ends_at_30]);
    let id = world.created().await;
    drop(world.start(&id, "never", lingering(linger)).await);
    let started = Instant::now();
    world.runs(1).await;
    while world.running() == 1 {
        sleep(Duration::from_secs(1)).await;
    }
    let waited = started.elapsed();
    assert!((60..=62).contains(&waited.as_secs()), "{waited:?}");
    drop(world.start(&id, "e", lingering(linger)).await);
    sleep(Duration::from_secs(89)).await;
    let mut late = world.attach(&id, 0).await.unwrap();
    assert_eq!(ends(&mut late.news).await, Outcome::Exited { code: 7 });
    // Told, and kept for one who did not get it.
    drop(late);
    sleep(Duration::from_secs(59)).await;
    drop(world.attach(&id, 0).await.unwrap());
    sleep(Duration::from_secs(61)).await;
    assert!(matches!(world.attach(&id, 0).await, Err(ExecError::UnknownExec { .. })));
}

#[tokio::test]
async fn another_caller_goes_on_at_its_own_offsets_and_the_former_is_told() {
    let talking = ScriptedExec::hangs().writing(Stream::Stdout, "abcdef");
    let world = world(ScriptedSetup::Ready, [talking]);
    let id = world.created().await;
    let mut former = world.start(&id, "e", lingering(SOON)).await;
    reads(&mut former.news, 0, "abcdef").await;
    former.asks.say(Ask::Acknowledge(OutputOffsets { stdout: 2, stderr: 0 })).await;
    // Heeded, once the next is taken.
    former.asks.say(Ask::CloseInput).await;
    former.asks.say(Ask::CloseInput).await;
    let forgotten = OffsetError::Forgotten { offset: 1, acknowledged: 2 };
    let beyond = OffsetError::Beyond { offset: 7, end: 6 };
    for (offset, expected) in [(1, forgotten), (7, beyond)] {
        let why = world.attach(&id, offset).await.unwrap_err();
        assert_eq!(why, ExecError::Offset { exec: "e".into(), why: expected });
    }
    let mut latter = world.attach(&id, 3).await.unwrap();
    assert_eq!(next(&mut former.news).await, Err(Detached::Replaced("e".into())));
    assert_eq!(former.news.next().await, None);
    reads(&mut latter.news, 3, "def").await;
    // What the former still says is not heeded, and its end changes nothing.
    former.asks.say(Ask::Cancel).await;
    drop(former);
    assert!(timeout(Duration::from_millis(50), next(&mut latter.news)).await.is_err());
    latter.asks.say(Ask::Cancel).await;
    assert_eq!(ends(&mut latter.news).await, Outcome::Cancelled);
}

#[tokio::test]
async fn input_goes_on_where_the_former_caller_left_it() {
    let world = world(ScriptedSetup::Ready, [ScriptedExec::echoes()]);
    let id = world.created().await;
    let former = world.start(&id, "e", lingering(SOON)).await;
    former.asks.say(input(0, b"abc")).await;
    let mut former = former.news;
    reads(&mut former, 0, "abc").await;
    drop(former);
    let mut latter = world.attach(&id, 0).await.unwrap();
    assert_eq!(latter.input_offset, 3);
    latter.asks.say(input(3, b"def")).await;
    latter.asks.say(Ask::CloseInput).await;
    reads(&mut latter.news, 0, "abcdef").await;
    assert_eq!(ends(&mut latter.news).await, Outcome::Exited { code: 0 });
}

#[tokio::test]
async fn an_end_that_was_not_reached_is_the_next_caller_s_to_say_again() {
    let world = world(ScriptedSetup::Ready, [ScriptedExec::hangs()]);
    let id = world.created().await;
    let former = world.start(&id, "e", lingering(SOON)).await;
    // As much as waits in the program's input, and a little that waits before it and goes with its caller.
    let piece = Bytes::from(vec![7; 64 << 10]);
    for number in 0..=(STREAM_WINDOW_BYTES / piece.len() as u64) {
        let offset = number * piece.len() as u64;
        former.asks.say(Ask::Input { offset, bytes: piece.clone() }).await;
    }
    former.asks.say(Ask::CloseInput).await;
    // Taken by the owner only behind what was said before it.
    former.asks.say(Ask::Resize(crate::runtime::TerminalSize { rows: 3, columns: 4 })).await;
    drop(former);
    let mut latter = world.attach(&id, 0).await.unwrap();
    assert_eq!(latter.input_offset, STREAM_WINDOW_BYTES);
    latter.asks.say(Ask::Input { offset: STREAM_WINDOW_BYTES, bytes: piece }).await;
    latter.asks.say(Ask::CloseInput).await;
    latter.asks.say(Ask::Cancel).await;
    assert_eq!(ends(&mut latter.news).await, Outcome::Cancelled);
}

#[tokio::test]
async fn callers_who_say_what_can_not_be_are_detached_by_name() {
    let acknowledged = |stdout| Ask::Acknowledge(OutputOffsets { stdout, stderr: 0 });
    let plain = Holding { linger: Some(SOON), acknowledges: false };
    let table = [
        (lingering(SOON), vec![input(1, b"x")], Detached::InputOffset { claimed: 1, expected: 0 }),
        (lingering(SOON), vec![Ask::CloseInput, input(0, b"x")], Detached::InputAfterEnd),
        (lingering(SOON), vec![acknowledged(1)], Detached::Acknowledged { offset: 1, sent: 0 }),
        (plain, vec![acknowledged(0)], Detached::AcknowledgesNot),
    ];
    for (holding, said, expected) in table {
        let world = world(ScriptedSetup::Ready, [ScriptedExec::hangs()]);
        let id = world.created().await;
        let mut attachment = world.start(&id, "e", holding).await;
        for ask in said {
            attachment.asks.say(ask).await;
        }
        assert_eq!(next(&mut attachment.news).await, Err(expected));
        assert!(world.attach(&id, 0).await.is_ok(), "it lingers");
    }
    let world = world(ScriptedSetup::Ready, [ScriptedExec::hangs()]);
    let id = world.created().await;
    let without = HeldExec { input: false, ..held("e", Holding::default()) };
    let mut attachment = world.machines.start(&id, without).await.unwrap();
    attachment.asks.say(input(0, b"x")).await;
    assert_eq!(next(&mut attachment.news).await, Err(Detached::NoInput));
    drop(attachment);
    world.runs(0).await;
}

#[tokio::test]
async fn a_start_that_is_repeated_attaches_to_what_nobody_has_touched() {
    let world = world(ScriptedSetup::Ready, [ScriptedExec::hangs().writing(Stream::Stdout, "abc")]);
    let id = world.created().await;
    let start = async |fingerprint| {
        let exec = HeldExec { fingerprint, ..held("e", lingering(SOON)) };
        world.machines.start(&id, exec).await
    };
    let duplicate = Err(ExecError::Duplicate { machine: id.clone(), exec: "e".into() });
    let refused = |answer: Result<Attachment, ExecError>| answer.map(drop);
    let first = start([1; 32]).await.unwrap();
    assert_eq!(refused(start([1; 32]).await), duplicate, "it is somebody's");
    drop(first);
    let mut second = loop {
        // Once the owner has seen that.
        if let Ok(attached) = start([1; 32]).await {
            break attached;
        }
    };
    reads(&mut second.news, 0, "abc").await;
    second.asks.say(Ask::Acknowledge(OutputOffsets { stdout: 1, stderr: 0 })).await;
    second.asks.say(Ask::CloseInput).await;
    second.asks.say(Ask::CloseInput).await;
    drop(second);
    world.runs(1).await;
    assert_eq!(refused(start([1; 32]).await), duplicate, "some of its output was acknowledged");
    assert_eq!(refused(start([2; 32]).await), duplicate, "it is another");
    assert!(world.attach(&id, 1).await.is_ok());
}

#[tokio::test]
async fn more_than_may_wait_are_given_up_those_first_that_are_told() {
    let hanging = vec![ScriptedExec::hangs(); MAX_WAITING_EXECS + 1];
    let world = world(ScriptedSetup::Ready, [vec![ScriptedExec::exits(0)], hanging].concat());
    let id = world.created().await;
    let told = async |id: &MachineId| {
        let mut told = world.start(id, "told", lingering(SOON)).await;
        assert_eq!(ends(&mut told.news).await, Outcome::Exited { code: 0 });
    };
    told(&id).await;
    let hanging = u32::try_from(MAX_WAITING_EXECS).unwrap();
    for number in 0..hanging {
        drop(world.start(&id, &format!("h{number}"), lingering(SOON)).await);
        world.runs(number + 1).await;
    }
    drop(world.start(&id, "one more", lingering(SOON)).await);
    let settled = async {
        while world.running() != hanging
            || world.machines.attach(&id, "h0", FROM_START, lingering(SOON)).await.is_ok()
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, settled).await.unwrap();
    let told = world.machines.attach(&id, "told", FROM_START, lingering(SOON)).await;
    assert!(matches!(told, Err(ExecError::UnknownExec { .. })), "it was the first to go");
}

#[tokio::test]
async fn a_machine_that_ends_takes_what_waits_with_it_and_tells_who_is_attached() {
    let world = world(ScriptedSetup::Ready, [ScriptedExec::hangs(), ScriptedExec::hangs()]);
    let id = world.created().await;
    drop(world.start(&id, "e", lingering(SOON)).await);
    let mut attached = world.start(&id, "attached", lingering(SOON)).await;
    world.runs(2).await;
    let entry = world.machines.registry.find(&id).unwrap();
    world.death.strike(crashed());
    assert_eq!(ends(&mut attached.news).await, crashed());
    world.machines.ended(&id).await.unwrap();
    drop(attached);
    let released = async {
        while entry.execs.held() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, released).await.unwrap();
    // How the machine ended is what is left of its execs, and what is asked of it now ends so too.
    let mut late = world.attach(&id, 9).await.unwrap();
    assert_eq!(ends(&mut late.news).await, crashed());
    let mut later = world.start(&id, "later", lingering(SOON)).await;
    assert_eq!(ends(&mut later.news).await, crashed());
}

#[tokio::test]
async fn output_that_is_not_acknowledged_holds_the_program_back_and_is_kept() {
    let taken = Arc::new(AtomicU64::new(0));
    let world = world(ScriptedSetup::Ready, [ScriptedExec::floods(Arc::clone(&taken))]);
    let id = world.created().await;
    let mut attachment = world.start(&id, "e", lingering(SOON)).await;
    let mut read = 0;
    while let Ok(news) = timeout(Duration::from_millis(200), next(&mut attachment.news)).await {
        let News::Output(chunk) = news.unwrap() else { panic!("another end") };
        read += chunk.bytes.len() as u64;
    }
    assert!((STREAM_WINDOW_BYTES..2 * STREAM_WINDOW_BYTES).contains(&read), "{read}");
    assert_eq!(taken.load(Ordering::Relaxed), read);
    attachment.asks.say(Ask::Acknowledge(OutputOffsets { stdout: read, stderr: 0 })).await;
    let News::Output(chunk) = next(&mut attachment.news).await.unwrap() else { panic!("another end") };
    assert_eq!(chunk.raw_offset, read);
}

#[tokio::test]
async fn input_that_nobody_reads_holds_its_caller_back() {
    let world = world(ScriptedSetup::Ready, [ScriptedExec::hangs()]);
    let id = world.created().await;
    let mut attachment = world.start(&id, "e", Holding::default()).await;
    let piece = Bytes::from(vec![7; 64 << 10]);
    let mut offset = 0;
    let say = async |offset| attachment.asks.say(Ask::Input { offset, bytes: piece.clone() }).await;
    while timeout(Duration::from_millis(200), say(offset)).await.is_ok() {
        offset += piece.len() as u64;
        assert!(offset < 3 * STREAM_WINDOW_BYTES, "{offset} bytes wait");
    }
    // Its end is seen nevertheless.
    world.death.strike(crashed());
    assert_eq!(ends(&mut attachment.news).await, crashed());
}

#[tokio::test]
async fn an_exec_is_told_of_once_whoever_is_attached() {
    let world = world(ScriptedSetup::Ready, [ScriptedExec::exits(0)]);
    let id = world.created().await;
    let mut first = world.start(&id, "e", lingering(SOON)).await;
    assert_eq!(ends(&mut first.news).await, Outcome::Exited { code: 0 });
    drop(first);
    let mut again = world.attach(&id, 0).await.unwrap();
    assert_eq!(ends(&mut again.news).await, Outcome::Exited { code: 0 });
    let (mut events, mut counted) = (world.machines.events(Some(1)).unwrap(), (0, 0));
    while let Some(Followed::Event(event)) = events.now() {
        match event.what {
            Happening::ExecStarted { .. } => counted.0 += 1,
            Happening::ExecEnded { .. } => counted.1 += 1,
            _ => {}
        }
    }
    assert_eq!(counted, (1, 1));
}
