//! `creel kill`: ends machines at once, or signals a program in one.

use super::connect::{api_failure, find, machine_id};
use super::rm::end_all;
use crate::cli::args::KillArgs;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::exit::Exit;
use crate::runtime::DestroyMode;

/// SIGRTMAX (signal(7)).
const MAX_SIGNAL: i32 = 64;

/// Of every Linux that guests run on (signal(7), columns "x86/ARM").
const NAMES: [(&str, i32); 33] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

pub(in crate::cli) async fn kill(context: &Context, arguments: KillArgs) -> Result<Exit, Failure> {
    let Some(exec) = arguments.exec else {
        return end_all(context, &arguments.ids, &arguments.socket, DestroyMode::Kill, |_| {}).await;
    };
    let [id] = &arguments.ids[..] else {
        return Err(Failure::usage("with --exec, name the one machine that the program runs in"));
    };
    let id = machine_id(id)?;
    let signal = number(&arguments.signal).ok_or_else(|| {
        Failure::usage(format!(
            "`{}` is no signal: name one, such as TERM or INT, or its number, 1 to {MAX_SIGNAL}",
            arguments.signal
        ))
    })?;
    let client = find(context, &arguments.socket, &id).await?;
    client.signal(&id, &exec, signal).await.map_err(|error| api_failure(&error))?;
    Ok(Exit::Success)
}

/// `TERM`, `sigterm`, `15`.
fn number(text: &str) -> Option<i32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|number| (1..=MAX_SIGNAL).contains(number));
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_signal_is_known_by_name_and_number() {
        for text in ["TERM", "term", "SIGTERM", "SigTerm", "15", "015"] {
            assert_eq!(number(text), Some(15), "{text}");
        }
        assert_eq!(number("64"), Some(64));
        for text in ["", "0", "65", "-9", "SIG", "SIGSIGTERM", "TERMX", "1.5", "99999999999999999999"] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_typed_no_other_number_comes_of_it(text in "\\PC{0,8}") {
            prop_assert!(number(&text).is_none_or(|number| (1..=MAX_SIGNAL).contains(&number)));
        }
    }
}
