//! Copies with a machine that is played here: its side is what the agent does, below a directory of the test's.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use creel_tree::{Destination, Source};
use tokio_util::sync::CancellationToken;

use super::call::Call;
use super::command::{Copied, judge, prepare};
use super::place::Route;
use super::told::Told;
use crate::api::ApiError;
use crate::cli::failure::Failure;
use crate::exit::Exit;
use crate::runtime::{ExecStreams, InputEvent, Outcome, Stream, Verdict, Work};

/// How the machine behaves.
#[derive(Debug, Clone)]
enum Machine {
    Honest,
    /// Answers with these bytes and this code.
    Says(Vec<u8>, i32),
    /// Answers with these bytes and then with nothing.
    Stalls(Vec<u8>),
    /// Takes nothing of its input.
    Refuses(&'static str),
}

impl Call for Machine {
    async fn run(
        &self,
        work: Work,
        streams: ExecStreams,
        cancel: &CancellationToken,
    ) -> Result<Verdict, ApiError> {
        tokio::select! {
            verdict = self.work(work, streams) => Ok(verdict),
            () = cancel.cancelled() => Ok(Verdict::of(Outcome::Cancelled)),
        }
    }
}

impl Machine {
    async fn work(&self, work: Work, streams: ExecStreams) -> Verdict {
        let ExecStreams { input, output } = streams;
        let mut complaints = Vec::new();
        let (archive, code) = match (self, work) {
            (Self::Honest, Work::ReadFiles { path, .. }) => read(&path, &mut complaints),
            (Self::Honest, Work::WriteFiles { destination, directory, .. }) => {
                let mut input = input.unwrap();
                let mut archive = Vec::new();
                while let InputEvent::Bytes { offset, bytes } = input.next(u64::MAX).await {
                    archive.extend_from_slice(&bytes);
                    input.written(offset + bytes.len() as u64).unwrap();
                }
                let code = write(&archive, Path::new(&destination), directory, &mut complaints);
                (Vec::new(), code)
            }
            (Self::Says(bytes, code), _) => (bytes.clone(), *code),
            (Self::Stalls(bytes), _) => {
                let _ = output.send(Stream::Stdout, bytes).await;
                std::future::pending().await
            }
            (Self::Refuses(why), _) => {
                complaints.push((*why).to_owned());
                (Vec::new(), 2)
            }
            (_, work) => panic!("unexpected {work:?}"),
        };
        for complaint in complaints {
            let _ = output.send(Stream::Stderr, format!("{complaint}\n").as_bytes()).await;
        }
        for piece in archive.chunks(10_000) {
            let _ = output.send(Stream::Stdout, piece).await;
        }
        Verdict::of(Outcome::Exited { code })
    }
}

fn read(path: &str, complaints: &mut Vec<String>) -> (Vec<u8>, i32) {
    let mut archive = Vec::new();
    let mut tell = |complaint: creel_tree::PackComplaint| {
        complaints.push(complaint.to_string());
        Ok(())
    };
    match Source::open(Path::new(path), false) {
        Ok(source) => {
            let packed = creel_tree::pack(&source, &mut archive, &mut tell).unwrap();
            (archive, i32::from(packed.complaints > 0))
        }
        Err(error) => {
            complaints.push(error.to_string());
            (archive, 2)
        }
    }
}

fn write(archive: &[u8], destination: &Path, directory: bool, complaints: &mut Vec<String>) -> i32 {
    let into =
        if directory { Destination::directory(destination) } else { Destination::resolve(destination) };
    let written = into
        .map_err(|error| error.to_string())
        .and_then(|into| creel_tree::unpack(archive, into, &mut Err).map_err(|error| error.to_string()));
    written.map_or_else(
        |error| {
            complaints.push(error);
            2
        },
        |_| 0,
    )
}

const ID: &str = "k3v9w0x2ma";

struct Room(tempfile::TempDir);

impl Room {
    fn new() -> Self {
        let room = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(room.0.path().join("tree/sub")).unwrap();
        fs::write(room.0.path().join("tree/sub/file"), vec![b'x'; 300_000]).unwrap();
        symlink("sub", room.0.path().join("tree/link")).unwrap();
        room
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.0.path().display())
    }

    fn machines(&self, name: &str) -> String {
        format!("{ID}:{}", self.path(name))
    }

    fn has(&self, name: &str) -> bool {
        self.0.path().join(name).symlink_metadata().is_ok()
    }
}

struct Ended {
    exit: Result<Exit, Failure>,
    copied: Option<Copied>,
    complaints: u64,
}

async fn cp_with(
    machine: &Machine,
    source: &str,
    destination: &str,
    follow: bool,
    cancel: &CancellationToken,
) -> Ended {
    let told = Arc::new(Told::new(ID));
    let copied = async {
        let route = Route::parse(OsStr::new(source), OsStr::new(destination), follow)?;
        let (_, job) = prepare(route, None, follow, false)?;
        job.run(machine, &told, cancel).await
    };
    let copied = tokio::time::timeout(Duration::from_secs(20), copied).await.expect("it ends");
    told.end();
    let complaints = told.complaints();
    match copied {
        Ok((verdict, copied)) => Ended {
            exit: judge(&verdict, copied, &told, cancel, destination),
            copied: Some(copied),
            complaints,
        },
        Err(failure) => Ended { exit: Err(failure), copied: None, complaints },
    }
}

async fn cp(machine: &Machine, source: &str, destination: &str) -> Ended {
    cp_with(machine, source, destination, false, &CancellationToken::new()).await
}

fn failure(ended: Ended) -> (u8, String) {
    let failure = ended.exit.unwrap_err();
    (failure.exit.code(), failure.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_goes_there_and_back() {
    let room = Room::new();
    let sent = cp(&Machine::Honest, &room.path("tree"), &room.machines("there")).await;
    assert_eq!(sent.exit.unwrap(), Exit::Success);
    let tally = sent.copied.unwrap().tally.unwrap();
    assert_eq!((tally.files, tally.directories, tally.bytes), (2, 2, 300_000));
    let fetched = cp(&Machine::Honest, &room.machines("there"), &room.path("back")).await;
    assert_eq!(fetched.exit.unwrap(), Exit::Success);
    assert_eq!(fetched.copied.unwrap().tally.unwrap(), tally);
    assert_eq!(fs::read(room.path("back/sub/file")).unwrap(), vec![b'x'; 300_000]);
    assert_eq!(fs::read_link(room.path("back/link")).unwrap(), Path::new("sub"));
    // Into directories that there are, and only what is in one.
    cp(&Machine::Honest, &room.path("tree/."), &room.machines("back/sub")).await.exit.unwrap();
    cp(&Machine::Honest, &room.machines("tree"), &room.path("back/")).await.exit.unwrap();
    assert!(room.has("back/sub/sub/file") && room.has("back/tree/sub/file"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_followed_on_either_side_where_that_is_asked_for() {
    let room = Room::new();
    symlink("tree/sub/file", room.path("to-file")).unwrap();
    let cancel = CancellationToken::new();
    for (source, destination) in
        [(room.path("to-file"), room.machines("sent")), (room.machines("to-file"), room.path("fetched"))]
    {
        cp_with(&Machine::Honest, &source, &destination, true, &cancel).await.exit.unwrap();
        cp(&Machine::Honest, &source, &format!("{destination}-link")).await.exit.unwrap();
    }
    for name in ["sent", "fetched"] {
        assert!(fs::symlink_metadata(room.path(name)).unwrap().is_file(), "{name}");
        assert!(fs::symlink_metadata(room.path(&format!("{name}-link"))).unwrap().is_symlink(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_is_told_and_gives_code_1() {
    let room = Room::new();
    let _socket = std::os::unix::net::UnixListener::bind(room.path("tree/socket")).unwrap();
    for (source, destination) in
        [(room.path("tree"), room.machines("sent")), (room.machines("tree"), room.path("fetched"))]
    {
        let ended = cp(&Machine::Honest, &source, &destination).await;
        assert_eq!((ended.exit.unwrap(), ended.complaints), (Exit::Failed, 1), "{source}");
    }
    assert!(room.has("sent/sub/file") && room.has("fetched/sub/file"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said_by_whoever_knows_it() {
    let room = Room::new();
    // Here, before anybody is asked.
    let never = Machine::Says(Vec::new(), 0);
    let (code, text) = failure(cp(&never, &room.path("nothing"), &room.machines("x")).await);
    assert!(code == 2 && text.contains("nothing` does not exist"), "{text}");
    let (code, text) = failure(cp(&never, &room.machines("tree"), &room.path("no/such")).await);
    assert!(code == 2 && text.contains("make that directory first"), "{text}");
    // There.
    let ended = cp(&Machine::Honest, &room.machines("nothing"), &room.path("x")).await;
    assert_eq!(ended.complaints, 1);
    assert_eq!(failure(ended).0, 1);
    assert!(!room.has("x"));
    let ended = cp(&Machine::Honest, &room.path("tree"), &room.machines("no/such")).await;
    assert_eq!(ended.complaints, 1);
    assert_eq!(failure(ended).0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_machine_gets_nothing_out_of_the_destination() {
    let room = Room::new();
    fs::create_dir(room.path("into")).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(0);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.as_old_mut().name[..9].copy_from_slice(b"../canary");
    header.set_cksum();
    let archive = [header.as_bytes().as_slice(), &[0; 1024]].concat();
    let (code, text) =
        failure(cp(&Machine::Says(archive.clone(), 0), &room.machines("x"), &room.path("into")).await);
    assert!(
        code == 125 && text.contains("what the machine sent is refused") && text.contains("leads up"),
        "{text}"
    );
    // Also when it goes on without end.
    let endless = Machine::Stalls(archive);
    let (code, text) = failure(cp(&endless, &room.machines("x"), &room.path("into")).await);
    assert!(code == 125 && text.contains("leads up"), "{text}");
    assert!(!room.has("canary"));
    // One that says that all is well and has sent half of it.
    let (archive, _) = read(&room.path("tree"), &mut Vec::new());
    let half = Machine::Says(archive[..archive.len() / 2].to_vec(), 0);
    let (code, text) = failure(cp(&half, &room.machines("tree"), &room.path("into")).await);
    assert!(code == 125 && text.contains("cut short"), "{text}");
    assert!(!room.has("into/tree/sub/file"));
    // One that sends what nobody has asked for.
    let other = Machine::Says(archive, 0);
    let (code, text) = failure(cp(&other, &room.machines("report"), &room.path("into")).await);
    assert!(code == 125 && text.contains("`report` was asked for, and the archive has `tree`"), "{text}");
    assert!(!room.has("into/tree/sub/file"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_takes_nothing_holds_nobody_up() {
    let room = Room::new();
    fs::write(room.path("tree/big"), vec![7; 4 << 20]).unwrap();
    let refuses = Machine::Refuses("no\x1b[2J room");
    let ended = cp(&refuses, &room.path("tree"), &room.machines("x")).await;
    assert_eq!(ended.complaints, 1);
    assert_eq!(failure(ended).0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_copy_says_what_is_left() {
    let room = Room::new();
    let (archive, _) = read(&room.path("tree"), &mut Vec::new());
    fs::create_dir(room.path("into")).unwrap();
    let fetch = Machine::Stalls(archive[..archive.len() - 5000].to_vec());
    let sends = Machine::Stalls(Vec::new());
    for (machine, source, destination) in
        [(fetch, room.machines("tree"), room.path("into")), (sends, room.path("tree"), room.machines("y"))]
    {
        let cancel = CancellationToken::new();
        let soon = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            cancel.cancel();
        };
        let (ended, ()) = tokio::join!(cp_with(&machine, &source, &destination, false, &cancel), soon);
        let (code, text) = failure(ended);
        assert_eq!(code, 130, "{text}");
        assert!(text.contains(&format!("is left at `{destination}`")), "{text}");
    }
    // The file that was under way is not there as half of itself.
    assert!(room.has("into/tree") && !room.has("into/tree/sub/file"));
}
