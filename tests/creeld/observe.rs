//! What watches creeld: metrics at both kinds of addresses, and a log that programs read.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use creel::api::{Client, NewMachine, REQUEST_ID};
use creel::machines::Lifetime;
use creel_proto::v1::machines_client::MachinesClient;
use creel_proto::v1::{InspectRequest, ListRequest};
use rustix::process::Signal;
use serde_json::Value;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request};

use crate::harness::{PATIENCE, Place};

fn scrape(mut stream: impl std::io::Read + std::io::Write) -> String {
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("application/openmetrics-text"), "{head}");
    assert!(body.ends_with("\n# EOF\n"), "{body}");
    body.to_owned()
}

fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is not in\n{metrics}")).parse().unwrap()
}

/// A machine that can't be: the kit is empty.
fn fail_to_create(socket: &Path, workflow_id: &str) -> String {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let machine = NewMachine {
        image: "no-such-image".into(),
        lifetime: Lifetime::Detached { max_age: None },
        memory_mib: None,
        vcpus: None,
        memory_limit_mib: None,
        setup_timeout: None,
        workflow_id: Some(workflow_id.into()),
    };
    let creating = async {
        let client = Client::connect(socket).await.unwrap();
        let mut creating = match client.create(machine, None).await {
            Ok(creating) => creating,
            Err(error) => return error.to_string(),
        };
        loop {
            match creating.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("there is a machine"),
                Err(error) => return error.to_string(),
            }
        }
    };
    tokio.block_on(async { tokio::time::timeout(PATIENCE, creating).await.unwrap() })
}

#[test]
fn metrics_are_served_at_a_unix_socket_that_goes_with_creeld() {
    let place = Place::new();
    let socket = place.path("metrics.sock");
    let mut command = place.creeld();
    command.env("CREEL_DAEMON__METRICS", format!("unix:{}", socket.display()));
    let mut creeld = place.start(command);
    place.status_with("tcg, hybrid transport");
    assert_eq!(socket.metadata().unwrap().mode() & 0o007, 0, "others may not");

    let before = scrape(UnixStream::connect(&socket).unwrap());
    assert!(before.contains("creel_build_info{version="), "{before}");
    assert!(value(&before, "process_resident_memory_bytes") > 1e6);
    assert!(value(&before, "process_start_time_seconds") > 1.7e9);
    let failed = "creel_setups_failed_total{cause=\"bad_input\"}";
    let calls = "creel_api_calls_total{service=\"creel.v1.Machines\",method=\"Create\",code=";
    assert_eq!(value(&before, failed), 0.0);
    assert!(!before.contains(calls));

    fail_to_create(&place.socket(), "ci/test");
    let after = scrape(UnixStream::connect(&socket).unwrap());
    assert_eq!(value(&after, failed), 1.0, "{after}");
    assert_eq!(after.matches(calls).count(), 1, "{after}");
    assert!(!after.contains("ci/test"));

    creeld.signal(Signal::TERM);
    assert!(creeld.ended().success(), "{}", creeld.log());
    assert!(!socket.exists());
}

#[test]
fn metrics_are_served_at_a_loopback_address_and_a_taken_one_is_named() {
    let place = Place::new();
    let address = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().to_string()
    };
    let mut command = place.creeld();
    command.env("CREEL_DAEMON__METRICS", &address);
    let mut creeld = place.start(command);
    place.told("READY=1");
    let metrics = scrape(TcpStream::connect(&address).unwrap());
    assert_eq!(value(&metrics, "creel_machines{state=\"ready\"}"), 0.0);
    creeld.kill();

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = place.creeld();
    command.env("CREEL_DAEMON__METRICS", taken.local_addr().unwrap().to_string());
    let (code, log) = place.run(command);
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("another program has the port") && log.contains("`daemon.metrics`"), "{log}");

    let mut command = place.creeld();
    command.env("CREEL_DAEMON__METRICS", "0.0.0.0:9824").arg("--check-config");
    let (code, log) = place.run(command);
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("CREEL_DAEMON__METRICS") && log.contains("not a loopback address"), "{log}");
}

#[test]
fn a_json_log_has_the_ids_of_what_each_line_is_about() {
    let place = Place::new();
    let mut command = place.creeld();
    command.env("CREEL_DAEMON__LOG_FORMAT", "json");
    let mut creeld = place.start(command);
    place.status_with("tcg, hybrid transport");
    let refused = fail_to_create(&place.socket(), "ci/test");
    creeld.signal(Signal::TERM);
    assert!(creeld.ended().success());

    let log = creeld.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["message"], "creeld starts");
    for line in &lines {
        line["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        assert!(["info", "warn", "error"].contains(&line["level"].as_str().unwrap()), "{line}");
    }
    let about: Vec<&Value> = lines.iter().filter(|line| line["workflow"] == "ci/test").collect();
    assert!(about.iter().any(|line| line["message"] == "the machine's setup failed"), "{refused}\n{log}");
    let uid = rustix::process::geteuid().as_raw();
    for line in about {
        assert_eq!(line["machine"].as_str().unwrap().len(), 10, "{line}");
        assert_eq!((&line["uid"], &line["tenant"]), (&uid.into(), &format!("local:{uid}").into()), "{line}");
    }
}

/// One call that is answered, and one that is refused; both carry `id`, and so do their answers.
fn call_twice_as(socket: &Path, id: &'static str) {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
    });
    let named = |metadata: &mut MetadataMap| drop(metadata.insert(REQUEST_ID, id.parse().unwrap()));
    let is_named = |metadata: &MetadataMap| metadata.get(REQUEST_ID).is_some_and(|told| told == id);
    let calling = async {
        let endpoint = tonic::transport::Endpoint::from_static("http://creel");
        let mut machines = MachinesClient::new(endpoint.connect_with_connector(connector).await.unwrap());
        let mut list = Request::new(ListRequest { ended: false });
        named(list.metadata_mut());
        assert!(is_named(machines.list(list).await.unwrap().metadata()));
        let unknown = InspectRequest { machine_id: "zzzzzzzzzz".into(), console_bytes: None };
        let mut inspect = Request::new(unknown);
        named(inspect.metadata_mut());
        let refused = machines.inspect(inspect).await.unwrap_err();
        assert!(refused.code() == Code::NotFound && is_named(refused.metadata()), "{refused:?}");
    };
    tokio.block_on(async { tokio::time::timeout(PATIENCE, calling).await.unwrap() });
}

#[test]
fn a_caller_s_own_request_id_leads_to_the_lines_of_its_calls() {
    let place = Place::new();
    let mut command = place.creeld();
    command.env("CREEL_DAEMON__LOG_FORMAT", "json").env("CREEL_DAEMON__LOG", "creel=debug");
    let mut creeld = place.start(command);
    place.status_with("tcg, hybrid transport");
    call_twice_as(&place.socket(), "pipeline-7");
    creeld.signal(Signal::TERM);
    assert!(creeld.ended().success());

    let log = creeld.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let about: Vec<&Value> = lines.iter().filter(|line| line["request_id"] == "pipeline-7").collect();
    let levels = |call: &str| -> Vec<&str> {
        let of_call = about.iter().filter(|line| line["call"] == call);
        of_call.map(|line| line["level"].as_str().unwrap()).collect()
    };
    // Of calls that go well there are many: whoever looks for trouble need not see them.
    let answered = levels("/creel.v1.Machines/List");
    assert!(answered.contains(&"debug") && !answered.contains(&"info"), "{answered:?}\n{log}");
    let refused = levels("/creel.v1.Machines/Inspect");
    assert!(refused.contains(&"info"), "{refused:?}\n{log}");
    let uid = rustix::process::geteuid().as_raw();
    assert!(about.iter().all(|line| line["uid"] == uid), "{about:?}");
}

#[test]
fn a_reload_takes_another_filter_and_says_what_it_can_t_take() {
    let place = Place::new();
    let creeld = place.start(place.creeld());
    place.status_with("tcg, hybrid transport");
    assert!(!creeld.log().contains("DEBUG"), "{}", creeld.log());
    let text = std::fs::read_to_string(place.path("creel.toml")).unwrap();
    let more = "[daemon]\nlog = \"creel=debug\"\nlog_format = \"json\"\nmetrics = \"127.0.0.1:9\"\n";
    std::fs::write(place.path("creel.toml"), text.replacen("[daemon]\n", more, 1)).unwrap();
    creeld.signal(Signal::HUP);
    place.told("RELOADING=1");
    place.told("READY=1");
    place.status_with("tcg, hybrid transport");
    let log = creeld.log();
    assert!(log.contains("DEBUG") && !log.contains("\"level\""), "{log}");
    for key in ["daemon.log_format", "daemon.metrics"] {
        assert!(
            log.contains(&format!("`{key}` has changed, which takes effect when creeld is restarted")),
            "{log}"
        );
    }
}

#[test]
fn a_journal_that_is_not_there_is_said_and_the_log_is_text() {
    let place = Place::new();
    let mut command = place.creeld();
    command.env("CREEL_DAEMON__LOG_FORMAT", "journal");
    // Ends it at once: the place is no directory.
    command.env("CREEL_DAEMON__SOCKET", place.path("missing/creel.sock"));
    let (code, log) = place.run(command);
    assert_eq!(code, Some(3), "{log}");
    if Path::new("/run/systemd/journal/socket").exists() {
        assert_eq!(log, "", "all of it went to the journal of this host");
    } else {
        assert!(
            log.contains("`daemon.log_format` is `journal`, but") && log.contains("creeld starts"),
            "{log}"
        );
    }
}
