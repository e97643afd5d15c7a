//! What is looked at for a scrape instead of counted: what machines hold as the host shows it, so that what a fault of
//! ours has left behind is seen, and counters of parts that know of no metrics.

use std::sync::Arc;

use crate::config::Config;
use crate::metrics::{GuestPort, Lease, Metrics};
use crate::runtime::microvm::{self, Vsocks};
use crate::state::log::bytes_stored;
use crate::transport::refusals::refused_at;

/// Has `metrics` read all that with each scrape. The directories are those that creeld was started with.
pub(in crate::daemon) fn read_on_scrape(metrics: &Metrics, config: &Config, vsocks: Arc<Vsocks>) {
    let (cgroup_root, run_dir) = (config.cgroups.root.clone(), config.places.run.clone());
    let ports = config.vsock_ports;
    metrics.on_scrape(move |metrics| {
        let (cids, resting) = vsocks.cid_counts();
        let held = microvm::held(&cgroup_root, &run_dir);
        metrics.set_leases(Lease::Cid, cids);
        metrics.set_leases(Lease::RestingCid, resting);
        metrics.set_leases(Lease::Directory, held.directories);
        metrics.set_leases(Lease::Cgroup, held.cgroups);
        for (port, number) in [
            (GuestPort::Agent, ports.agent),
            (GuestPort::NixRead, ports.nix_read),
            (GuestPort::NixUpload, ports.nix_upload),
            (GuestPort::Dns, ports.dns),
        ] {
            metrics.set_refused(port, refused_at(number));
        }
        metrics.set_log_bytes(bytes_stored());
    });
}
