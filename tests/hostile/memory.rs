//! What a machine's host holds for its agent, measured.
//!
//! Every byte that a thread allocates is counted to that thread. The host runs on a runtime of this thread alone, the
//! hostile agent on another one.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::thread;
use std::time::Duration;

use creel::agent::Patience;
use creel::agent::credit::{MAX_EXECS, MAX_PLAIN_EXECS, OUTPUT};
use creel::agent::shell::{ShellEnd, carry};
use creel::runtime::{MAX_SHELLS, OutputReader, SHELL_QUEUE};
use creel_proto::agent::{BuiltPaths, ExecState, ExecStderr, ExecStdout, ExecWindow, Message, PtyData};
use creel_proto::names::extensions::EXEC_2;
use creel_proto::names::ids;
use creel_proto::{Envelope, FrameCodec};
use futures_util::SinkExt as _;
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::codec::Framed;

use crate::guest::ALL;
use crate::host::Host;
use crate::liar::LyingAgent;

/// The promise, in bytes.
const PROMISE: isize = 8 << 20;

struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that is ending has no cells any more; nobody measures it.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: all is the system allocator's; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A host with `execs` whose output nobody reads, and `hostile` on a thread of its own. Returns what the host held at
/// most.
fn held_at_most<A>(execs: usize, hostile: A) -> isize
where
    A: AsyncFnOnce(&mut LyingAgent, &[ExecWindow]) + Send + 'static,
{
    held_by(&ALL, execs, hostile)
}

/// The same for an agent that names these extensions.
fn held_by<A>(extensions: &'static [&'static str], execs: usize, hostile: A) -> isize
where
    A: AsyncFnOnce(&mut LyingAgent, &[ExecWindow]) + Send + 'static,
{
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (dialer, listener) = creel::transport::memory::pair();
    let (done, is_done) = oneshot::channel();
    let (over, is_over) = oneshot::channel::<()>();
    let peer = thread::spawn(move || {
        runtime().block_on(async move {
            let mut agent = LyingAgent::greets(dialer, extensions).await;
            let mut windows = Vec::new();
            for number in 0..execs {
                if extensions.contains(&EXEC_2) {
                    windows.push(agent.runs(&number.to_string()).await);
                }
            }
            hostile(&mut agent, &windows).await;
            let _ = done.send(());
            // Its connection stays open until all is measured.
            let _ = is_over.await;
        });
    });
    let peak = runtime().block_on(async {
        let host = Host::greet(listener, Patience::default()).await;
        let before = HELD.get();
        PEAK.set(before);
        let readers: Vec<OutputReader> = (0..execs).map(|number| host.run(&number.to_string())).collect();
        is_done.await.unwrap();
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        drop(readers);
        PEAK.get() - before
    });
    drop(over);
    peer.join().unwrap();
    println!("{} KiB at most", peak >> 10);
    peak
}

/// Small chunks of both streams in turn, as far as they have credit.
async fn interleaves(agent: &mut LyingAgent, id: &str, window: &ExecWindow, chunk: u64) {
    let most = window.stdout_limit.max(window.stderr_limit);
    let piece = |offset: u64, limit: u64| {
        let length = chunk.min(limit.saturating_sub(offset));
        (length > 0).then(|| bytes::Bytes::from(vec![7; usize::try_from(length).unwrap()]))
    };
    let mut offset = 0;
    while offset < most {
        if let Some(raw) = piece(offset, window.stdout_limit) {
            agent.feeds(id, ExecStdout { raw, offset, ..Default::default() }).await;
        }
        if let Some(raw) = piece(offset, window.stderr_limit) {
            agent.feeds(id, ExecStderr { raw, offset, ..Default::default() }).await;
        }
        offset += chunk;
    }
}

#[test]
fn every_window_full_of_small_chunks_of_both_streams_in_turn() {
    let peak = held_at_most(MAX_EXECS, async |agent, windows| {
        for (number, window) in windows.iter().enumerate() {
            // In the end by single bytes.
            let chunk = if number < MAX_EXECS - 8 { 61 } else { 1 };
            interleaves(agent, &number.to_string(), window, chunk).await;
        }
        agent.flushes().await;
    });
    assert!(peak <= PROMISE, "{peak} bytes");
    assert!(peak > isize::try_from(OUTPUT.total).unwrap() * 3 / 4, "most of it came: {peak}");
}

#[test]
fn every_window_full_of_large_chunks() {
    let peak = held_at_most(MAX_EXECS, async |agent, windows| {
        for (number, window) in windows.iter().enumerate() {
            let id = number.to_string();
            let raw = bytes::Bytes::from(vec![7; usize::try_from(window.stdout_limit).unwrap()]);
            agent.feeds(&id, ExecStdout { raw, ..Default::default() }).await;
            let raw = bytes::Bytes::from(vec![7; usize::try_from(window.stderr_limit).unwrap()]);
            agent.feeds(&id, ExecStderr { raw, ..Default::default() }).await;
        }
        agent.flushes().await;
    });
    assert!(peak <= PROMISE, "{peak} bytes");
    assert!(peak > isize::try_from(OUTPUT.total).unwrap() * 3 / 4, "most of it came: {peak}");
}

#[test]
fn frames_that_are_as_long_as_can_be() {
    let peak = held_at_most(1, async |agent, _| {
        let strings = BuiltPaths { paths: vec![String::new(); 500_000], ..Default::default() };
        let strings = Message::from(Envelope::new("x", strings)).encode_to_vec();
        let frame = [&u32::try_from(strings.len()).unwrap().to_be_bytes()[..], &strings].concat();
        for _ in 0..20 {
            agent.say_bytes(&frame).await;
            let shown = PtyData { data: vec![7; 1_000_000].into() };
            agent.say("x", shown).await;
            agent.say(&"i".repeat(900_000), ExecState::default()).await;
            let text = ExecStdout { data: "t".repeat(1_000_000), ..Default::default() };
            agent.say("nobody", text).await;
        }
        // Announced, and never sent.
        agent.say_bytes(&[0, 0x0f, 0xff, 0xff]).await;
        agent.say_bytes(&vec![0; 900_000]).await;
    });
    assert!(peak <= PROMISE, "{peak} bytes");
}

/// Without credit the connection is all that holds a program back.
#[test]
fn every_exec_of_an_agent_of_version_1_full_and_more_under_way() {
    let peak = held_by(&[], MAX_PLAIN_EXECS, async |agent, _| {
        let block = || "t".repeat(256 << 10);
        for number in 0..MAX_PLAIN_EXECS {
            let id = number.to_string();
            agent.say(&id, ExecStdout { data: block(), ..Default::default() }).await;
            agent.say(&id, ExecStderr { data: block(), ..Default::default() }).await;
        }
        // One frame is taken apart, another one waits behind it, and nobody reads any further.
        let more = async {
            loop {
                let data = "t".repeat(1_000_000);
                let more = ExecStdout { data, ..Default::default() };
                let _ = agent.wire.send(Envelope::new("0", more)).await;
            }
        };
        let _ = timeout(Duration::from_secs(1), more).await;
    });
    assert!(peak <= PROMISE, "{peak} bytes");
    let windows = isize::try_from(MAX_PLAIN_EXECS).unwrap() * (512 << 10);
    assert!(peak > windows, "all of it came: {peak}");
}

/// Beside its execs a machine has shells, whose connections are their own.
#[test]
fn every_shell_full_and_more_under_way() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let peak = runtime.block_on(async {
        let before = HELD.get();
        PEAK.set(before);
        let mut guests = Vec::new();
        let mut carried = Vec::new();
        for _ in 0..MAX_SHELLS {
            let (near, far) = tokio::io::duplex(64 << 10);
            let (shown, output) = mpsc::channel(SHELL_QUEUE);
            let (input, typed) = mpsc::channel(SHELL_QUEUE);
            carried.push((output, input));
            guests.push(tokio::spawn(async move {
                let mut count = 0;
                carry(Box::new(near), typed, shown, &mut count).await
            }));
            guests.push(tokio::spawn(async move {
                let mut wire = Framed::new(far, FrameCodec);
                let data = || PtyData { data: vec![7; 64 << 10].into() };
                while wire.send(Envelope::new(ids::PTY, data())).await.is_ok() {}
                ShellEnd::Unread
            }));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        guests.iter().for_each(tokio::task::JoinHandle::abort);
        PEAK.get() - before
    });
    println!("{} KiB at most", peak >> 10);
    let shells = isize::try_from(MAX_SHELLS).unwrap();
    // The guests' ends are in it, too: a pipe and two frames each.
    let guests = shells * ((3 * 72) << 10);
    assert!(peak <= PROMISE - isize::try_from(OUTPUT.total).unwrap() + guests - (1 << 20), "{peak} bytes");
    assert!(peak > shells * isize::try_from(SHELL_QUEUE).unwrap() * (64 << 10), "all of it came: {peak}");
}
