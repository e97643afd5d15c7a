//! Scrapers, good and bad, at a real socket.

use std::path::PathBuf;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::*;
use crate::config::MetricsAddress;
use crate::exit::Exit;

struct World {
    directory: tempfile::TempDir,
    _kept: socket::Kept,
}

impl World {
    fn new(metrics: Metrics) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = MetricsAddress::Unix(directory.path().join("metrics.sock"));
        let kept = start(Scrape::open(&address).unwrap(), metrics).unwrap().unwrap();
        Self { directory, _kept: kept }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("metrics.sock")
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket()).await.unwrap()
    }

    async fn ask(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A request that is not read to its end resets the connection, behind the answer.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }
}

#[tokio::test]
async fn metrics_are_at_one_path_and_by_one_method() {
    let world = World::new(Metrics::default());
    let answer = world.ask("GET /metrics HTTP/1.1\r\nhost: creel\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains(&format!("content-type: {}\r\n", metrics::CONTENT_TYPE)), "{answer}");
    assert!(
        answer.contains("\ncreel_machines{state=\"ready\"} 0\n") && answer.ends_with("\n# EOF\n"),
        "{answer}"
    );
    for (request, status) in [
        ("GET / HTTP/1.1\r\nhost: creel\r\n\r\n".to_owned(), "404"),
        ("GET /metrics/../etc HTTP/1.1\r\nhost: creel\r\n\r\n".to_owned(), "404"),
        ("POST /metrics HTTP/1.1\r\nhost: creel\r\ncontent-length: 1\r\n\r\nx".to_owned(), "405"),
        ("nonsense\r\n\r\n".to_owned(), "400"),
        (format!("GET /metrics HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(MAX_HEAD_BYTES)), "431"),
        (format!("GET /metrics HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(MAX_HEADERS + 1)), "431"),
    ] {
        let answer = world.ask(&request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:.60}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_neither_asks_nor_reads_is_gone_after_a_while_and_holds_up_nobody_for_longer() {
    const REQUEST: &str = "GET /metrics HTTP/1.1\r\nhost: creel\r\n\r\n";
    let world = World::new(Metrics::default());
    let started = tokio::time::Instant::now();
    let mut not_reading = Vec::new();
    for _ in 0..2 * MAX_CONNECTIONS {
        let mut stream = world.connect().await;
        stream.write_all(REQUEST.as_bytes()).await.unwrap();
        not_reading.push(stream);
    }
    assert!(world.ask(REQUEST).await.ends_with("# EOF\n"));
    assert!(started.elapsed() < HEAD_BOUND, "who does not read holds nothing");

    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        silent.push(world.connect().await);
    }
    // It waits in the backlog until those before it have been sent away.
    assert!(world.ask(REQUEST).await.ends_with("# EOF\n"));
    assert!(started.elapsed() < CONNECTION_BOUND, "{:?}", started.elapsed());
    for mut stream in silent {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(!rest.windows(3).any(|window| window == b"EOF"));
    }
}

#[test]
fn the_socket_is_its_group_s_and_no_others() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("metrics.sock");
    let scrape = Scrape::open(&MetricsAddress::Unix(path.clone())).unwrap();
    let mode = path.metadata().unwrap().mode() & 0o777;
    assert!([0o600, 0o660].contains(&mode), "{mode:o}");
    drop(scrape);
    assert!(!path.exists(), "it goes with who serves it");

    // Of a directory that gives its group to what is made in it.
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o2750)).unwrap();
    let _scrape = Scrape::open(&MetricsAddress::Unix(path.clone())).unwrap();
    let (socket, above) = (path.metadata().unwrap(), directory.path().metadata().unwrap());
    assert_eq!((socket.mode() & 0o777, socket.gid()), (0o660, above.gid()));
}

#[test]
fn an_address_that_can_t_be_had_is_named_with_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = MetricsAddress::Loopback(taken.local_addr().unwrap());
    let failure = Scrape::open(&address).unwrap_err();
    let text = failure.to_string();
    assert!(text.contains("another program has the port") && text.contains("daemon.metrics"), "{text}");
    assert_eq!(failure.exit(), Exit::HostCannot);
    let address = MetricsAddress::Unix("/nonexistent/metrics.sock".into());
    let text = Scrape::open(&address).unwrap_err().to_string();
    assert!(text.contains("daemon.metrics"), "{text}");
}
