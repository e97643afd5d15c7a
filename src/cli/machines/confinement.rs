//! `creel inspect --jail`: what confines a machine's processes.
//!
//! This process asks the kernel by itself. What creeld asked for is no answer, and creeld has no right to look.

use serde_json::{Value, json};

use crate::cli::failure::Failure;
use crate::host::confinement::{Confinement, Descriptor, Limit, Mount, Namespace, capability_names};
use crate::runtime::HostProcess;
use crate::text::one_line;

/// Of a text that somebody else wrote.
const MAX_TEXT_CHARS: usize = 300;

/// Those of them that still live.
pub(super) fn of_processes(processes: &[HostProcess]) -> Result<Vec<Confinement>, Failure> {
    let look = |process: &HostProcess| match Confinement::of(process.pid) {
        Ok(found) => Ok(found),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(Failure::host(format!(
            "may not look at process {} ({}): {error}; a machine of creeld is root's to look at: `sudo creel inspect --jail`",
            process.pid, process.name
        ))),
        Err(error) => Err(Failure::host(error)),
    };
    processes.iter().filter_map(|process| look(process).transpose()).collect()
}

pub(super) fn lines(confinement: &Confinement) -> Vec<String> {
    let heading = format!("{} {}", confinement.pid, confinement.name);
    let facts = [
        ("user", user(confinement)),
        ("capabilities", capabilities(confinement)),
        ("system calls", filters(confinement.seccomp_filters)),
        ("namespaces", namespaces(&confinement.namespaces)),
        ("root", mounts(&confinement.mounts)),
        ("Landlock", "not to be read: the kernel tells no process's".to_owned()),
        ("limits", limits(&confinement.limits)),
        ("cgroup", confinement.cgroup.clone().unwrap_or_else(|| "none".to_owned())),
        ("label", confinement.label.clone().unwrap_or_else(|| "none".to_owned())),
        (
            "environment",
            match confinement.environment_bytes {
                0 => "empty".to_owned(),
                bytes => format!("{bytes} bytes"),
            },
        ),
    ];
    let open = confinement.descriptors.iter().map(|open| ("descriptor", descriptor(open)));
    let indented = facts
        .into_iter()
        .chain(open)
        .map(|(key, text)| format!("  {key:<14}{}", one_line(&text, MAX_TEXT_CHARS)));
    std::iter::once(one_line(&heading, MAX_TEXT_CHARS)).chain(indented).collect()
}

fn user(confinement: &Confinement) -> String {
    let one = |ids: &[u32; 4]| match ids {
        [real, rest @ ..] if rest.iter().all(|id| id == real) => real.to_string(),
        ids => format!("{ids:?} (real, effective, saved, file system's)"),
    };
    let groups: Vec<String> = confinement.groups.iter().map(u32::to_string).collect();
    let groups =
        if groups.is_empty() { "no others".to_owned() } else { format!("also {}", groups.join(", ")) };
    format!("{}, group {}, {groups}", one(&confinement.uids), one(&confinement.gids))
}

fn capabilities(confinement: &Confinement) -> String {
    let sets = &confinement.capabilities;
    let names = |set| match capability_names(set).join(" ") {
        names if names.is_empty() => "none".to_owned(),
        names => names,
    };
    let had = sets.permitted | sets.effective | sets.inheritable | sets.ambient;
    let new = if confinement.no_new_privileges { "no new privileges" } else { "MAY GAIN PRIVILEGES" };
    format!("{}; bounded by {}; {new}", names(had), names(sets.bounding))
}

fn filters(filters: Option<u32>) -> String {
    match filters {
        Some(0) => "NOT FILTERED".to_owned(),
        Some(1) => "1 filter".to_owned(),
        Some(count) => format!("{count} filters"),
        None => "filtered".to_owned(),
    }
}

fn namespaces(namespaces: &[Namespace]) -> String {
    let of = |shared| {
        let kinds = namespaces.iter().filter(|namespace| namespace.shared == shared);
        kinds.map(|namespace| namespace.kind.as_str()).collect::<Vec<_>>().join(" ")
    };
    match (of(false), of(true)) {
        (own, shared) if own.is_empty() => format!("NONE OF ITS OWN; shared with this command: {shared}"),
        (own, shared) if shared.is_empty() => format!("{own} of its own"),
        (own, shared) => format!("{own} of its own; shared with this command: {shared}"),
    }
}

fn mounts(mounts: &[Mount]) -> String {
    let listed = |is: &dyn Fn(&Mount) -> bool| {
        let found: Vec<String> =
            mounts.iter().filter(|mount| is(mount)).map(|mount| mount.at.display().to_string()).collect();
        if found.is_empty() { "none".to_owned() } else { found.join(" ") }
    };
    format!(
        "{} mounts; to be written: {}; with devices: {}; with set-uid programs: {}",
        mounts.len(),
        listed(&|mount| !mount.read_only),
        listed(&|mount| mount.devices),
        listed(&|mount| mount.set_id),
    )
}

/// Those that bound what a process takes.
fn limits(limits: &[Limit]) -> String {
    let shown = ["core file size", "file size", "processes", "open files", "locked memory"];
    let of = |name: &&str| {
        let limit = limits.iter().find(|limit| limit.resource == *name)?;
        Some(format!("{name} {}", limit.hard.map_or_else(|| "unlimited".to_owned(), |hard| hard.to_string())))
    };
    shown.iter().filter_map(of).collect::<Vec<_>>().join(", ")
}

fn descriptor(open: &Descriptor) -> String {
    let kind = if open.directory { " (A DIRECTORY)" } else { "" };
    format!("{} {}{kind}", open.number, open.what.display())
}

pub(super) fn to_json(confinement: &Confinement) -> Value {
    let Confinement {
        pid,
        name,
        uids,
        gids,
        groups,
        capabilities,
        no_new_privileges,
        seccomp_filters,
        namespaces,
        mounts,
        limits,
        descriptors,
        environment_bytes,
        cgroup,
        label,
    } = confinement;
    let namespace = |found: &Namespace| {
        let Namespace { kind, inode, shared } = found;
        json!({ "kind": kind, "inode": inode, "shared": shared })
    };
    let mount = |found: &Mount| {
        let Mount { at, of, file_system, read_only, set_id, devices, execution } = found;
        json!({
            "at": at, "of": of, "file_system": file_system, "read_only": read_only, "set_id": set_id, "devices": devices,
            "execution": execution,
        })
    };
    let limit = |found: &Limit| {
        let Limit { resource, soft, hard } = found;
        json!({ "resource": resource, "soft": soft, "hard": hard })
    };
    let descriptor = |found: &Descriptor| {
        let Descriptor { number, what, directory } = found;
        json!({ "number": number, "what": what.display().to_string(), "directory": directory })
    };
    json!({
        "pid": pid,
        "name": name,
        "uids": uids,
        "gids": gids,
        "groups": groups,
        "capabilities": {
            "inheritable": capability_names(capabilities.inheritable),
            "permitted": capability_names(capabilities.permitted),
            "effective": capability_names(capabilities.effective),
            "bounding": capability_names(capabilities.bounding),
            "ambient": capability_names(capabilities.ambient),
        },
        "no_new_privileges": no_new_privileges,
        "seccomp_filters": seccomp_filters,
        "namespaces": namespaces.iter().map(namespace).collect::<Vec<_>>(),
        "mounts": mounts.iter().map(mount).collect::<Vec<_>>(),
        "limits": limits.iter().map(limit).collect::<Vec<_>>(),
        "descriptors": descriptors.iter().map(descriptor).collect::<Vec<_>>(),
        "environment_bytes": environment_bytes,
        "cgroup": cgroup,
        "label": label,
    })
}
