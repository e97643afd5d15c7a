//! `creel doctor`: what this host can and can't do, and what to do about it.

use serde::Serialize;

use super::context::Context;
use super::failure::{Failure, with_causes};
use super::render::{Colour, Palette};
use crate::api::Client;
use crate::config::{self, CgroupMode, JailMode};
use crate::exit::Exit;
use crate::host;
use crate::runtime::microvm::Layers;
use crate::runtime::microvm::cgroup::{CgroupError, CgroupRoot};
use crate::runtime::microvm::directory::RunDir;
use crate::runtime::microvm::qemu::{KvmProof, ProbeInput, prove_kvm};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    /// Works, with less speed or less protection.
    Limited,
    /// Workflows can't run.
    Missing,
    /// What no host has yet, since creel can't do it.
    Note,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    status: Status,
    /// What was found, and what follows from it.
    finding: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Check {
    fn ok(name: &'static str, finding: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, finding: finding.into(), remedy: None }
    }

    fn limited(name: &'static str, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, status: Status::Limited, finding: finding.into(), remedy: Some(remedy.into()) }
    }

    fn missing(name: &'static str, finding: impl Into<String>) -> Self {
        Self { name, status: Status::Missing, finding: finding.into(), remedy: None }
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

pub(super) async fn doctor(context: &Context, as_json: bool) -> Result<Exit, Failure> {
    let checks = examine(context).await;
    let exit = if checks.iter().any(|check| check.status == Status::Missing) {
        Exit::HostCannot
    } else {
        Exit::Success
    };
    if as_json {
        println!("{}", serde_json::to_string_pretty(&checks).map_err(Failure::internal)?);
        return Ok(exit);
    }
    let palette = Palette::of_stdout();
    for check in &checks {
        let (mark, colour) = match check.status {
            Status::Ok => ("ok     ", Colour::Green),
            Status::Limited => ("limited", Colour::Yellow),
            Status::Missing => ("missing", Colour::Red),
            Status::Note => ("note   ", Colour::Bold),
        };
        println!("{} {:<12} {}", palette.paint(colour, mark), check.name, check.finding);
        if let Some(remedy) = &check.remedy {
            println!("{:21}{} {remedy}", "", palette.paint(Colour::Bold, "->"));
        }
    }
    println!();
    println!(
        "{}",
        match exit {
            Exit::Success => "workflows can run here",
            _ => "workflows can't run here until what is missing is there",
        }
    );
    Ok(exit)
}

async fn examine(context: &Context) -> Vec<Check> {
    let mut checks = Vec::new();
    match context.qemu().await {
        Ok(qemu) => {
            checks.push(Check::ok("qemu", format!("{} at {}", qemu.version, qemu.path.display())));
            checks.push(acceleration(context, &qemu).await);
        }
        Err(error) => checks.push(Check::missing("qemu", with_causes(&error))),
    }
    checks.push(match context.kit() {
        Ok(kit) => Check::ok("kit", format!("{}, kernel {}", kit.directory.display(), kit.kernel.release)),
        Err(error) => Check::missing("kit", with_causes(&error)),
    });
    checks.push(images(context));
    checks.push(program("volumes", "mke2fs", "e2fsprogs", "images with volumes can't run"));
    checks.push(program("builder", "mkfs.erofs", "erofs-utils", "images can't be built"));
    checks.push(program("source", "git", "git", "workflows that clone their repository can't run"));
    checks.push(run_directory(context));
    checks.push(namespaces());
    checks.push(jail(context));
    checks.push(vsock(context));
    checks.push(cgroups(context));
    checks.push(daemon(context).await);
    checks.push(Check {
        name: "network",
        status: Status::Note,
        finding: "guests have no network yet: workflows run with what is in their image".to_owned(),
        remedy: None,
    });
    checks
}

async fn acceleration(context: &Context, qemu: &crate::runtime::microvm::qemu::Qemu) -> Check {
    const NAME: &str = "kvm";
    const CONSEQUENCE: &str = "guests are emulated (TCG): many times slower, and without QEMU's promise to \
                               isolate them; run only what you trust";
    let wanted = context.config().machine.accel;
    if wanted == config::Accel::Tcg {
        return Check::limited(
            NAME,
            CONSEQUENCE,
            "set `machine.accel` to \"auto\" to use KVM where it works",
        );
    }
    let cache_directory = Some(context.config().places.cache.as_path());
    let input = ProbeInput { qemu, cache_directory, alternative: wanted == config::Accel::Auto };
    match prove_kvm(input).await {
        KvmProof::Usable => Check::ok(NAME, "a trial guest ran under KVM"),
        KvmProof::Unusable { why } if wanted == config::Accel::Kvm => {
            Check::missing(NAME, format!("`machine.accel` is \"kvm\", and KVM can't be used: {why}"))
                .remedy("set `machine.accel` to \"auto\" to fall back to emulation")
        }
        KvmProof::Unusable { why } => Check::limited(
            NAME,
            format!("{CONSEQUENCE}; {why}"),
            "on a machine of your own, enable virtualisation in its firmware and join group `kvm`; in a virtual \
             machine, nested virtualisation has to be enabled outside",
        ),
    }
}

fn images(context: &Context) -> Check {
    const REMEDY: &str = "creel image build tiny";
    match context.images().list() {
        Err(error) => Check::missing("images", with_causes(&error)),
        Ok(images) => {
            let names = |usable: bool| -> Vec<&str> {
                let wanted = images.iter().filter(|summary| summary.image.is_ok() == usable);
                wanted.map(|summary| summary.name.as_str()).collect()
            };
            let (usable, broken) = (names(true), names(false));
            if usable.is_empty() {
                Check::missing("images", "there is no image to run workflows in").remedy(REMEDY)
            } else if broken.is_empty() {
                Check::ok("images", usable.join(", "))
            } else {
                let finding = format!("{}; broken: {}", usable.join(", "), broken.join(", "));
                Check::limited("images", finding, "creel image ls says what is wrong with them")
            }
        }
    }
}

fn program(name: &'static str, program: &'static str, package: &str, consequence: &str) -> Check {
    match crate::image::find_program(program) {
        Some(path) => Check::ok(name, path.display().to_string()),
        None => Check::limited(
            name,
            format!("`{program}` is not installed: {consequence}"),
            format!("apt-get install {package}"),
        ),
    }
}

fn run_directory(context: &Context) -> Check {
    let path = &context.config().places.run;
    match RunDir::open(path) {
        Ok(run_dir) => Check::ok("run dir", run_dir.path().display().to_string()),
        Err(error) => Check::missing("run dir", with_causes(&error)),
    }
}

/// The kernel transport, which is creeld's. An embedded run needs none of it.
fn vsock(context: &Context) -> Check {
    const NAME: &str = "vsock";
    let wanted = context.config().machine.transport;
    if wanted == config::Transport::Hybrid {
        return Check::ok(
            NAME,
            "hybrid, as `machine.transport` says: over unix sockets and a helper process",
        );
    }
    let device = host::vhost_vsock::DEVICE;
    // Any number that nobody has: it is given back at once.
    let claimed = host::vhost_vsock::claim(u32::MAX - 1 - std::process::id());
    let why = match claimed {
        Ok(_) => return Check::ok(NAME, format!("kernel: {device} gives CIDs to guests")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            return Check::ok(NAME, format!("kernel: {device} gives CIDs to guests"));
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Check::ok(
                NAME,
                format!("kernel: {device} is there; your user may not open it, creeld may"),
            );
        }
        Err(error) => error,
    };
    let finding = format!("no kernel vsock: {device}: {why}");
    let remedy = "modprobe vhost_vsock";
    if wanted == config::Transport::Kernel {
        return Check::missing(NAME, format!("{finding}; `machine.transport` is \"kernel\""))
            .remedy(format!("{remedy}, or set `machine.transport` to \"auto\""));
    }
    Check::limited(
        NAME,
        format!("{finding}: guests reach creel through a helper process each, which is slower"),
        remedy,
    )
}

fn cgroups(context: &Context) -> Check {
    const NAME: &str = "cgroups";
    let cgroups = &context.config().cgroups;
    match CgroupRoot::open(&cgroups.root) {
        Ok(root) => Check::ok(NAME, format!("machines of creeld get limits below {}", root.path().display())),
        // Root's alone, and rightly so.
        Err(CgroupError::NotWritable { .. }) if !rustix::process::geteuid().is_root() => {
            Check::ok(NAME, format!("{} is there for creeld", cgroups.root.display()))
        }
        Err(error) => {
            let consequence = match cgroups.mode {
                CgroupMode::Required => "creeld refuses to make machines",
                CgroupMode::Auto => "creeld's machines have no limits but QEMU's own and end with creeld",
            };
            let remedy = "install creel's package on a host with systemd and cgroup v2, and `systemctl start \
                          creel-machines.service`";
            Check::limited(
                NAME,
                format!("{}: {consequence}; `creel run --embedded` never has any", with_causes(&error)),
                remedy,
            )
        }
    }
}

async fn daemon(context: &Context) -> Check {
    const NAME: &str = "creeld";
    let path = &context.config().daemon.socket;
    let answer = match Client::connect(path).await {
        Ok(client) => {
            client.list(false).await.map(|machines| machines.len()).map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    };
    match answer {
        Ok(count) => Check::ok(NAME, format!("answers at {}, machines: {count}", path.display())),
        Err(why) => Check::limited(
            NAME,
            format!("{why}; `creel run` works without, `creel create`, `exec`, `ps` and `rm` don't"),
            "systemctl start creeld.socket, and join group `creel`",
        ),
    }
}

/// What confines machines that this user makes; those of creeld have all layers, or there are none.
fn jail(context: &Context) -> Check {
    const NAME: &str = "jail";
    if context.config().jail.mode == Some(JailMode::Off) {
        return Check::limited(
            NAME,
            "`jail.mode` is \"off\": machines have no jail",
            "remove it from the configuration",
        );
    }
    let layers = Layers::find();
    let has = |layer: &str| format!("a machine's processes have {layer}");
    let missing = layers.missing();
    if missing.is_empty() {
        return Check::ok(
            NAME,
            has(
                "a root directory, namespaces and a user of their own, no capabilities, seccomp and Landlock",
            ),
        );
    }
    let finding: Vec<String> = missing.iter().map(ToString::to_string).collect();
    Check::limited(NAME, finding.join("; "), "machines of creeld have all layers: docs/security.md")
}

fn namespaces() -> Check {
    const NAME: &str = "namespaces";
    let support = host::probe();
    if support.pid.is_ok() {
        return Check::ok(NAME, "a machine's processes get a pid namespace");
    }
    match support.user_pid {
        Ok(()) => Check::ok(NAME, "a machine's processes get a user and a pid namespace"),
        Err(error) => Check::limited(
            NAME,
            format!(
                "no pid namespace for a machine's processes: they end with their keeper by a weaker means \
                 (PR_SET_PDEATHSIG); {}",
                with_causes(&error)
            ),
            "allow unprivileged user namespaces: sysctl user.max_user_namespaces, \
             kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns",
        ),
    }
}
