use super::*;

const LIMITS: Limits = Limits { max_step_bytes: 256 << 10, max_total_bytes: 2 << 20 };

/// What comes from `from` on: the first offset, the bytes, and the gaps.
async fn read(mut follower: StreamFollower) -> (Option<u64>, Vec<u8>, Vec<(u64, u64)>) {
    let (mut first, mut bytes, mut gaps, mut next) = (None, Vec::new(), Vec::new(), None);
    while let Some(piece) = follower.next().await {
        match piece {
            Ok(piece) => {
                first.get_or_insert(piece.offset);
                assert!(next.is_none_or(|next| next == piece.offset), "pieces join");
                next = Some(piece.offset + piece.bytes.len() as u64);
                bytes.extend_from_slice(&piece.bytes);
            }
            Err(StreamExpired::Expired { from, to }) => {
                assert!(from < to && next.is_none_or(|next| next == from));
                gaps.push((from, to));
                next = Some(to);
            }
            Err(StreamExpired::Log(error)) => panic!("{error}"),
        }
    }
    (first, bytes, gaps)
}

#[tokio::test]
async fn a_stream_is_read_from_any_of_its_offsets() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mask = Mask::new(&["hunter2"]).unwrap();
    let store = LogStore::create(&path, LIMITS, mask.clone()).unwrap();
    let raw: String = (0..3000).map(|line| format!("{line}: the password is hunter2\n")).collect();
    let live: Vec<_> = [0, 17, 40_000]
        .map(StreamOffset::Stored)
        .map(|from| (from, tokio::spawn(read(store.follow(0).of_stream(1, Stream::Stdout, from)))))
        .into();
    let mut appenders = [(0, Stream::Stdout), (1, Stream::Stderr), (1, Stream::Stdout), (2, Stream::Stdout)]
        .map(|(step, stream)| store.appender(step, stream));
    for part in raw.as_bytes().chunks(1234) {
        for appender in &mut appenders {
            appender.append(appender.next(), part).unwrap();
        }
    }
    for mut appender in appenders {
        appender.finish().unwrap();
    }
    store.seal().unwrap();

    let stored = mask.apply(raw.as_bytes());
    for (from, live) in live {
        let StreamOffset::Stored(offset) = from else { panic!() };
        let (first, bytes, gaps) = live.await.unwrap();
        assert_eq!((first, gaps), (Some(offset), vec![]));
        assert!(bytes == stored[usize::try_from(offset).unwrap()..], "live from {offset}");
    }
    let replay = |from| Follower::replay(&path, 7).unwrap().of_stream(1, Stream::Stdout, from);
    for offset in (0..stored.len()).step_by(611).chain([stored.len() - 1]) {
        let (first, bytes, gaps) = read(replay(StreamOffset::Stored(offset as u64))).await;
        assert_eq!((first, gaps), (Some(offset as u64), vec![]));
        assert!(bytes == stored[offset..], "from stored {offset}");
    }
    for offset in (0..raw.len()).step_by(611).chain([raw.len() - 1]) {
        let (first, bytes, gaps) = read(replay(StreamOffset::Raw(offset as u64))).await;
        assert_eq!(gaps, []);
        assert!(bytes == stored[usize::try_from(first.unwrap()).unwrap()..]);
        let wanted = mask.apply(&raw.as_bytes()[offset..]);
        // The cut may lie within a secret, whose rest stands for nothing.
        assert!(bytes.ends_with(&wanted[wanted.len().min(20)..]), "from raw {offset}");
        assert!(bytes.len() <= wanted.len() + 1234 + 7, "no more than a record before raw {offset}");
    }
    for beyond in [StreamOffset::Stored(stored.len() as u64), StreamOffset::Raw(u64::MAX)] {
        assert_eq!(read(replay(beyond)).await, (None, vec![], vec![]));
    }
}

#[tokio::test]
async fn a_cut_is_told_in_bytes_of_the_stream() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let store = LogStore::create(&path, LIMITS, Mask::none()).unwrap();
    let mut stderr = store.appender(0, Stream::Stderr);
    let mut stdout = store.appender(0, Stream::Stdout);
    let line = |number: u64| format!("{number:0>99}\n");
    for number in 0..20_000 {
        stdout.append(stdout.next(), line(number).as_bytes()).unwrap();
        if number % 10 == 0 {
            stderr.append(stderr.next(), b"warning\n").unwrap();
        }
    }
    store.seal().unwrap();
    let whole: String = (0..20_000).map(line).collect();

    let follow = |from| store.follow(0).of_stream(0, Stream::Stdout, from);
    let (first, bytes, gaps) = read(follow(StreamOffset::Stored(0))).await;
    let [(gap, end)] = gaps[..] else { panic!("one cut: {gaps:?}") };
    let (gap_index, end_index) = (usize::try_from(gap).unwrap(), usize::try_from(end).unwrap());
    assert_eq!(first, Some(0));
    assert!(bytes == [&whole.as_bytes()[..gap_index], &whole.as_bytes()[end_index..]].concat());

    // From within the cut on, in bytes as stored and at the source, which are the same here.
    for (from, expected) in
        [(StreamOffset::Stored(gap + 5), (gap + 5, end)), (StreamOffset::Raw(gap + 5), (gap, end))]
    {
        let (first, bytes, gaps) = read(follow(from)).await;
        assert_eq!((first, gaps), (Some(end), vec![expected]));
        assert!(bytes == whole.as_bytes()[end_index..]);
    }
    let (first, bytes, gaps) = read(follow(StreamOffset::Stored(end + 7))).await;
    assert_eq!((first, gaps), (Some(end + 7), vec![]));
    assert!(bytes == whole.as_bytes()[end_index + 7..]);
}
