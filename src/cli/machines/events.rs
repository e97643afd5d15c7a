//! `creel events`: what happens to machines.

use std::io::{self, Write as _};
use std::pin::Pin;

use futures_util::stream::{Stream, StreamExt as _, select_all, unfold};
use serde_json::{Value, json};

use super::connect::{Everyone, api_failure};
use super::ps::rfc3339;
use crate::api::{ApiError, EventStream};
use crate::cli::args::EventsArgs;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::exit::Exit;
use crate::machines::{Followed, Happening, MachineEvent};
use crate::text::one_line;

/// Of a text that somebody else wrote.
const MAX_TEXT_CHARS: usize = 300;

type Told = Result<Followed, ApiError>;

pub(in crate::cli) async fn events(context: &Context, arguments: EventsArgs) -> Result<Exit, Failure> {
    let everyone = Everyone::reach(context, &arguments.socket).await?;
    let follow = arguments.follow;
    let opened =
        everyone.ask_those_that_answer(|client| async move { client.events(follow, None).await }).await?;
    let streams = opened.into_iter().map(|(_, stream)| told(stream));
    let print = |followed: &Followed| print(followed, arguments.json);
    if follow {
        let mut all = select_all(streams);
        while let Some(followed) = all.next().await {
            match followed {
                Ok(followed) if print(&followed)? => {}
                Ok(_) => return Ok(Exit::Success),
                Err(error) => eprintln!("creel: note: {}", api_failure(&error)),
            }
        }
        return Ok(Exit::Success);
    }
    let mut kept = Vec::new();
    for mut stream in streams {
        while let Some(followed) = stream.next().await {
            kept.push(followed.map_err(|error| api_failure(&error))?);
        }
    }
    // Nothing is missed where it is begun with the oldest that is kept.
    kept.sort_by_key(|followed| match followed {
        Followed::Event(event) => Some(event.at),
        Followed::Missed(_) => None,
    });
    for followed in kept {
        if !print(&followed)? {
            break;
        }
    }
    Ok(Exit::Success)
}

/// Ends after the first error.
fn told(stream: EventStream) -> Pin<Box<dyn Stream<Item = Told> + Send>> {
    Box::pin(unfold(Some(stream), |stream| async {
        let mut stream = stream?;
        match stream.next().await {
            Ok(followed) => Some((Ok(followed?), Some(stream))),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

/// Whether somebody still reads.
fn print(followed: &Followed, as_json: bool) -> Result<bool, Failure> {
    let line = match (followed, as_json) {
        (Followed::Event(event), true) => event_json(event).to_string(),
        (Followed::Missed(count), true) => json!({ "event": "missed", "count": count }).to_string(),
        (Followed::Event(event), false) => text(event),
        (Followed::Missed(count), false) => format!("({count} events were missed)"),
    };
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::internal(format!("failed to write: {error}"))),
    }
}

fn text(event: &MachineEvent) -> String {
    let what = match &event.what {
        Happening::Created { image } => format!("created       image {image}, uid {}", event.creator_uid),
        Happening::Ready => "ready".to_owned(),
        Happening::ExecStarted { exec_id } => format!("exec-started  {exec_id}"),
        Happening::ExecEnded { exec_id, verdict } => format!("exec-ended    {exec_id}: {verdict}"),
        Happening::Ending => "ending".to_owned(),
        Happening::Ended { verdict } => format!("ended         {verdict}"),
        Happening::SetupFailed { why } => format!("setup-failed  {why}"),
    };
    let at = jiff::Timestamp::try_from(event.at).unwrap_or_default();
    format!("{at:.3}  {}  {}", event.machine, one_line(&what, MAX_TEXT_CHARS))
}

fn event_json(event: &MachineEvent) -> Value {
    let (name, details) = match &event.what {
        Happening::Created { image } => ("created", json!({ "image": image })),
        Happening::Ready => ("ready", json!({})),
        Happening::ExecStarted { exec_id } => ("exec_started", json!({ "exec_id": exec_id })),
        Happening::ExecEnded { exec_id, verdict } => {
            ("exec_ended", json!({ "exec_id": exec_id, "verdict": verdict, "ended_as": verdict.to_string() }))
        }
        Happening::Ending => ("ending", json!({})),
        Happening::Ended { verdict } => {
            ("ended", json!({ "verdict": verdict, "ended_as": verdict.to_string() }))
        }
        Happening::SetupFailed { why } => ("setup_failed", json!({ "why": why })),
    };
    let mut value = json!({
        "sequence": event.sequence,
        "at": rfc3339(event.at),
        "machine": event.machine.as_str(),
        "workflow_id": event.workflow_id,
        "creator_uid": event.creator_uid,
        "event": name,
    });
    if let (Value::Object(value), Value::Object(details)) = (&mut value, details) {
        value.extend(details);
    }
    value
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::runtime::{MachineId, Outcome, Verdict};

    #[test]
    fn each_event_is_a_line_and_an_object() {
        let verdict = Verdict::of(Outcome::Exited { code: 3 });
        let happenings = [
            Happening::Created { image: "tiny".into() },
            Happening::Ready,
            Happening::ExecStarted { exec_id: "a\nb".into() },
            Happening::ExecEnded { exec_id: "step-1".into(), verdict },
            Happening::Ending,
            Happening::Ended { verdict: Verdict::of(Outcome::Cancelled) },
            Happening::SetupFailed { why: "unknown image `x`".into() },
        ];
        let events: Vec<MachineEvent> = (1..)
            .zip(happenings)
            .map(|(sequence, what)| MachineEvent {
                sequence,
                at: SystemTime::UNIX_EPOCH + Duration::from_millis(1500 * sequence),
                machine: MachineId::parse("k3v9w0x2ma").unwrap(),
                workflow_id: "w".into(),
                creator_uid: 1000,
                what,
            })
            .collect();
        let lines: Vec<String> = events.iter().map(text).collect();
        insta::assert_snapshot!(lines.join("\n"), @"
        1970-01-01T00:00:01.500Z  k3v9w0x2ma  created       image tiny, uid 1000
        1970-01-01T00:00:03.000Z  k3v9w0x2ma  ready
        1970-01-01T00:00:04.500Z  k3v9w0x2ma  exec-started  a b
        1970-01-01T00:00:06.000Z  k3v9w0x2ma  exec-ended    step-1: exited with code 3
        1970-01-01T00:00:07.500Z  k3v9w0x2ma  ending
        1970-01-01T00:00:09.000Z  k3v9w0x2ma  ended         cancelled
        1970-01-01T00:00:10.500Z  k3v9w0x2ma  setup-failed  unknown image `x`
        ");
        insta::assert_snapshot!(event_json(&events[2]), @r#"{"at":"1970-01-01T00:00:04.5Z","creator_uid":1000,"event":"exec_started","exec_id":"a\nb","machine":"k3v9w0x2ma","sequence":3,"workflow_id":"w"}"#);
        assert_eq!(event_json(&events[3])["ended_as"], "exited with code 3");
    }
}
