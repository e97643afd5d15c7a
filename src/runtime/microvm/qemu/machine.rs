//! `runnerConfig.machine`: QEMU's machine string as an image states it, cut down to what an image may decide.
//!
//! Upstream's images say `microvm,accel=kvm:tcg,acpi=on,mem-merge=on,pcie=off,pic=off,pit=off,rtc=on,usb=off`. Of that
//!
//! - `accel`, `mem-merge`, `dump-guest-core` and `memory-backend` are creel's: the acceleration is proven, not guessed;
//!   merged pages are a side channel between tenants; the memory backend depends on the vsock transport;
//! - `pic`, `pit` and `rtc` are kept under KVM and dropped under TCG, which has no TSC-deadline timer: with
//!   `pic=off,pit=off` a guest hangs there before its first line (measured with QEMU 7.2);
//! - the rest of the list below is kept as it is, and all else refused by name: machine options can name files
//!   (`firmware`, `kernel`, `dtb`, `dumpdtb`), and an option that nobody here knows may do so tomorrow.
//!
//! Machine types: `microvm` on x86-64 and `virt` on aarch64. Not `q35`: its firmware, SMM, AHCI and PCI bridges are
//! attack surface that no image of this field needs; `microvm` has PCI, too (`pcie=on`).

use thiserror::Error;

use crate::image::Arch;
use crate::runtime::microvm::qemu::accel::Accel;

/// A machine type that creel boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineType {
    /// x86-64, virtio-mmio, no firmware to speak of.
    Microvm,
    /// aarch64's board for virtual machines.
    Virt,
}

impl MachineType {
    fn of(arch: Arch) -> Self {
        match arch {
            Arch::X86_64 => Self::Microvm,
            Arch::Aarch64 => Self::Virt,
        }
    }

    /// QEMU's name for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Microvm => "microvm",
            Self::Virt => "virt",
        }
    }

    fn options(self) -> &'static [(&'static str, Rule)] {
        match self {
            Self::Microvm => MICROVM,
            Self::Virt => VIRT,
        }
    }
}

/// What happens to an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Kept, if its value is one of these.
    Keep(&'static [&'static str]),
    /// Kept under KVM only.
    KvmOnly(&'static [&'static str]),
    /// Dropped: creel decides, whatever was asked for.
    Owned,
}

const ON_OFF: &[&str] = &["on", "off"];
const ON_OFF_AUTO: &[&str] = &["on", "off", "auto"];
/// Things an image may rule out but not ask for.
const OFF: &[&str] = &["off"];

const MICROVM: &[(&str, Rule)] = &[
    ("accel", Rule::Owned),
    ("dump-guest-core", Rule::Owned),
    ("mem-merge", Rule::Owned),
    ("memory-backend", Rule::Owned),
    ("pic", Rule::KvmOnly(ON_OFF_AUTO)),
    ("pit", Rule::KvmOnly(ON_OFF_AUTO)),
    ("rtc", Rule::KvmOnly(ON_OFF_AUTO)),
    ("acpi", Rule::Keep(ON_OFF_AUTO)),
    ("auto-kernel-cmdline", Rule::Keep(ON_OFF)),
    ("ioapic2", Rule::Keep(ON_OFF_AUTO)),
    ("isa-serial", Rule::Keep(ON_OFF)),
    ("pcie", Rule::Keep(ON_OFF_AUTO)),
    ("x-option-roms", Rule::Keep(ON_OFF)),
    ("graphics", Rule::Keep(OFF)),
    ("smm", Rule::Keep(OFF)),
    ("usb", Rule::Keep(OFF)),
];

const VIRT: &[(&str, Rule)] = &[
    ("accel", Rule::Owned),
    ("dump-guest-core", Rule::Owned),
    ("mem-merge", Rule::Owned),
    ("memory-backend", Rule::Owned),
    // `host` and `max` follow the accelerator; TCG has no `host`, and emulates the newest by itself.
    ("gic-version", Rule::KvmOnly(&["2", "3", "4", "host", "max"])),
    ("acpi", Rule::Keep(ON_OFF_AUTO)),
    ("compact-highmem", Rule::Keep(ON_OFF)),
    ("highmem", Rule::Keep(ON_OFF)),
    ("its", Rule::Keep(ON_OFF)),
    ("msi", Rule::Keep(&["off", "auto"])),
    ("graphics", Rule::Keep(OFF)),
    ("secure", Rule::Keep(OFF)),
    ("usb", Rule::Keep(OFF)),
    ("virtualization", Rule::Keep(OFF)),
];

/// Why a machine string is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MachineError {
    #[error("machine type `{found}` is not supported for {arch}: use `{expected}`")]
    Type { found: String, arch: Arch, expected: &'static str },
    #[error(
        "machine option `{option}` is not allowed: creel does not know it to be harmless; remove it from \
         `runnerConfig.machine` (allowed: {allowed})"
    )]
    Option { option: String, allowed: String },
    #[error("machine option `{option}` can't be `{value}`: allowed are {allowed}")]
    Value { option: String, value: String, allowed: String },
    #[error("machine option `{option}` is given twice")]
    Twice { option: String },
    #[error("`{item}` in the machine string is not of the form `option=value`")]
    Syntax { item: String },
}

/// A checked machine string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    kind: MachineType,
    /// In the image's order; owned options are gone.
    options: Vec<(&'static str, &'static str, Rule)>,
}

impl Machine {
    /// # Errors
    /// The first part that is not allowed, by name.
    pub fn parse(arch: Arch, text: &str) -> Result<Self, MachineError> {
        let kind = MachineType::of(arch);
        let mut items = text.split(',').map(str::trim);
        let name = items.next().unwrap_or_default();
        let name = name.strip_prefix("type=").unwrap_or(name);
        if name != kind.as_str() {
            return Err(MachineError::Type { found: name.to_owned(), arch, expected: kind.as_str() });
        }
        let mut seen: Vec<&str> = Vec::new();
        let mut options = Vec::new();
        for item in items {
            let Some((option, value)) = item.split_once('=') else {
                return Err(MachineError::Syntax { item: item.to_owned() });
            };
            if seen.contains(&option) {
                return Err(MachineError::Twice { option: option.to_owned() });
            }
            seen.push(option);
            options.extend(kind.checked(option, value)?);
        }
        Ok(Self { kind, options })
    }

    pub fn kind(&self) -> MachineType {
        self.kind
    }

    /// The machine has a PCI bus: `virt` always, `microvm` when asked (`auto` means no in QEMU).
    pub fn has_pci(&self) -> bool {
        self.kind == MachineType::Virt || self.value("pcie") == Some("on")
    }

    /// The machine has a UART that `-serial` can be connected to.
    pub fn has_serial(&self) -> bool {
        self.value("isa-serial") != Some("off")
    }

    /// How many virtio-mmio devices fit (QEMU: `hw/i386/microvm.c`, `hw/arm/virt.c`).
    pub fn mmio_slots(&self) -> usize {
        let one_ioapic = self.value("ioapic2") == Some("off") || self.value("acpi") == Some("off");
        match self.kind {
            MachineType::Microvm if one_ioapic => 8,
            MachineType::Microvm => 24,
            MachineType::Virt => 32,
        }
    }

    /// The value of `-machine`; the memory backend's id is the caller's.
    pub fn render(&self, accel: &Accel, memory_backend: &str) -> String {
        let mut text = self.kind.as_str().to_owned();
        for (option, value, rule) in &self.options {
            if matches!(rule, Rule::Keep(_)) || matches!(accel, Accel::Kvm) {
                text.push_str(&format!(",{option}={value}"));
            }
        }
        text.push_str(&format!(",mem-merge=off,dump-guest-core=off,memory-backend={memory_backend}"));
        text
    }

    fn value(&self, name: &str) -> Option<&'static str> {
        self.options.iter().find(|(option, ..)| *option == name).map(|(_, value, _)| *value)
    }
}

impl MachineType {
    /// The option and value in the table's own words, so that nothing of the image's text reaches QEMU; `None` for
    /// what creel owns.
    fn checked(
        self,
        option: &str,
        value: &str,
    ) -> Result<Option<(&'static str, &'static str, Rule)>, MachineError> {
        let Some((name, rule)) = self.options().iter().find(|(name, _)| *name == option) else {
            let allowed = listed(self.options().iter().map(|(name, _)| *name));
            return Err(MachineError::Option { option: option.to_owned(), allowed });
        };
        let values = match rule {
            Rule::Owned => return Ok(None),
            Rule::Keep(values) | Rule::KvmOnly(values) => values,
        };
        match values.iter().find(|known| **known == value) {
            Some(known) => Ok(Some((name, known, *rule))),
            None => Err(MachineError::Value {
                option: option.to_owned(),
                value: value.to_owned(),
                allowed: listed(values.iter().copied()),
            }),
        }
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UPSTREAM_X86: &str =
        "microvm,accel=kvm:tcg,acpi=on,mem-merge=on,pcie=off,pic=off,pit=off,rtc=on,usb=off";
    const UPSTREAM_ARM: &str = "virt,accel=kvm:tcg,gic-version=max,its=off,msi=off,mem-merge=on";
    const TCG: Accel = Accel::Tcg { tsc_khz: None };

    fn rendered(arch: Arch, text: &str, accel: &Accel) -> String {
        Machine::parse(arch, text).expect("allowed").render(accel, "mem")
    }

    #[test]
    fn upstream_s_machine_under_kvm_loses_only_what_creel_owns() {
        assert_eq!(
            rendered(Arch::X86_64, UPSTREAM_X86, &Accel::Kvm),
            "microvm,acpi=on,pcie=off,pic=off,pit=off,rtc=on,usb=off,\
             mem-merge=off,dump-guest-core=off,memory-backend=mem"
        );
    }

    #[test]
    fn tcg_keeps_its_timers() {
        assert_eq!(
            rendered(Arch::X86_64, UPSTREAM_X86, &TCG),
            "microvm,acpi=on,pcie=off,usb=off,mem-merge=off,dump-guest-core=off,memory-backend=mem"
        );
        assert_eq!(
            rendered(Arch::Aarch64, UPSTREAM_ARM, &TCG),
            "virt,its=off,msi=off,mem-merge=off,dump-guest-core=off,memory-backend=mem"
        );
    }

    #[test]
    fn options_that_name_files_are_refused_by_name() {
        for option in
            ["firmware", "kernel", "initrd", "dtb", "dumpdtb", "append", "memory-encryption", "smp.cpus"]
        {
            let error =
                Machine::parse(Arch::X86_64, &format!("microvm,{option}=/etc/passwd")).expect_err("refused");
            assert!(
                matches!(&error, MachineError::Option { option: named, .. } if named == option),
                "{error}"
            );
        }
    }

    #[test]
    fn other_machines_values_and_forms_are_refused() {
        let error = |text| Machine::parse(Arch::X86_64, text).expect_err(text).to_string();
        assert_eq!(error("q35"), "machine type `q35` is not supported for x86_64: use `microvm`");
        assert_eq!(error("virt"), "machine type `virt` is not supported for x86_64: use `microvm`");
        assert_eq!(error("microvm,usb=on"), "machine option `usb` can't be `on`: allowed are `off`");
        assert_eq!(error("microvm,acpi=on,acpi=off"), "machine option `acpi` is given twice");
        assert_eq!(error("microvm,acpi"), "`acpi` in the machine string is not of the form `option=value`");
    }

    #[test]
    fn what_the_machine_has_is_read_from_it() {
        let machine = |text| Machine::parse(Arch::X86_64, text).expect(text);
        assert!(!machine("microvm").has_pci());
        assert!(machine("type=microvm,pcie=on").has_pci());
        assert!(!machine("microvm,isa-serial=off").has_serial());
        assert_eq!(machine("microvm").mmio_slots(), 24);
        assert_eq!(machine("microvm,ioapic2=off").mmio_slots(), 8);
    }

    proptest! {
        /// Whatever an image writes, QEMU is given words from this file only.
        #[test]
        fn nothing_foreign_reaches_qemu(text in "(microvm|virt)(,[a-z0-9-]{1,8}=[ -~]{0,8}){0,4}") {
            for arch in [Arch::X86_64, Arch::Aarch64] {
                if let Ok(machine) = Machine::parse(arch, &text) {
                    for item in machine.render(&Accel::Kvm, "mem").split(',').skip(1) {
                        let (option, value) = item.split_once('=').expect("option=value");
                        prop_assert!(machine.kind().options().iter().any(|(name, _)| *name == option));
                        prop_assert!(value.chars().all(|c| c.is_ascii_alphanumeric()));
                    }
                }
            }
        }
    }
}
