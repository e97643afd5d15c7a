//! From a program to its exit: its output, its input, its deadline, and what is ordered of it meanwhile.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use creel_proto::agent::ExecStart;
use tokio::sync::{mpsc, watch};

use super::feed::feed;
use super::frames::Form;
use super::pump::{Grace, pump};
use super::start::{Started, start};
use super::state::Exec;
use crate::exit::{not_started, verdict};
use crate::family::Family;
use crate::guest::Guest;
use crate::input::InputBuffer;
use crate::oom::OomKills;
use crate::outbox::Outbox;
use crate::output::Stream;
use crate::reaper::Exited;

/// For a program that ended by itself: what it left behind may still finish a sentence.
const ENDED: Grace = Grace { quiet: Duration::from_secs(1), at_most: Duration::from_secs(5) };

/// For a program that was killed at its deadline or cancelled: the host waits for the exit, and for nothing else.
const KILLED: Grace = Grace { quiet: Duration::from_millis(100), at_most: Duration::from_millis(500) };

/// signal(7).
const HUP: u32 = 1;

/// What the host asks of an exec that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// To its process group, by the number of signal(7).
    Signal(u32),
    /// TERM, and after the grace KILL for all that it has started.
    Cancel { grace: Duration },
}

/// An exec that sends to `outbox`, and the task that runs it to its end.
pub fn begin(
    guest: &Guest,
    id: String,
    request: ExecStart,
    form: Form,
    outbox: &Outbox,
) -> (Arc<Exec>, impl Future<Output = ()> + Send + 'static) {
    let input = match request.input || request.terminal.is_some() {
        true => InputBuffer::open(),
        false => InputBuffer::closed(),
    };
    let (exec, orders) = Exec::new(id, form, input, outbox.clone(), guest.buffers.clone());
    let task = run(guest.clone(), Arc::clone(&exec), request, orders);
    (exec, task)
}

async fn run(guest: Guest, exec: Arc<Exec>, request: ExecStart, orders: mpsc::Receiver<Order>) {
    let oom_kills = OomKills::now();
    let exit = match start(&guest, &request) {
        Ok(started) => {
            let timeout = match request.timeout_seconds {
                0 => None,
                seconds => Some(Duration::from_secs(seconds.into())),
            };
            let (end, timed_out) = follow(started, timeout, &exec, orders).await;
            verdict(end, timed_out, || oom_kills.grew())
        }
        Err(error) => not_started(&error.to_string()),
    };
    exec.finish(exit);
}

/// Follows both streams to their ends and waits for the program. The second value: it was killed at its deadline.
async fn follow(
    started: Started,
    timeout: Option<Duration>,
    exec: &Arc<Exec>,
    orders: mpsc::Receiver<Order>,
) -> (Exited, bool) {
    let Started { process, input, output, terminal } = started;
    let family = process.family();
    let on_terminal = terminal.is_some();
    if let Some(terminal) = terminal {
        exec.set_terminal(terminal);
    }
    for stream in [Stream::Stdout, Stream::Stderr] {
        if output.iter().all(|(piped, _)| *piped != stream) {
            exec.end(stream);
        }
    }
    let cancelled = AtomicBool::new(false);
    let (program, ending) = watch::channel(None);
    let pumps: Vec<_> = output
        .into_iter()
        .map(|(stream, source)| tokio::spawn(pump(Arc::clone(exec), stream, source, ending.clone())))
        .collect();
    let feeder = input.map(|sink| tokio::spawn(feed(Arc::clone(exec), sink)));
    let follow = async {
        let (end, timed_out) = process.wait(timeout).await;
        let killed = timed_out || cancelled.load(Ordering::Relaxed);
        program.send_replace(Some(if killed { KILLED } else { ENDED }));
        exec.close_input();
        if let Some(feeder) = feeder {
            feeder.abort();
        }
        for pump in pumps {
            // It neither panics nor is it ended by anybody.
            let _ = pump.await;
        }
        (end, timed_out)
    };
    let end = tokio::select! {
        end = follow => end,
        never = obey(orders, &family, on_terminal, &cancelled) => match never {},
    };
    tokio::spawn(async move { family.bury().await });
    end
}

/// Does as it is told, for as long as it is polled.
async fn obey(
    mut orders: mpsc::Receiver<Order>,
    family: &Family,
    on_terminal: bool,
    cancelled: &AtomicBool,
) -> Infallible {
    while let Some(order) = orders.recv().await {
        match order {
            Order::Signal(signal) => family.signal_group(signal),
            Order::Cancel { grace } => {
                if cancelled.swap(true, Ordering::Relaxed) {
                    continue;
                }
                if on_terminal {
                    // A shell that is typed to ignores TERM, and knows that its user has gone by this.
                    family.signal_group(HUP);
                }
                let family = family.clone();
                // What the program has started outlives it, and is killed also when its exit has long been told.
                tokio::spawn(async move { family.terminate(grace).await });
            }
        }
    }
    std::future::pending().await
}
