//! What a scrape says after a scripted life, and that any scraper can read it.

mod exposition;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::exposition::{Family, parse};
use super::{GuestPort, Lease, Metrics};
use crate::machines::{Creation, Lifetime, Machines, NamedBy};
use crate::runtime::fake::{FakeRuntime, ScriptedExec, ScriptedSetup};
use crate::runtime::streams::output;
use crate::runtime::{
    DestroyMode, ExecRequest, ExecStreams, MachineId, Outcome, SetupEvents, SetupFailure, SetupRequest,
    Tenant, Work,
};

fn creation(id: &MachineId, workflow_id: &str) -> Creation {
    let request = SetupRequest {
        id: id.clone(),
        tenant: Tenant::local(1000),
        workflow_id: workflow_id.into(),
        image: "tiny".into(),
        work_dir: "/workspace".into(),
        source: None,
        labels: BTreeMap::new(),
        architecture: None,
        memory_mib: None,
        vcpus: None,
        memory_limit_mib: None,
        batch: Vec::new(),
        deadline: None,
        ledger: None,
    };
    let lifetime = Lifetime::Detached { max_age: None };
    Creation { request, creator_uid: 1000, lifetime, fingerprint: None }
}

async fn create(machines: &Machines, workflow_id: &str) -> Option<MachineId> {
    let id = MachineId::random().unwrap();
    let (events, cancel) = (SetupEvents::ignored(), CancellationToken::new());
    machines.create(creation(&id, workflow_id), events, cancel).await.ok().map(|_| id)
}

async fn exec(machines: &Machines, id: &MachineId) {
    let work = Work::UnpackSource { destination: "/workspace".into(), user: String::new() };
    let request = ExecRequest { id: "e".into(), work, deadline: None };
    let (output, _reader) = output();
    let streams = ExecStreams { input: None, output };
    machines.exec(id, request, NamedBy::Us, streams, CancellationToken::new()).await.unwrap();
}

/// The samples that are not as they were at the start, without what differs from process to process.
fn changes(before: &str, after: &str) -> String {
    let flat = |text: &str| -> Vec<(String, f64)> {
        let families = parse(text).into_iter().filter(|(name, _)| !name.starts_with("process_"));
        let mut samples: Vec<_> = families
            .flat_map(|(_, family)| family.samples)
            // The sum and the count say enough.
            .filter(|sample| !sample.name.ends_with("_bucket"))
            .map(|sample| (format!("{}{:?}", sample.name, sample.labels), sample.value))
            .collect();
        samples.sort_by(|one, other| one.0.cmp(&other.0));
        samples
    };
    let before: BTreeMap<_, _> = flat(before).into_iter().collect();
    let mut text = String::new();
    for (name, value) in flat(after).into_iter().filter(|(name, value)| before.get(name) != Some(value)) {
        writeln!(text, "{name} {value}").unwrap();
    }
    text
}

#[tokio::test(start_paused = true)]
async fn a_scrape_tells_what_has_happened() {
    let slow = ScriptedExec { takes: Duration::from_secs(90), ..ScriptedExec::exits(1) };
    let runtime = FakeRuntime::new(ScriptedSetup::Ready, [ScriptedExec::exits(0), slow]);
    let death = runtime.death();
    let machines = Machines::new(Arc::new(runtime), 3);
    let metrics = machines.metrics().clone();
    let before = metrics.render();

    let first = create(&machines, "w").await.unwrap();
    exec(&machines, &first).await;
    exec(&machines, &first).await;
    machines.destroy(&first, DestroyMode::Kill).await.unwrap();
    let second = create(&machines, "w").await.unwrap();
    death.strike(Outcome::TimedOut);
    machines.ended(&second).await.unwrap();
    // It dies at once, as the one before it.
    let _third = create(&machines, "w").await;
    machines.counts().wait_for(|counts| counts.living() == 0).await.unwrap();
    metrics.set_slots(4, 2, 1);
    metrics.control_refused();
    metrics.on_scrape(|metrics| {
        metrics.set_leases(Lease::RestingCid, 3);
        metrics.set_refused(GuestPort::Dns, 7);
        metrics.set_log_bytes(1 << 40);
    });
    insta::assert_snapshot!(changes(&before, &metrics.render()));
}

#[tokio::test(start_paused = true)]
async fn setups_that_fail_are_counted_by_cause_and_living_machines_by_state() {
    let failing = |failure| FakeRuntime::new(ScriptedSetup::Fails(failure), []);
    for (failure, cause) in [
        (SetupFailure::BadInput("no such image".into()), "bad_input"),
        (SetupFailure::HostCannot("no KVM".into()), "host_cannot"),
        (SetupFailure::Ended(Outcome::HostDiskFull { detail: "full".into() }), "host_disk_full"),
    ] {
        let machines = Machines::new(Arc::new(failing(failure)), 1);
        assert!(create(&machines, "w").await.is_none());
        let text = machines.metrics().render();
        assert!(text.contains(&format!("creel_setups_failed_total{{cause=\"{cause}\"}} 1\n")), "{text}");
        assert!(text.contains("creel_machine_setup_total_seconds_count 0\n"), "{text}");
    }
    let machines = Machines::new(Arc::new(FakeRuntime::new(ScriptedSetup::Ready, [])), 3);
    create(&machines, "w").await.unwrap();
    create(&machines, "w").await.unwrap();
    let text = machines.metrics().render();
    for (state, count) in [("setting_up", 0), ("ready", 2), ("ending", 0)] {
        assert!(text.contains(&format!("creel_machines{{state=\"{state}\"}} {count}\n")), "{state}: {text}");
    }
}

/// However many names callers invent, the number of series stays what it is.
#[tokio::test(start_paused = true)]
async fn what_callers_choose_is_in_no_label() {
    let machines = Machines::new(Arc::new(FakeRuntime::new(ScriptedSetup::Ready, [])), 64);
    create(&machines, "w").await.unwrap();
    let series = |text: &str| parse(text).iter().map(|(_, family)| family.samples.len()).sum::<usize>();
    let before = series(&machines.metrics().render());
    for name in ["hostile\"} 1\ncreel_machines{state=\"forged", "\0", "a", "b"] {
        create(&machines, name).await.unwrap();
    }
    let text = machines.metrics().render();
    assert_eq!(series(&text), before);
    assert!(!text.contains("forged") && !text.contains("hostile"));
}

/// The table in docs/operations.md. `UPDATE_METRICS_DOC=1` writes it.
#[test]
fn every_metric_is_documented_as_it_is() {
    const BEGIN: &str = "<!-- metrics: written by `UPDATE_METRICS_DOC=1 cargo test --lib metrics` -->\n";
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let metrics = Metrics::default();
    metrics.api_call("creel.v1.Machines", "Create", "OK", Duration::ZERO);
    let mut table = String::from("| metric | type | labels | says |\n| --- | --- | --- | --- |\n");
    for (name, family) in parse(&metrics.render()) {
        table += &row(&name, &family);
    }
    let (head, rest) = text.split_once(BEGIN).expect("docs/operations.md has a place for the table");
    let end = rest.find("\n\n").map_or(rest.len(), |end| end + 1);
    if std::env::var_os("UPDATE_METRICS_DOC").is_some() {
        std::fs::write(&page, format!("{head}{BEGIN}{table}{}", &rest[end..])).unwrap();
    } else {
        assert_eq!(&rest[..end], table, "UPDATE_METRICS_DOC=1 cargo test --lib metrics writes the table");
    }
}

/// Rules and examples in the page name series that there are.
#[test]
fn rules_name_metrics_that_exist() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let text = std::fs::read_to_string(page).unwrap();
    let metrics = Metrics::default();
    metrics.api_call("creel.v1.Machines", "Create", "OK", Duration::ZERO);
    let scrape = parse(&metrics.render());
    let known: std::collections::BTreeSet<&str> =
        scrape.iter().flat_map(|(_, family)| &family.samples).map(|sample| sample.name.as_str()).collect();
    let (_, rules) = text.split_once("groups:\n").expect("the page has rules");
    let (rules, _) = rules.split_once("```").unwrap();
    let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let named: Vec<&str> =
        words.filter(|word| word.starts_with("creel_") || word.starts_with("process_")).collect();
    assert!(named.len() > 5, "{rules}");
    for name in named {
        assert!(known.contains(name), "{name} is no series");
    }
}

fn row(name: &str, family: &Family) -> String {
    let sample = &family.samples[0];
    let shown = match family.kind.as_str() {
        "counter" | "info" => &sample.name,
        _ => name,
    };
    let mut labels: Vec<String> = Vec::new();
    for (label, _) in sample.labels.iter().filter(|(label, _)| label != "le") {
        let values: std::collections::BTreeSet<&str> = family
            .samples
            .iter()
            .flat_map(|sample| &sample.labels)
            .filter(|(name, _)| name == label)
            .map(|(_, value)| value.as_str())
            .collect();
        let values = values.into_iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(" ");
        labels.push(match label.as_str() {
            // Their values are the contract's and this version's.
            "service" | "method" | "code" | "version" => format!("`{label}`"),
            _ => format!("`{label}`: {values}"),
        });
    }
    format!(
        "| `{shown}` | {} | {} | {} |\n",
        family.kind,
        labels.join("; "),
        family.help.trim_end_matches('.')
    )
}
