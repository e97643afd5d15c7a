//! The table of keys: what may stand in the file and in the environment, what it means, how it is read and shown.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::settings::Config;

/// One key. All values are TOML strings so far.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub section: &'static str,
    pub name: &'static str,
    /// One sentence for `--print-config` and the documentation.
    pub meaning: &'static str,
    /// What a value is, with an example.
    pub expects: &'static str,
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    /// None: not set, and there is no one default.
    pub(super) show: fn(&Config) -> Option<String>,
}

/// Every key, sections together, in the order of `--print-config`.
pub static KEYS: &[Key] = &[
    Key {
        section: "machine",
        name: "accel",
        meaning: "How guests run: `auto` takes KVM if a trial boot proves it, else TCG.",
        expects: "\"auto\", \"kvm\" or \"tcg\"",
        set: |config, text| read(text, &mut config.machine.accel),
        show: |config| show(&config.machine.accel),
    },
    Key {
        section: "machine",
        name: "transport",
        meaning: "How guests reach creel: `hybrid` by unix sockets and a helper, `kernel` by vhost-vsock.",
        expects: "\"hybrid\" or \"kernel\"",
        set: |config, text| read(text, &mut config.machine.transport),
        show: |config| show(&config.machine.transport),
    },
    Key {
        section: "machine",
        name: "agent_timeout",
        meaning: "From the start of a machine to the first word of its agent.",
        expects: DURATION,
        set: |config, text| read(text, &mut config.machine.agent_timeout),
        show: |config| show(&config.machine.agent_timeout),
    },
    Key {
        section: "machine",
        name: "shutdown_timeout",
        meaning: "From the request to power off to the end by force.",
        expects: DURATION,
        set: |config, text| read(text, &mut config.machine.shutdown_timeout),
        show: |config| show(&config.machine.shutdown_timeout),
    },
    Key {
        section: "images",
        name: "dir",
        meaning: "Where images are built, and looked for before /var/lib/creel/images and /usr/lib/creel/images.",
        expects: DIRECTORY,
        set: |config, text| read_path(text, &mut config.directories.images),
        show: |config| config.places.images.first().map(show_path),
    },
    Key {
        section: "images",
        name: "default",
        meaning: "The image of a workflow that names none.",
        expects: "the name of an image, such as \"tiny\"",
        set: |config, text| match text {
            "" => Err("an image has a name".to_owned()),
            name => read(name, &mut config.images.default),
        },
        show: |config| show(&config.images.default),
    },
    Key {
        section: "engine",
        name: "workflow_timeout",
        meaning: "How long a workflow may take when `--timeout` says nothing.",
        expects: DURATION,
        set: |config, text| read(text, &mut config.engine.workflow_timeout),
        show: |config| show(&config.engine.workflow_timeout),
    },
    Key {
        section: "logs",
        name: "max_step",
        meaning: "How much of a step's output is kept: half of it the first, half the last.",
        expects: "a size such as \"64MiB\"",
        set: |config, text| read(text, &mut config.logs.max_step),
        show: |config| show(&config.logs.max_step),
    },
    Key {
        section: "kit",
        name: "dir",
        meaning: "Kernel, agent and helpers, looked for here before /var/lib/creel/kit and /usr/lib/creel/kit.",
        expects: DIRECTORY,
        set: |config, text| read_path(text, &mut config.directories.kit),
        show: |config| config.places.kit.first().map(show_path),
    },
    Key {
        section: "run",
        name: "dir",
        meaning: "Sockets and machines' directories; sockets need it short.",
        expects: DIRECTORY,
        set: |config, text| read_path(text, &mut config.directories.run),
        show: |config| Some(show_path(&config.places.run)),
    },
    Key {
        section: "state",
        name: "dir",
        meaning: "Images, records and logs.",
        expects: DIRECTORY,
        set: |config, text| read_path(text, &mut config.directories.state),
        show: |config| Some(show_path(&config.places.state)),
    },
    Key {
        section: "cache",
        name: "dir",
        meaning: "What can be made again.",
        expects: DIRECTORY,
        set: |config, text| read_path(text, &mut config.directories.cache),
        show: |config| Some(show_path(&config.places.cache)),
    },
    Key {
        section: "qemu",
        name: "path",
        meaning: "The QEMU program; if it is not set, `qemu-system-<architecture>` is looked for on PATH.",
        expects: "an absolute path such as \"/usr/bin/qemu-system-x86_64\"",
        set: |config, text| read_path(text, &mut config.qemu.path),
        show: |config| config.qemu.path.as_ref().map(show_path),
    },
];

const DURATION: &str = "a duration such as \"90s\" or \"1h30m\"";
const DIRECTORY: &str = "an absolute path such as \"/srv/creel\"";

impl Key {
    /// Its name in the environment: `CREEL_MACHINE__ACCEL`.
    pub fn variable(&self) -> String {
        format!("CREEL_{}__{}", self.section.to_uppercase(), self.name.to_uppercase())
    }
}

impl Config {
    /// The configuration in force, as a file that says the same.
    pub fn render_toml(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for key in KEYS {
            if key.section != section {
                section = key.section;
                text += &format!("{}[{section}]\n", if text.is_empty() { "" } else { "\n" });
            }
            text += &format!("# {}\n", key.meaning);
            text += &match (key.show)(self) {
                Some(value) => format!("{} = {}\n", key.name, toml::Value::String(value)),
                None => format!("# {} is not set\n", key.name),
            };
        }
        text
    }
}

fn read<T: FromStr<Err: Display>>(text: &str, into: &mut T) -> Result<(), String> {
    *into = text.parse().map_err(|error: T::Err| error.to_string())?;
    Ok(())
}

fn read_path(text: &str, into: &mut Option<PathBuf>) -> Result<(), String> {
    if !Path::new(text).is_absolute() {
        return Err(format!("`{text}` is not an absolute path"));
    }
    *into = Some(text.into());
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "the type of `Key::show`")]
fn show(value: &impl Display) -> Option<String> {
    Some(value.to_string())
}

fn show_path(path: impl AsRef<Path>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}
