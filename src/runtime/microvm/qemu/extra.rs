//! `runnerConfig.extraArgs`: the few additions to QEMU's arguments that an image may ask for.
//!
//! An argument list can do anything that QEMU can, opening host files and networks included, so it is matched as a
//! whole against what is known to be harmless, and refused by name otherwise.

use thiserror::Error;

/// Devices without a backend: they open nothing on the host and hold no state that outlives the machine. Each comes
/// with the properties that an image may set on it.
const DEVICES: &[(&str, &[&str])] = &[
    // Resets the machine when a kernel without `reboot=t` wants to; upstream's images ask for it.
    ("i8042", &[]),
    // Give memory back to the host, only ever the guest's own.
    ("virtio-balloon-device", BALLOON),
    ("virtio-balloon-pci", BALLOON),
];

const BALLOON: &[&str] =
    &["deflate-on-oom=on", "deflate-on-oom=off", "free-page-reporting=on", "free-page-reporting=off"];

/// What creel adds in any case; asking for it is no mistake, and adds nothing.
const GIVEN_FLAGS: &[&str] = &["-nodefaults", "-no-user-config", "-no-reboot", "-nographic"];
const GIVEN_DEVICES: &[&str] = &["pvpanic", "pvpanic-pci", "virtio-rng-device", "virtio-rng-pci"];

/// Why the options that people do try are refused. The rest gets a general sentence.
const REASONS: &[(&[&str], &str)] = &[
    (
        &["netdev", "nic", "net"],
        "creel owns the network and never uses QEMU's, which is an open path into yours",
    ),
    (
        &["drive", "blockdev", "hda", "hdb", "cdrom", "snapshot", "add-fd", "pflash", "sd", "mtdblock"],
        "disks come from `storeDisk` and `volumes`",
    ),
    (
        &["chardev", "serial", "console", "parallel"],
        "the console is creel's; choose it with `runnerConfig.console`",
    ),
    (&["monitor", "mon", "qmp", "qmp-pretty", "qtest", "gdb", "s", "S"], "control of the machine is creel's"),
    (&["fsdev", "virtfs"], "it would show host directories to the guest"),
    (&["cpu"], "use `runnerConfig.cpu`"),
    (&["machine", "M"], "use `runnerConfig.machine`"),
    (&["m"], "use `memoryMiB`"),
    (&["smp"], "use `vcpus`"),
    (&["append"], "use `bootArgs`"),
    (&["kernel", "initrd", "dtb", "bios"], "the boot files are `kernel` and `initrd`"),
    (&["enable-kvm", "accel"], "creel chooses the acceleration; see `machine.accel`"),
    (&["sandbox", "runas", "chroot", "daemonize"], "the jail is creel's"),
    (&["object"], "objects can open host files"),
];

/// An argument that an image may not add.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExtraArgError {
    #[error("extra argument `{argument}` is not allowed: {reason}; remove it from `runnerConfig.extraArgs`")]
    Option { argument: String, reason: &'static str },
    #[error("extra argument `-device` needs a device after it")]
    DeviceMissing,
    #[error(
        "extra device `{device}` is not allowed: creel does not know it to be harmless; remove it from \
         `runnerConfig.extraArgs`"
    )]
    Device { device: String },
    #[error("extra device `{device}` can't be given `{property}`: remove it from `runnerConfig.extraArgs`")]
    Property { device: String, property: String },
}

/// The arguments to add, in the tables' own words.
///
/// # Errors
/// The first argument that is not allowed, by name.
pub fn allowed(extra: &[String]) -> Result<Vec<String>, ExtraArgError> {
    let mut arguments = Vec::new();
    let mut items = extra.iter().map(String::as_str);
    while let Some(item) = items.next() {
        if item == "-device" || item == "--device" {
            let device = items.next().ok_or(ExtraArgError::DeviceMissing)?;
            if let Some(device) = checked_device(device)? {
                arguments.extend(["-device".to_owned(), device]);
            }
        } else if !GIVEN_FLAGS.contains(&item) {
            return Err(ExtraArgError::Option { argument: item.to_owned(), reason: reason(item) });
        }
    }
    Ok(arguments)
}

/// `None` for a device that is there anyway.
fn checked_device(text: &str) -> Result<Option<String>, ExtraArgError> {
    let mut parts = text.split(',');
    let name = parts.next().unwrap_or_default();
    if GIVEN_DEVICES.contains(&name) && parts.next().is_none() {
        return Ok(None);
    }
    let Some((known, properties)) = DEVICES.iter().find(|(device, _)| *device == name) else {
        return Err(ExtraArgError::Device { device: text.to_owned() });
    };
    let mut device = (*known).to_owned();
    for part in text.split(',').skip(1) {
        let Some(property) = properties.iter().find(|property| **property == part) else {
            return Err(ExtraArgError::Property { device: name.to_owned(), property: part.to_owned() });
        };
        device.push(',');
        device.push_str(property);
    }
    Ok(Some(device))
}

fn reason(argument: &str) -> &'static str {
    let option = argument.trim_start_matches('-');
    let known = REASONS.iter().find(|(options, _)| options.contains(&option));
    known.map_or("creel does not know it to be harmless", |(_, reason)| reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(arguments: &[&str]) -> Result<Vec<String>, ExtraArgError> {
        allowed(&arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn upstream_s_extra_arguments_pass() {
        assert_eq!(check(&["-device", "i8042"]).expect("allowed"), ["-device", "i8042"]);
        let balloon = "virtio-balloon-device,free-page-reporting=on,deflate-on-oom=on";
        assert_eq!(check(&["-device", balloon]).expect("allowed"), ["-device", balloon]);
    }

    #[test]
    fn what_is_there_anyway_adds_nothing() {
        assert!(check(&["-no-reboot", "-device", "virtio-rng-device"]).expect("allowed").is_empty());
    }

    #[test]
    fn refusals_name_the_argument_and_the_reason() {
        let error = |arguments: &[&str]| check(arguments).expect_err("refused").to_string();
        insta::assert_snapshot!(error(&["-netdev", "user,id=n"]), @"extra argument `-netdev` is not allowed: creel owns the network and never uses QEMU's, which is an open path into yours; remove it from `runnerConfig.extraArgs`");
        insta::assert_snapshot!(error(&["-fw_cfg", "x"]), @"extra argument `-fw_cfg` is not allowed: creel does not know it to be harmless; remove it from `runnerConfig.extraArgs`");
        insta::assert_snapshot!(error(&["-device", "vfio-pci,host=1"]), @"extra device `vfio-pci,host=1` is not allowed: creel does not know it to be harmless; remove it from `runnerConfig.extraArgs`");
        insta::assert_snapshot!(error(&["-device", "i8042,id=x"]), @"extra device `i8042` can't be given `id=x`: remove it from `runnerConfig.extraArgs`");
        insta::assert_snapshot!(error(&["-device"]), @"extra argument `-device` needs a device after it");
    }

    proptest! {
        #[test]
        fn what_passes_is_made_of_known_devices(arguments in proptest::collection::vec("(-device|i8042|-[a-z]{1,8}|[ -~]{0,12})", 0..5)) {
            if let Ok(passed) = allowed(&arguments) {
                for pair in passed.chunks(2) {
                    prop_assert_eq!(pair[0].as_str(), "-device");
                    prop_assert!(DEVICES.iter().any(|(device, _)| pair[1].split(',').next() == Some(device)));
                }
            }
        }
    }
}
