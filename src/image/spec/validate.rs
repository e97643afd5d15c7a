//! The rules of a `spec.json`, field by field.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::fields::{Fields, Findings};
use super::{
    Arch, Checked, DiskFormat, ImageSpec, NetworkInterface, NetworkKind, Problem, RunnerConfig, RunnerType,
    VirtioTransport, VolumeFilesystem, VolumeSpec,
};

/// Upstream's specs are 2 KiB; whoever exceeds this names the wrong file, perhaps a disk.
const MAX_SPEC_BYTES: u64 = 1 << 20;
/// The most QEMU's x86 machines take; beyond it a number is a slip of the keyboard.
const MAX_MEMORY_MIB: u64 = 4 << 20;
const MAX_VCPUS: u64 = 1024;
/// ext4's own limit with 4 KiB blocks: 16 TiB.
const MAX_VOLUME_MIB: u64 = 16 << 20;
/// Letters and digits without `e o u t`, the alphabet of a Nix store path's hash.
const NIX_BASE32: &str = "0123456789abcdfghijklmnpqrsvwxyz";

/// Reads the file, or says in one problem why it can't be.
pub(super) fn read_bounded(file: &Path) -> Result<Vec<u8>, Problem> {
    let whole =
        |what: String, remedy: &str| Problem { field: String::new(), what, remedy: remedy.to_owned() };
    let mut text = Vec::new();
    File::open(file)
        .and_then(|open| open.take(MAX_SPEC_BYTES + 1).read_to_end(&mut text))
        .map_err(|error| whole(format!("can't be read ({error})"), remedy_for(&error)))?;
    if text.len() as u64 > MAX_SPEC_BYTES {
        return Err(whole("is larger than 1 MiB".to_owned(), "name a spec.json, not a disk"));
    }
    Ok(text)
}

/// Fails outright only if the text isn't a JSON object; else returns what could be read and every problem in it.
pub(super) fn parse(text: &[u8], base: &Path) -> Result<(Checked, Vec<Problem>), Vec<Problem>> {
    let whole =
        |what: String, remedy: &str| vec![Problem { field: String::new(), what, remedy: remedy.to_owned() }];
    let value: Value = serde_json::from_slice(text)
        .map_err(|error| whole(format!("isn't JSON ({error})"), "correct the syntax there"))?;
    let Value::Object(object) = value else {
        return Err(whole("isn't a JSON object".to_owned(), "write the fields in braces"));
    };
    let mut findings = Findings::default();
    let mut top = Fields::new(&object, String::new());
    let spec = image_spec(&mut top, &mut findings, base);
    top.finish(&mut findings);
    Ok((Checked { spec, warnings: findings.warnings }, findings.problems))
}

fn image_spec(top: &mut Fields<'_>, findings: &mut Findings, base: &Path) -> ImageSpec {
    let arch = arch(top, findings);
    let boot_args = top.required(findings, "bootArgs", "`console=hvc0 reboot=t panic=-1`");
    let kernel = file_path(top, findings, base, "kernel", "`vmlinux`");
    let initrd = file_path(top, findings, base, "initrd", "`initrd`");
    let store_disk = file_path(top, findings, base, "storeDisk", "`store.erofs`");
    let store_disk_type = top.string(findings, "storeDiskType");
    if !matches!(store_disk_type.as_str(), "" | "erofs" | "squashfs") {
        findings.warnings.push(format!("`storeDiskType` is `{store_disk_type}`, neither erofs nor squashfs"));
    }
    let runner_type = runner_type(top, findings);
    let runner_config = runner_config(top, findings);
    let memory_mib = narrow(top.count(findings, "memoryMiB", MAX_MEMORY_MIB));
    let vcpus = narrow(top.count(findings, "vcpus", MAX_VCPUS));
    let network_interfaces = network_interfaces(top, findings);
    let volumes = volumes(top, findings);
    let shell = top.required(findings, "shell", "`/bin/sh`");
    if !shell.is_empty() && !shell.starts_with('/') {
        findings.problem(
            "shell",
            format!("is `{shell}`, not an absolute path"),
            "write it from the root: `/bin/sh`",
        );
    }
    let base_config_hash = base_config_hash(top, findings);
    ImageSpec {
        arch,
        boot_args,
        kernel,
        initrd,
        store_disk,
        store_disk_type,
        runner_type,
        runner_config,
        memory_mib,
        vcpus,
        network_interfaces,
        volumes,
        shell,
        base_config_hash,
    }
}

fn arch(top: &mut Fields<'_>, findings: &mut Findings) -> Arch {
    let name = top.required(findings, "arch", "`x86_64`");
    Arch::from_name(&name).unwrap_or_else(|| {
        if !name.is_empty() {
            findings.problem("arch", format!("is `{name}`"), "use `x86_64` or `aarch64`");
        }
        Arch::X86_64
    })
}

fn file_path(
    top: &mut Fields<'_>,
    findings: &mut Findings,
    base: &Path,
    name: &'static str,
    example: &str,
) -> PathBuf {
    let text = top.required(findings, name, example);
    if text.contains('\0') {
        findings.problem(name, "contains a NUL byte", "correct the path");
    }
    base.join(text)
}

fn runner_type(top: &mut Fields<'_>, findings: &mut Findings) -> RunnerType {
    match top.string(findings, "runnerType").as_str() {
        "" | "qemu" => {}
        "firecracker" => {
            findings.problem("runnerType", "is `firecracker`, which is not implemented yet", "use `qemu`");
        }
        other => findings.problem("runnerType", format!("is `{other}`"), "use `qemu`, or leave it out"),
    }
    RunnerType::Qemu
}

fn runner_config(top: &mut Fields<'_>, findings: &mut Findings) -> RunnerConfig {
    const MACHINE: &str = "`microvm,acpi=on`";
    let empty = serde_json::Map::new();
    let before = findings.problems.len();
    let object = top.object(findings, "runnerConfig");
    let mut fields = Fields::new(object.unwrap_or(&empty), "runnerConfig.".to_owned());
    let machine = if object.is_none() && findings.problems.len() > before {
        String::new()
    } else {
        fields.required(findings, "machine", MACHINE)
    };
    let config = RunnerConfig {
        cpu: fields.string(findings, "cpu"),
        machine,
        console: fields.string(findings, "console"),
        extra_args: fields.strings(findings, "extraArgs"),
        virtio_transport: match fields.string(findings, "virtioTransport").as_str() {
            "" | "mmio" | "device" => VirtioTransport::Mmio,
            "pci" => VirtioTransport::Pci,
            other => {
                let path = fields.path("virtioTransport");
                findings.problem(&path, format!("is `{other}`"), "use `mmio` or `pci`");
                VirtioTransport::Mmio
            }
        },
    };
    fields.finish(findings);
    config
}

fn network_interfaces(top: &mut Fields<'_>, findings: &mut Findings) -> Vec<NetworkInterface> {
    let mut found = Vec::new();
    for mut fields in top.objects(findings, "networkInterfaces") {
        let kind = fields.required(findings, "type", "`slirp4netns`");
        if !matches!(kind.as_str(), "" | "slirp4netns") {
            findings.problem(
                &fields.path("type"),
                format!("is `{kind}`"),
                "use `slirp4netns`, the only type there is",
            );
        }
        let id = fields.required(findings, "id", "`net0`");
        let mac = fields.required(findings, "mac", "`02:00:00:00:10:01`");
        if !mac.is_empty() && !is_unicast_mac(&mac) {
            let what = format!("is `{mac}`, not the address of one interface");
            findings.problem(&fields.path("mac"), what, "write six pairs of hex digits: `02:00:00:00:10:01`");
        }
        fields.finish(findings);
        found.push(NetworkInterface { kind: NetworkKind::Slirp4netns, id, mac });
    }
    found
}

fn volumes(top: &mut Fields<'_>, findings: &mut Findings) -> Vec<VolumeSpec> {
    let mut found: Vec<VolumeSpec> = Vec::new();
    let mut mount_points = BTreeSet::new();
    for mut fields in top.objects(findings, "volumes") {
        let fs_type = fields.required(findings, "fsType", "`ext4`");
        if !matches!(fs_type.as_str(), "" | "ext4") {
            findings.problem(
                &fields.path("fsType"),
                format!("is `{fs_type}`"),
                "use `ext4`, the only one supported",
            );
        }
        let image_type = fields.string(findings, "imageType");
        if !matches!(image_type.as_str(), "" | "raw") {
            findings.problem(
                &fields.path("imageType"),
                format!("is `{image_type}`"),
                "use `raw`, or leave it out",
            );
        }
        let read_only = fields.boolean(findings, "readOnly");
        if read_only {
            findings.problem(&fields.path("readOnly"), "is true", "set it to false: volumes start out empty");
        }
        let image = fields.required(findings, "image", "`workspace.img`");
        let mount_point = fields.required(findings, "mountPoint", "`/workspace`");
        if !mount_point.is_empty() && !is_plain_absolute(&mount_point) {
            let what = format!("is `{mount_point}`, not a plain absolute path");
            findings.problem(&fields.path("mountPoint"), what, "write it from the root: `/workspace`");
        } else if !mount_point.is_empty() && !mount_points.insert(mount_point.clone()) {
            let what = format!("is `{mount_point}`, as in a volume before it");
            findings.problem(&fields.path("mountPoint"), what, "mount each volume at a place of its own");
        }
        let size_mib = fields.count(findings, "sizeMiB", MAX_VOLUME_MIB);
        fields.finish(findings);
        found.push(VolumeSpec {
            fs_type: VolumeFilesystem::Ext4,
            image,
            image_type: DiskFormat::Raw,
            mount_point,
            read_only,
            size_mib,
        });
    }
    found
}

fn base_config_hash(top: &mut Fields<'_>, findings: &mut Findings) -> Option<String> {
    let hash = top.string(findings, "baseConfigHash");
    if hash.is_empty() {
        return None;
    }
    if hash.len() != 32 || !hash.chars().all(|c| NIX_BASE32.contains(c)) {
        let what = format!("is `{hash}`, not 32 characters of Nix's base 32");
        findings.problem("baseConfigHash", what, "copy the hash part of `system.build.toplevel.outPath`");
    }
    Some(hash)
}

/// Whether the files a machine is started from exist and are files.
pub(super) fn missing_files(spec: &ImageSpec) -> Vec<Problem> {
    let named = [("kernel", &spec.kernel), ("initrd", &spec.initrd), ("storeDisk", &spec.store_disk)];
    named.into_iter().filter_map(|(field, path)| missing_file(field, path)).collect()
}

fn missing_file(field: &str, path: &Path) -> Option<Problem> {
    let shown = path.display();
    let (what, remedy) = match path.metadata() {
        Ok(found) if found.is_dir() => (format!("names {shown}, which is a directory"), "name a file"),
        Ok(_) => return None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            (format!("names {shown}, which does not exist"), "build the image again or correct the path")
        }
        Err(error) => (format!("names {shown}, which can't be reached ({error})"), remedy_for(&error)),
    };
    Some(Problem { field: field.to_owned(), what, remedy: remedy.to_owned() })
}

fn remedy_for(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "allow creel's user to read it",
        io::ErrorKind::NotFound => "build the image again or correct the path",
        _ => "check the path and its file system",
    }
}

fn is_unicast_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let all_hex = parts.iter().all(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()));
    // The lowest bit of the first octet marks a group address (IEEE 802).
    let group = |part: &str| u8::from_str_radix(part, 16).is_ok_and(|octet| octet & 1 == 1);
    parts.len() == 6 && all_hex && !group(parts[0])
}

fn is_plain_absolute(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    parts.next() == Some(Component::RootDir)
        && parts.all(|part| matches!(part, Component::Normal(_)))
        && path != "/"
        && !path.contains(|c: char| c.is_control() || c.is_whitespace() || c == ',' || c == ':')
}

/// The callers' bounds lie far below `u32::MAX`.
fn narrow(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
