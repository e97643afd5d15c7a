//! Where something happens, one of these is called. None of them blocks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::book::Metrics;
use super::labels::{self, GuestPort, Lease, MachineState};
use crate::runtime::{Outcome, Phase, SetupError, SetupEvent, Verdict};

impl Metrics {
    /// How many machines live in each state.
    pub fn set_machines(&self, counts: [(MachineState, usize); 3]) {
        for (state, count) in counts {
            self.parts().machines.get_or_create(&[state.label()]).set(gauge(count));
        }
    }

    /// Takes the time of each phase from what a setup reports ([`SetupEvents::observed`]).
    ///
    /// [`SetupEvents::observed`]: crate::runtime::SetupEvents::observed
    pub fn phases(&self) -> Arc<dyn Fn(&SetupEvent) + Send + Sync> {
        let metrics = self.clone();
        Arc::new(move |event| {
            if let SetupEvent::Finished(phase, took) = event {
                metrics.phase_took(*phase, *took);
            }
        })
    }

    fn phase_took(&self, phase: Phase, took: Duration) {
        self.parts().setup_phases.get_or_create(&[("phase", phase.label())]).observe(took.as_secs_f64());
    }

    /// Measures a setup: the time of one that succeeds, the cause of one that fails. One that is dropped is neither.
    pub async fn setup<T>(
        &self,
        setup: impl Future<Output = Result<T, SetupError>>,
    ) -> Result<T, SetupError> {
        let started = Instant::now();
        let result = setup.await;
        match &result {
            Ok(_) => self.parts().setup_total.observe(started.elapsed().as_secs_f64()),
            Err(error) => {
                let cause = labels::cause(&error.failure);
                self.parts().setups_failed.get_or_create(&[("cause", cause)]).inc();
            }
        }
        result
    }

    /// A machine has ended, or its setup has ended with an outcome.
    pub fn machine_ended(&self, outcome: &Outcome) {
        self.parts().verdicts.get_or_create(&[("outcome", labels::outcome(outcome))]).inc();
    }

    /// A workflow of the API has ended.
    pub fn workflow_ended(&self, outcome: &Outcome) {
        self.parts().workflow_verdicts.get_or_create(&[("outcome", labels::outcome(outcome))]).inc();
    }

    /// Measures an exec. One that is dropped is not counted.
    pub async fn exec(&self, exec: impl Future<Output = Verdict>) -> Verdict {
        let started = Instant::now();
        let verdict = exec.await;
        self.parts().execs.get_or_create(&[("outcome", labels::outcome(&verdict.outcome))]).inc();
        self.parts().exec_time.observe(started.elapsed().as_secs_f64());
        verdict
    }

    /// How many workflows may run at a time, do run, and wait for that.
    pub fn set_slots(&self, total: usize, used: usize, waiting: usize) {
        self.parts().slots.set(gauge(total));
        self.parts().slots_used.set(gauge(used));
        self.parts().queue.set(gauge(waiting));
    }

    /// A call of the API has ended. All three are of fixed lists.
    pub fn api_call(&self, service: &'static str, method: &'static str, code: &'static str, took: Duration) {
        self.parts()
            .api_calls
            .get_or_create(&[("service", service), ("method", method), ("code", code)])
            .inc();
        self.parts()
            .api_time
            .get_or_create(&[("service", service), ("method", method)])
            .observe(took.as_secs_f64());
    }

    /// A connection to the control socket was closed at once, since there are too many.
    pub fn control_refused(&self) {
        self.parts().refused.get_or_create(&[("port", "control")]).inc();
    }

    /// How many of something are held now; for [`Metrics::on_scrape`].
    pub fn set_leases(&self, lease: Lease, count: usize) {
        self.parts().leases.get_or_create(&[lease.label()]).set(gauge(count));
    }

    /// How many connections of guests were refused since the start; for [`Metrics::on_scrape`].
    pub fn set_refused(&self, port: GuestPort, total: u64) {
        self.parts().refused.get_or_create(&[port.label()]).inner().store(total, Ordering::Relaxed);
    }

    /// How many bytes went into workflows' logs since the start; for [`Metrics::on_scrape`].
    pub fn set_log_bytes(&self, total: u64) {
        self.parts().log_bytes.inner().store(total, Ordering::Relaxed);
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
