//! The holder as systemd starts it: the real binary, in a cgroup of its own, with the controllers that it really wants.

#[path = "fixture/cgroup.rs"]
mod cgroup;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Stdio};
use std::time::Duration;

use cgroup::{Cgroup, cgroup_of};

#[test]
fn it_holds_where_the_controllers_are_and_else_names_those_that_are_not() {
    let Some(cgroup) = Cgroup::for_test("binary") else { return };
    let name = format!("creel-test-notify-{}", std::process::id());
    let systemd =
        UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).expect("short")).expect("bound");
    systemd.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    let script = r#"echo 0 > "$UNIT/cgroup.procs" && exec "$KEEPER" --hold"#;
    let holder = Command::new("/bin/sh")
        .args(["-c", script])
        .env("UNIT", cgroup.path())
        .env("KEEPER", env!("CARGO_BIN_EXE_creel-keeper"))
        .env("NOTIFY_SOCKET", format!("@{name}"))
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut told = [0; 4096];
    let bytes = systemd.recv(&mut told).expect("systemd is told in time");
    let told = String::from_utf8_lossy(&told[..bytes]).into_owned();

    let there = cgroup.read("cgroup.controllers");
    let wanted = ["cpu", "memory", "io", "pids"];
    let missing: Vec<&str> =
        wanted.into_iter().filter(|name| there.split_whitespace().all(|other| other != *name)).collect();
    if missing.is_empty() || missing == ["io"] {
        assert!(told.starts_with("READY=1\nSTATUS=holding the machines' cgroup, with cpu, memory"), "{told}");
        assert_eq!(cgroup_of(holder.id()), cgroup.line_of("keep"));
        let pid = rustix::process::Pid::from_child(&holder);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it lives");
        assert_eq!(holder.wait_with_output().expect("it ends").status.code(), Some(0));
    } else {
        let expected = format!(
            "the cgroup `{}` has no controller {}: creel-machines.service needs Delegate=yes and a host that boots \
             with cgroup v2 alone (kernel argument `systemd.unified_cgroup_hierarchy=1`)",
            cgroup.path().display(),
            missing.join(", ")
        );
        assert_eq!(told, format!("STATUS={expected}"));
        let output = holder.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("creel-keeper: {expected}\n"));
        assert!(!cgroup.path().join("keep").exists(), "a unit that can't be held is left as it was");
    }
}
