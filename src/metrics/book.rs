//! Every metric with its help. docs/operations.md has a table of them, which a test compares.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{GuestPort, HOST, INPUT, Label, Lease, MachineState, OUTCOMES, PHASES};
use super::process::Process;

/// What [`Metrics::render`] returns, as HTTP names it.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Phases take from microseconds (disks that are made of a template) to a minute (emulated boots).
const SETUP_SECONDS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 30.0, 60.0];

/// Steps take from nothing to the workflow's deadline.
const EXEC_SECONDS: [f64; 12] = [0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 7200.0];

/// Most calls answer at once; those that stream last as long as what they follow.
const CALL_SECONDS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0];

type Counters<const N: usize> = Family<[Label; N], Counter>;
type Gauges<const N: usize> = Family<[Label; N], Gauge>;
type Histograms<const N: usize> = Family<[Label; N], Histogram, fn() -> Histogram>;
type OnScrape = Box<dyn Fn(&Metrics) + Send + Sync>;

/// All metrics. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Book>);

/// What is recorded into, one field a metric.
#[derive(Debug)]
pub(super) struct Parts {
    pub machines: Gauges<1>,
    pub setup_phases: Histograms<1>,
    pub setup_total: Histogram,
    pub setups_failed: Counters<1>,
    pub execs: Counters<1>,
    pub exec_time: Histogram,
    pub verdicts: Counters<1>,
    pub workflow_verdicts: Counters<1>,
    pub leases: Gauges<1>,
    pub slots: Gauge,
    pub slots_used: Gauge,
    pub queue: Gauge,
    pub log_bytes: Counter,
    pub refused: Counters<1>,
    pub api_calls: Counters<3>,
    pub api_time: Histograms<2>,
}

struct Book {
    parts: Parts,
    registry: Registry,
    on_scrape: Mutex<Vec<OnScrape>>,
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Book").field("parts", &self.parts).finish_non_exhaustive()
    }
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            machines: Family::default(),
            setup_phases: Family::new_with_constructor(|| Histogram::new(SETUP_SECONDS)),
            setup_total: Histogram::new(SETUP_SECONDS),
            setups_failed: Family::default(),
            execs: Family::default(),
            exec_time: Histogram::new(EXEC_SECONDS),
            verdicts: Family::default(),
            workflow_verdicts: Family::default(),
            leases: Family::default(),
            slots: Gauge::default(),
            slots_used: Gauge::default(),
            queue: Gauge::default(),
            log_bytes: Counter::default(),
            refused: Family::default(),
            api_calls: Family::default(),
            api_time: Family::new_with_constructor(|| Histogram::new(CALL_SECONDS)),
        }
    }
}

impl Default for Metrics {
    /// Whose labels are known from the start begins at zero: a rate needs a value before the first event.
    fn default() -> Self {
        let parts = Parts::default();
        parts.begin_at_zero();
        let registry = parts.register();
        Self(Arc::new(Book { parts, registry, on_scrape: Mutex::default() }))
    }
}

impl Metrics {
    pub(super) fn parts(&self) -> &Parts {
        &self.0.parts
    }

    /// Has `read` called before each scrape: for what is cheaper looked at than counted. It may block for a moment.
    pub fn on_scrape(&self, read: impl Fn(&Self) + Send + Sync + 'static) {
        self.0.on_scrape.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(read));
    }

    /// All of it as OpenMetrics text, of type [`CONTENT_TYPE`]. Reads a few files of /proc, so it may block for a moment.
    pub fn render(&self) -> String {
        for read in self.0.on_scrape.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            read(self);
        }
        let mut text = String::with_capacity(16 << 10);
        // A String takes everything.
        let _ = encode(&mut text, &self.0.registry);
        text
    }
}

impl Parts {
    fn begin_at_zero(&self) {
        for state in MachineState::ALL {
            drop(self.machines.get_or_create(&[state.label()]));
        }
        for phase in PHASES {
            drop(self.setup_phases.get_or_create(&[("phase", phase.label())]));
        }
        for outcome in OUTCOMES {
            drop(self.execs.get_or_create(&[("outcome", outcome)]));
            drop(self.verdicts.get_or_create(&[("outcome", outcome)]));
            drop(self.workflow_verdicts.get_or_create(&[("outcome", outcome)]));
        }
        // A setup has no program that could exit.
        for cause in [INPUT, HOST].into_iter().chain(OUTCOMES.into_iter().skip(3)) {
            drop(self.setups_failed.get_or_create(&[("cause", cause)]));
        }
        for lease in Lease::ALL {
            drop(self.leases.get_or_create(&[lease.label()]));
        }
        for port in GuestPort::ALL {
            drop(self.refused.get_or_create(&[port.label()]));
        }
        drop(self.refused.get_or_create(&[("port", "control")]));
    }

    /// The order of the text, and of the table in the documentation. The registry puts the full stop.
    fn register(&self) -> Registry {
        let mut all = Registry::default();
        all.register(
            "creel_build",
            "The version of creeld",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        all.register("creel_machines", "Machines that live, by state", self.machines.clone());
        let help = "What each phase of a machine's setup took";
        all.register_with_unit("creel_machine_setup", help, Unit::Seconds, self.setup_phases.clone());
        let help = "What setups took that succeeded, all phases together";
        all.register_with_unit("creel_machine_setup_total", help, Unit::Seconds, self.setup_total.clone());
        all.register("creel_setups_failed", "Setups that failed, by cause", self.setups_failed.clone());
        let help = "Ends of machines, by outcome; setups that ended with an outcome are among them";
        all.register("creel_verdicts", help, self.verdicts.clone());
        let help = "Ends of workflows of the API, by outcome; those that never had a machine are among them";
        all.register("creel_workflow_verdicts", help, self.workflow_verdicts.clone());
        all.register("creel_execs", "Programs that have ended in machines, by outcome", self.execs.clone());
        let help = "What programs in machines took";
        all.register_with_unit("creel_exec", help, Unit::Seconds, self.exec_time.clone());
        let help = "What machines hold of this host, as the host itself shows it";
        all.register("creel_leases", help, self.leases.clone());
        all.register("creel_slots", "Workflows that may run at a time", self.slots.clone());
        all.register("creel_slots_used", "Workflows that have a slot", self.slots_used.clone());
        all.register("creel_queue_length", "Workflows that wait for a slot", self.queue.clone());
        let help = "Output that went into workflows' logs, after masking";
        all.register_with_unit("creel_log", help, Unit::Bytes, self.log_bytes.clone());
        let help = "Connections that were closed at once: nobody expected them, or there were too many";
        all.register("creel_refused_connections", help, self.refused.clone());
        let help = "Calls of the API that have ended, by gRPC status code";
        all.register("creel_api_calls", help, self.api_calls.clone());
        let help = "What calls of the API took, to the end of the answer";
        all.register_with_unit("creel_api_call", help, Unit::Seconds, self.api_time.clone());
        all.register_collector(Box::new(Process::since_now()));
        all
    }
}
