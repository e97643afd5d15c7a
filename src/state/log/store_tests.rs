use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use proptest::test_runner::{Config, TestRunner};

use super::*;

const LIMITS: Limits = Limits { max_step_bytes: 256 << 10, max_total_bytes: 2 << 20 };

fn mask(secrets: &[&str]) -> Mask {
    Mask::new(secrets).unwrap()
}

fn temporary(limits: Limits) -> (tempfile::TempDir, LogStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = LogStore::create(&directory.path().join("log"), limits, Mask::none()).unwrap();
    (directory, store)
}

async fn read_all(mut follower: Follower) -> Vec<Record> {
    let mut records = Vec::new();
    while let Some(record) = follower.next().await {
        records.push(record.unwrap());
    }
    records
}

fn output(records: &[Record], of: Stream) -> Vec<u8> {
    let bytes = records.iter().filter_map(|record| match &record.payload {
        Payload::Data { stream, bytes } if *stream == of => Some(bytes.to_vec()),
        _ => None,
    });
    bytes.collect::<Vec<_>>().concat()
}

fn control(content: &str) -> Control {
    Control {
        step_status: StepStatus::Start,
        step_kind: "user".into(),
        step_command: "make".into(),
        content: content.into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_from_anywhere_see_the_same_bytes() {
    let (_directory, store) = temporary(Limits::of_step(64 << 20));
    let chunk = proptest::collection::vec(proptest::num::u8::ANY, 0..9000);
    let append = (chunk, proptest::bool::ANY, 0..3_i32);
    let mut runner = TestRunner::new(Config::default());
    let appends: Vec<_> = (0..200)
        .map(|_| proptest::strategy::Strategy::new_tree(&append, &mut runner).unwrap())
        .map(|tree| proptest::strategy::ValueTree::current(&tree))
        .collect();

    let early: Vec<_> = [0, 1, 57, 140].map(|from| (from, tokio::spawn(read_all(store.follow(from))))).into();
    let writer = store.clone();
    let appends = tokio::task::spawn_blocking(move || {
        let mut sources = std::collections::HashMap::new();
        for (bytes, error, step) in &appends {
            let stream = if *error { Stream::Stderr } else { Stream::Stdout };
            let appender = sources.entry((*step, stream)).or_insert_with(|| writer.appender(*step, stream));
            let acknowledged = appender.append(appender.next(), bytes).unwrap();
            assert_eq!(acknowledged.raw, appender.next(), "nothing to mask, so all is acknowledged");
        }
        writer.seal().unwrap();
        appends
    });
    let appends = appends.await.unwrap();
    let all = read_all(store.follow(0)).await;
    for stream in [Stream::Stdout, Stream::Stderr] {
        let sent = appends.iter().filter(|(_, error, _)| *error == (stream == Stream::Stderr));
        let sent: Vec<u8> = sent.flat_map(|(bytes, ..)| bytes.clone()).collect();
        assert!(output(&all, stream) == sent, "{stream:?} came back as it was sent");
    }
    for (from, follower) in early {
        assert!(
            follower.await.unwrap() == all[usize::try_from(from).unwrap()..],
            "a follower from {from} on"
        );
    }
}

#[tokio::test]
async fn a_secret_is_masked_across_appends_and_only_what_is_stored_is_acknowledged() {
    let store = LogStore::anonymous(&std::env::temp_dir(), LIMITS, mask(&["hunter2"])).unwrap();
    let mut stdout = store.appender(0, Stream::Stdout);
    assert_eq!(stdout.append(0, b"pass: hun").unwrap(), Acknowledged { raw: 6, stored: 6 });
    assert_eq!(stdout.append(9, b"ter").unwrap(), Acknowledged { raw: 6, stored: 6 });
    // The agent sends again from what was acknowledged, and goes on.
    assert_eq!(stdout.append(6, b"hunter2\nhu").unwrap(), Acknowledged { raw: 14, stored: 10 });
    assert_eq!(stdout.finish().unwrap(), Acknowledged { raw: 16, stored: 12 });
    assert!(matches!(stdout.append(20, b"x"), Err(LogError::Gap { expected: 16, got: 20, .. })));
    store.control(0, &control("used hunter2")).unwrap();
    store.seal().unwrap();
    assert!(matches!(store.control(0, &control("late")), Err(LogError::Sealed)));

    let records = read_all(store.follow(0)).await;
    assert_eq!(output(&records, Stream::Stdout), b"pass: ***\nhu");
    assert_eq!(records.last().unwrap().payload, Payload::Control(control("used ***")));
}

#[tokio::test]
async fn beyond_the_cap_the_first_and_last_parts_stay() {
    let (directory, store) = temporary(LIMITS);
    let mut overtaken = store.follow(0);
    let mut stdout = store.appender(0, Stream::Stdout);
    stdout.append(0, b"first\n").unwrap();
    assert_eq!(overtaken.next().await.unwrap().unwrap().sequence, 0);
    let line = |number: u64| format!("{number:0>1023}\n");
    for number in 0..2000 {
        stdout.append(stdout.next(), line(number).as_bytes()).unwrap();
    }
    store.seal().unwrap();

    for mut follower in
        [overtaken, store.follow(1), Follower::replay(&directory.path().join("log"), 1).unwrap()]
    {
        let (mut kept, mut cuts) = (0, Vec::new());
        let mut expected = 0;
        while let Some(item) = follower.next().await {
            match item {
                Ok(Record { payload: Payload::Data { bytes, .. }, sequence, .. }) => {
                    assert_eq!(bytes, line(expected).as_bytes());
                    assert_eq!(sequence, expected + 1);
                    kept += bytes.len() as u64;
                    expected += 1;
                }
                Err(FollowError::Expired(range)) => {
                    assert_eq!((range.from, range.bytes), (expected + 1, (range.to - range.from) * 1024));
                    expected = range.to - 1;
                    cuts.push(range);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((expected, cuts.len()), (2000, 1), "one cut, and the end is there");
        let half = LIMITS.max_step_bytes / 2;
        assert!(cuts[0].from * 1024 >= half * 9 / 10, "the first half is kept: {cuts:?}");
        assert!(kept >= half * 3 / 2 && kept <= LIMITS.max_step_bytes, "{kept}");
    }
    let size = fs::metadata(directory.path().join("log")).unwrap().len();
    assert!(size <= LIMITS.max_step_bytes + 2 * (16 << 10), "slots serve again: {size}");
}

#[tokio::test]
async fn a_follower_overtaken_amid_a_segment_gets_one_range_and_goes_on() {
    let (_directory, store) = temporary(LIMITS);
    let mut stdout = store.appender(0, Stream::Stdout);
    for _ in 0..200 {
        stdout.append(stdout.next(), &[b'x'; 1024]).unwrap();
    }
    let mut follower = store.follow(150);
    let first = follower.next().await.unwrap().unwrap();
    assert_eq!(first.sequence, 150);
    for _ in 0..2000 {
        stdout.append(stdout.next(), &[b'y'; 1024]).unwrap();
    }
    store.seal().unwrap();
    let (mut position, mut bytes, mut gaps) = (151, 0, 0);
    while let Some(item) = follower.next().await {
        match item {
            Ok(record) => {
                assert_eq!(record.sequence, position);
                bytes += record.output_bytes();
                position += 1;
            }
            Err(FollowError::Expired(range)) => {
                assert_eq!(range.from, position);
                bytes += range.bytes;
                position = range.to;
                gaps += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((position, bytes, gaps), (2200, 2049 * 1024, 1), "read and lost make up the whole");
}

#[tokio::test]
async fn the_workflow_as_a_whole_is_bounded() {
    let (directory, store) = temporary(LIMITS);
    for step in 0..40 {
        let mut stdout = store.appender(step, Stream::Stdout);
        for _ in 0..200 {
            stdout.append(stdout.next(), &[b'x'; 1024]).unwrap();
        }
    }
    store.seal().unwrap();
    let size = fs::metadata(directory.path().join("log")).unwrap().len();
    assert!(size <= LIMITS.max_total_bytes * 9 / 8, "{size}");
    let mut follower = store.follow(0);
    let (mut steps, mut cut, mut last) = (std::collections::BTreeSet::new(), 0, None);
    while let Some(item) = follower.next().await {
        match item {
            Ok(record) => {
                steps.insert(record.step);
                last = Some(record.sequence);
            }
            Err(FollowError::Expired(range)) => cut += range.bytes,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(last, Some(40 * 200 - 1), "the newest is there");
    assert!(steps.contains(&0) && steps.contains(&39) && !steps.contains(&20), "{steps:?}");
    assert!(cut >= 40 * 200 * 1024 - LIMITS.max_total_bytes, "{cut} bytes are told to be cut");
}

#[tokio::test]
async fn a_log_is_taken_up_where_it_stopped_and_a_torn_tail_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let store = LogStore::create(&path, LIMITS, mask(&["hunter2"])).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    store.control(0, &control("build")).unwrap();
    let mut stdout = store.appender(0, Stream::Stdout);
    stdout.append(0, b"one\n").unwrap();
    let whole = fs::metadata(&path).unwrap().len();
    stdout.append(4, b"two\nhun").unwrap();
    drop((stdout, store));

    let text = fs::read(&path).unwrap();
    for cut in 1..=text.len() as u64 - whole {
        // Cut short, as by a power cut; and with zeroes behind, as in the midst of a file.
        let torn = directory.path().join("torn");
        fs::write(&torn, &text).unwrap();
        let file = OpenOptions::new().write(true).open(&torn).unwrap();
        file.set_len(text.len() as u64 - cut).unwrap();
        if cut % 2 == 0 {
            file.set_len(text.len() as u64 + 100).unwrap();
        }
        let store = LogStore::open(&torn, LIMITS, mask(&["hunter2"])).unwrap();
        let mut stdout = store.appender(0, Stream::Stdout);
        let from = usize::try_from(store.acknowledged(0, Stream::Stdout).raw).unwrap();
        assert_eq!(from, 4, "the second append is torn");
        stdout.append(4, &b"two\nhunter2\n"[from - 4..]).unwrap();
        store.seal().unwrap();
        drop(store);
        let records = read_all(Follower::replay(&torn, 0).unwrap()).await;
        assert_eq!(output(&records, Stream::Stdout), b"one\ntwo\n***\n");
        assert_eq!(records.iter().map(|record| record.sequence).collect::<Vec<_>>(), [0, 1, 2]);
    }

    let store = LogStore::open(&path, LIMITS, mask(&["hunter2"])).unwrap();
    assert_eq!(store.acknowledged(0, Stream::Stdout), Acknowledged { raw: 8, stored: 8 });
    fs::write(directory.path().join("other"), b"not a log").unwrap();
    let other = LogStore::open(&directory.path().join("other"), LIMITS, Mask::none());
    assert!(matches!(other, Err(LogError::NotALog { .. })));
}

#[tokio::test]
async fn offsets_of_a_stream_outlive_the_records_that_said_them() {
    let (directory, store) = temporary(LIMITS);
    let path = directory.path().join("log");
    let (mut stdout, mut stderr) = (store.appender(0, Stream::Stdout), store.appender(0, Stream::Stderr));
    for number in 0..3000 {
        stdout.append(stdout.next(), &[b'x'; 1024]).unwrap();
        if number == 1000 {
            stderr.append(0, b"a warning").unwrap();
        }
    }
    drop((stdout, stderr, store));
    let store = LogStore::open(&path, LIMITS, Mask::none()).unwrap();
    assert_eq!(store.acknowledged(0, Stream::Stderr), Acknowledged { raw: 9, stored: 9 });
    assert_eq!(store.acknowledged(0, Stream::Stdout).raw, 3000 * 1024);
    assert_eq!(store.next_sequence(), 3001);
}

#[tokio::test]
async fn a_damaged_record_ends_the_follower_with_an_error() {
    let (directory, store) = temporary(LIMITS);
    let mut stdout = store.appender(0, Stream::Stdout);
    stdout.append(0, b"one").unwrap();
    let file = OpenOptions::new().write(true).open(directory.path().join("log")).unwrap();
    file.write_all_at(&[0xff; 8], 4096 + 64).unwrap();
    let mut follower = store.follow(0);
    let error = follower.next().await.unwrap().unwrap_err();
    assert!(matches!(error, FollowError::Log(LogError::Io { .. })), "{error}");
    assert!(follower.next().await.is_none());
}

#[tokio::test]
async fn followers_end_with_the_last_writer() {
    let (_directory, store) = temporary(LIMITS);
    let follower = tokio::spawn(read_all(store.follow(0)));
    store.appender(0, Stream::Stdout).append(0, b"last words").unwrap();
    drop(store);
    assert_eq!(output(&follower.await.unwrap(), Stream::Stdout), b"last words");
}

#[test]
fn a_log_without_a_name_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = LogStore::anonymous(directory.path(), LIMITS, Mask::none()).unwrap();
    store.appender(0, Stream::Stdout).append(0, b"secret").unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_full_disk_is_named_and_the_append_can_be_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let Some(_mounted) = Tmpfs::mount(directory.path()) else {
        writeln!(std::io::stderr(), "skipped: mounting a small tmpfs needs root").unwrap();
        return;
    };
    let path = directory.path().join("log");
    let store = LogStore::create(&path, Limits::of_step(64 << 20), Mask::none()).unwrap();
    fs::write(directory.path().join("ballast"), vec![0; 256 << 10]).unwrap();
    let mut stdout = store.appender(0, Stream::Stdout);
    let chunk = vec![b'x'; 32 << 10];
    let error = (0..100).find_map(|_| stdout.append(stdout.next(), &chunk).err()).unwrap();
    assert!(matches!(&error, LogError::DiskFull { .. }), "{error:?}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    let stored = store.acknowledged(0, Stream::Stdout).raw;
    assert!(stored > 0 && stored < stdout.next());

    fs::remove_file(directory.path().join("ballast")).unwrap();
    let acknowledged = stdout.append(stored, &chunk).unwrap();
    assert_eq!(acknowledged.raw, stdout.next(), "what was pending is stored after all");
}

struct Tmpfs<'a>(&'a Path);

impl<'a> Tmpfs<'a> {
    fn mount(directory: &'a Path) -> Option<Self> {
        use rustix::mount::{MountFlags, mount};
        mount("tmpfs", directory, "tmpfs", MountFlags::empty(), Some(c"size=1m")).ok()?;
        Some(Self(directory))
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

async fn lines(store: &LogStore) -> Vec<LogLine> {
    let (mut splitter, mut lines) = (LineSplitter::default(), Vec::new());
    for record in read_all(store.follow(0)).await {
        splitter.push(&record, |line| lines.push(line));
    }
    splitter.finish(|line| lines.push(line));
    lines
}

#[tokio::test]
async fn lines_are_whole_whatever_the_records_are() {
    let (_directory, store) = temporary(LIMITS);
    store.control(0, &control("build")).unwrap();
    let (mut stdout, mut stderr) = (store.appender(0, Stream::Stdout), store.appender(0, Stream::Stderr));
    stdout.append(0, "grü".as_bytes().split_last().unwrap().1).unwrap();
    stderr.append(0, b"bad \xff byte\r\n").unwrap();
    stdout.append(3, &"ü".as_bytes()[1..]).unwrap();
    stdout.append(4, b"n\n\nno end").unwrap();
    store.control(0, &Control { step_status: StepStatus::End, ..control("exited 0") }).unwrap();
    let long = "é".repeat(MAX_LINE_BYTES / 2 + 10) + "\n";
    for chunk in long.as_bytes().chunks(1001) {
        stderr.append(stderr.next(), chunk).unwrap();
    }
    store.seal().unwrap();

    let lines = lines(&store).await;
    let contents: Vec<_> =
        lines.iter().map(|line| line.content.chars().take(8).collect::<String>()).collect();
    let expected = ["build", "bad \u{fffd} by", "grün", "", "no end", "exited 0", "éééééééé", "éééééééé"];
    assert_eq!(contents, expected);
    assert_eq!(lines.iter().filter(|line| line.continued).count(), 2, "the line without end, the long one");
    assert_eq!(lines[6].content.clone() + &lines[7].content + "\n", long);
    assert!(lines.iter().all(|line| line.content_base64.is_some() == line.content.contains('\u{fffd}')));
    for line in &lines {
        let json = line.to_json_line();
        assert!(json.ends_with('\n') && json.trim_end().lines().count() == 1);
        assert_eq!(&serde_json::from_str::<LogLine>(&json).unwrap(), line);
    }
}

#[test]
fn json_has_upstreams_names() {
    let time = "2026-01-02T03:04:05.678901Z".parse().unwrap();
    let (mut splitter, mut lines) = (LineSplitter::default(), String::new());
    let record = |sequence, payload| Record { sequence, step: -1, time, offset: 0, raw_offset: 12, payload };
    let bytes = bytes::Bytes::from_static(b"text\n\xc3(\n");
    for payload in [Payload::Control(control("Clone")), Payload::Data { stream: Stream::Stderr, bytes }] {
        splitter.push(&record(7, payload), |line| lines += &line.to_json_line());
    }
    lines += &LogLine::expired(&ExpiredRange { from: 8, to: 20, bytes: 4096, step: 2 }, time).to_json_line();
    insta::assert_snapshot!(lines, @r#"
    {"kind":"control","content":"Clone","time":"2026-01-02T03:04:05.678901Z","step_id":-1,"step_status":"start","step_kind":"user","step_command":"make","record":7}
    {"kind":"data","content":"text","time":"2026-01-02T03:04:05.678901Z","step_id":-1,"stream":"stderr","record":7,"raw_offset":12}
    {"kind":"data","content":"�(","content_base64":"wyg=","time":"2026-01-02T03:04:05.678901Z","step_id":-1,"stream":"stderr","record":7,"raw_offset":12}
    {"kind":"control","content":"4096 bytes of output are cut here","time":"2026-01-02T03:04:05.678901Z","step_id":2,"record":8}
    "#);
}

#[test]
fn what_is_stored_is_counted_for_all_logs_and_marks_are_not() {
    let (_directory, store) = temporary(LIMITS);
    let before = bytes_stored();
    store.control(0, &control("not output")).unwrap();
    let mut appender = store.appender(0, Stream::Stdout);
    appender.append(0, &[b'x'; 10_000]).unwrap();
    appender.finish().unwrap();
    // Other tests write logs of their own meanwhile.
    assert!(bytes_stored() >= before + 10_000);
}
