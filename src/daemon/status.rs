//! creeld's state in one line, as `systemctl status` shows it. Pure.

use std::fmt;

use super::runtime::Readiness;

/// Longer reasons are cut: the log has all of them.
const MAX_CHARS: usize = 300;

/// What the line is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub machines: usize,
    pub readiness: Readiness,
    /// How many mistakes kept a new configuration from being taken.
    pub bad_config: Option<usize>,
    pub stopping: bool,
}

impl Status {
    /// One line: a line break would begin another assignment of sd_notify(3).
    pub(super) fn line(&self) -> String {
        let text = self.to_string().replace(['\n', '\r'], " ");
        match text.char_indices().nth(MAX_CHARS) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.machines {
            0 => f.write_str("no machines")?,
            1 => f.write_str("1 machine")?,
            machines => write!(f, "{machines} machines")?,
        }
        if self.stopping {
            return f.write_str(if self.machines == 0 { "; stopping" } else { "; stopping, ending them" });
        }
        if let Some(problems) = self.bad_config {
            let s = if problems == 1 { "" } else { "s" };
            write!(
                f,
                "; the new configuration has {problems} problem{s} (see the log), the old one is in force"
            )?;
        }
        match &self.readiness {
            Readiness::Assembling => f.write_str("; finding out what this host can do"),
            Readiness::Ready { accel, transport } => write!(f, "; {accel}, {transport} transport"),
            Readiness::Cannot(why) => write!(f, "; CAN'T RUN MACHINES: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::microvm::Transport;

    fn status(machines: usize, readiness: Readiness) -> Status {
        Status { machines, readiness, bad_config: None, stopping: false }
    }

    fn ready() -> Readiness {
        Readiness::Ready { accel: "kvm".to_owned(), transport: Transport::Kernel }
    }

    #[test]
    fn the_line_says_what_an_operator_asks() {
        let lines = [
            status(0, Readiness::Assembling),
            status(1, ready()),
            status(3, Readiness::Cannot("no QEMU".to_owned())),
            Status { bad_config: Some(2), ..status(3, ready()) },
            Status { stopping: true, ..status(3, ready()) },
            Status { stopping: true, ..status(0, ready()) },
        ]
        .map(|status| status.line());
        insta::assert_snapshot!(lines.join("\n"), @"
        no machines; finding out what this host can do
        1 machine; kvm, kernel transport
        3 machines; CAN'T RUN MACHINES: no QEMU
        3 machines; the new configuration has 2 problems (see the log), the old one is in force; kvm, kernel transport
        3 machines; stopping, ending them
        no machines; stopping
        ");
    }

    #[test]
    fn a_reason_can_neither_break_the_line_nor_fill_it() {
        let why = format!("a\nMAINPID=1\n{}", "ü".repeat(1000));
        let line = status(0, Readiness::Cannot(why)).line();
        assert!(!line.contains('\n'));
        assert_eq!(line.chars().count(), MAX_CHARS + 1);
    }
}
