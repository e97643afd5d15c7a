//! Logs: from any record on, as records or lines, live and after the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wire::log_event::Event;

use super::*;
use crate::runtime::Stream;

async fn following(client: &mut Client, from_record: u64, follow: bool) -> tonic::Streaming<wire::LogEvent> {
    let request = wire::LogsRequest { workflow: key("w"), from_record, follow, lines: false, stream: None };
    client.logs(request).await.unwrap().into_inner()
}

async fn next(events: &mut tonic::Streaming<wire::LogEvent>) -> Option<Event> {
    timeout(SOON, events.message()).await.unwrap().unwrap().map(|event| event.event.unwrap())
}

/// All there is.
async fn all(client: &mut Client, from_record: u64, follow: bool) -> Vec<wire::LogRecord> {
    let (mut events, mut records) = (following(client, from_record, follow).await, Vec::new());
    while let Some(event) = next(&mut events).await {
        let Event::Record(record) = event else { panic!("{event:?}") };
        records.push(record);
    }
    records
}

#[tokio::test]
async fn a_follower_begins_at_any_record_and_ends_with_the_workflow() {
    let talking = ScriptedExec::exits(0).writing(Stream::Stdout, b"\xff\0one".to_vec());
    let world = world(ScriptedSetup::Ready, [talking, ScriptedExec::exits(0)]);
    let mut client = client(&world).await;
    init(&mut client, "w").await;
    let mut live = following(&mut client, 0, true).await;
    set_up(&mut client, "w").await.unwrap();
    step(&mut client, "w", 0).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let Some(Event::Record(record)) = next(&mut live).await else { panic!("{seen:?}") };
        seen.push(record);
    }
    assert!(seen.iter().enumerate().all(|(index, record)| record.sequence == index as u64), "{seen:?}");
    let Some(wire::log_record::Payload::Data(data)) = &seen[3].payload else { panic!("{seen:?}") };
    assert_eq!((&data.data[..], data.stream(), data.offset), (&b"\xff\0one"[..], wire::Stream::Stdout, 0));
    assert_eq!(all(&mut client, 0, false).await, seen, "what there is now");
    assert_eq!(all(&mut client, 3, false).await, seen[3..]);
    assert_eq!(all(&mut client, 99, false).await, []);
    let mut late = following(&mut client, 4, true).await;
    assert_eq!(next(&mut late).await, Some(Event::Record(seen[4].clone())));
    step(&mut client, "w", 1).await.unwrap();
    destroy(&mut client, "w").await;
    let (mut rest, mut late_rest) = (Vec::new(), Vec::new());
    while let Some(event) = next(&mut live).await {
        rest.push(event);
    }
    while let Some(event) = next(&mut late).await {
        late_rest.push(event);
    }
    assert_eq!((rest.len(), &rest), (2, &late_rest));
}

#[tokio::test]
async fn one_who_does_not_read_holds_nothing_up_and_is_told_what_is_gone() {
    let taken = Arc::new(AtomicU64::new(0));
    let world = world(ScriptedSetup::Ready, [ScriptedExec::floods(Arc::clone(&taken))]);
    let mut client = client(&world).await;
    init(&mut client, "w").await;
    let mut lazy = following(&mut client, 0, true).await;
    set_up(&mut client, "w").await.unwrap();
    let mut stepping = client.clone();
    let stepping = tokio::spawn(async move { step(&mut stepping, "w", 0).await });
    while taken.load(Ordering::Relaxed) < 20 << 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cancel(&mut client, "w").await;
    assert_eq!(stepping.await.unwrap().unwrap(), Outcome::Cancelled);
    destroy(&mut client, "w").await;
    let (mut expected, mut gone) = (None, 0);
    while let Some(event) = next(&mut lazy).await {
        let (from, to) = match &event {
            Event::Record(record) => (record.sequence, record.sequence + 1),
            Event::Expired(expired) => {
                gone += expired.bytes;
                (expired.from, expired.to)
            }
            other => panic!("records were asked for: {other:?}"),
        };
        assert_eq!(from, expected.unwrap_or(from), "nothing is left out in silence");
        expected = Some(to);
    }
    assert!(gone > 10 << 20, "{gone} bytes were given up");
}

#[tokio::test]
async fn lines_are_whole_however_they_were_written() {
    let long = "x".repeat(100_000);
    let talking = ScriptedExec::exits(0)
        .writing(Stream::Stdout, "a\nb")
        .writing(Stream::Stdout, "c\n")
        .writing(Stream::Stdout, "\n".repeat(5000))
        .writing(Stream::Stdout, format!("{long}\nend"));
    let world = world(ScriptedSetup::Ready, [talking]);
    let mut client = client(&world).await;
    init(&mut client, "w").await;
    set_up(&mut client, "w").await.unwrap();
    step(&mut client, "w", 0).await.unwrap();
    let told = lines(&mut client, "w", 0, false).await;
    let data: Vec<_> = told.iter().filter_map(|line| line.strip_prefix("0 data ")).collect();
    assert_eq!((data[0], data[1]), ("a", "bc"));
    assert!(data[2..5002].iter().all(|line| line.is_empty()));
    assert_eq!(data[5002..].concat(), format!("{long}end"));
    assert_eq!(data.len(), 5005, "a line of 100,000 bytes comes in two pieces");
}

/// Pieces of one stream, and what is between them.
async fn of_stream(
    client: &mut Client,
    of: wire::Stream,
    from: wire::stream_place::From,
) -> Result<Vec<(u64, Vec<u8>)>, tonic::Status> {
    let stream = Some(wire::StreamPlace { step: 0, stream: of.into(), from: Some(from) });
    let request = wire::LogsRequest { workflow: key("w"), stream, ..Default::default() };
    let (mut events, mut pieces) = (client.logs(request).await?.into_inner(), Vec::new());
    while let Some(event) = next(&mut events).await {
        let Event::Piece(piece) = event else { panic!("{event:?}") };
        pieces.push((piece.offset, piece.data.to_vec()));
    }
    Ok(pieces)
}

#[tokio::test]
async fn one_stream_is_read_from_any_byte_on() {
    use wire::stream_place::From;
    let talking = ScriptedExec::exits(0)
        .writing(Stream::Stdout, b"one ".to_vec())
        .writing(Stream::Stderr, b"aside".to_vec())
        .writing(Stream::Stdout, b"two\xff".to_vec());
    let world = world(ScriptedSetup::Ready, [talking]);
    let mut client = client(&world).await;
    init(&mut client, "w").await;
    set_up(&mut client, "w").await.unwrap();
    step(&mut client, "w", 0).await.unwrap();
    let (stdout, stderr) = (wire::Stream::Stdout, wire::Stream::Stderr);
    let joined = |pieces: Vec<(u64, Vec<u8>)>| {
        let first = pieces.first().map(|(offset, _)| *offset);
        (first, pieces.into_iter().flat_map(|(_, data)| data).collect::<Vec<_>>())
    };
    for (offset, expected) in [(0, &b"one two\xff"[..]), (2, b"e two\xff"), (7, b"\xff")] {
        let read = joined(of_stream(&mut client, stdout, From::Offset(offset)).await.unwrap());
        assert_eq!(read, (Some(offset), expected.to_vec()));
    }
    let read = joined(of_stream(&mut client, stdout, From::RawOffset(5)).await.unwrap());
    assert!(
        read.0 <= Some(5) && b"one two\xff".ends_with(&read.1) && read.1.ends_with(b"wo\xff"),
        "{read:?}"
    );
    assert_eq!(
        joined(of_stream(&mut client, stderr, From::Offset(1)).await.unwrap()),
        (Some(1), b"side".to_vec())
    );
    assert_eq!(of_stream(&mut client, stdout, From::Offset(8)).await.unwrap(), []);
    let unspecified = of_stream(&mut client, wire::Stream::Unspecified, From::Offset(0)).await.unwrap_err();
    assert_eq!(unspecified.code(), tonic::Code::InvalidArgument);
    let stream = Some(wire::StreamPlace { step: 0, stream: stdout.into(), from: Some(From::Offset(0)) });
    let both = wire::LogsRequest { workflow: key("w"), stream, lines: true, ..Default::default() };
    assert_eq!(client.logs(both).await.unwrap_err().code(), tonic::Code::InvalidArgument);
}
