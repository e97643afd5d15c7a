//! There and back is the same.

use std::time::{Duration, SystemTime};

use creel_proto::v1 as wire;
use proptest::option;
use proptest::prelude::*;

use super::{Malformed, machine_id};
use crate::machines::{
    Happening, Inspection, Lifetime, MachineEvent, MachineStats, PhaseRecord, State, Summary,
};
use crate::runtime::{
    CrashCause, HostProcess, MachineDetails, MachineFacts, MachineId, MachineLimits, MachineLoad,
    MachineUsage, OutOfMemory, Outcome, OutputChunk, Phase, SetupError, SetupEvent, SetupFailure, Stream,
    Terminal, TerminalSize, Usage, Verdict, Work,
};

fn duration() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_micros)
}

fn cause() -> impl Strategy<Value = CrashCause> {
    prop_oneof![
        Just(CrashCause::GuestResetOrPanic),
        Just(CrashCause::GuestPoweredOff),
        any::<i32>().prop_map(|status| CrashCause::QemuExited { status }),
        any::<i32>().prop_map(|signal| CrashCause::QemuSignalled { signal }),
        any::<u64>().prop_map(|limit| CrashCause::PidsLimit { limit }),
        Just(CrashCause::HolderStopped),
        Just(CrashCause::HostOutOfMemory),
        any::<(String, String)>().prop_map(|(name, how)| CrashCause::HelperEnded { name, how }),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let scope = prop_oneof![
        Just(OutOfMemory::GuestProcess),
        any::<(u64, u64)>()
            .prop_map(|(limit_mib, peak_mib)| OutOfMemory::MachineLimit { limit_mib, peak_mib }),
    ];
    prop_oneof![
        any::<i32>().prop_map(|code| Outcome::Exited { code }),
        any::<i32>().prop_map(|signal| Outcome::Signalled { signal }),
        Just(Outcome::TimedOut),
        Just(Outcome::Cancelled),
        scope.prop_map(|scope| Outcome::OutOfMemory { scope }),
        cause().prop_map(|cause| Outcome::MachineCrashed { cause }),
        any::<String>().prop_map(|detail| Outcome::HostDiskFull { detail }),
        any::<String>().prop_map(|detail| Outcome::AgentLost { detail }),
        any::<String>().prop_map(|detail| Outcome::Internal { detail }),
    ]
}

prop_compose! {
    fn machine_usage()(
        cpu in duration(),
        numbers in any::<(Option<u64>, Option<u64>, u64, u64, Option<u64>)>(),
        pressures in (option::of(duration()), option::of(duration()), option::of(duration())),
    ) -> MachineUsage {
        let (peak_memory_kib, memory_limit_kib, read_bytes, written_bytes, peak_pids) = numbers;
        let (cpu_pressure, memory_pressure, io_pressure) = pressures;
        MachineUsage {
            cpu, peak_memory_kib, memory_limit_kib, read_bytes, written_bytes, peak_pids,
            cpu_pressure, memory_pressure, io_pressure,
        }
    }
}

prop_compose! {
    fn verdict()(
        outcome in outcome(),
        detail in any::<Option<String>>(),
        console_tail in any::<Option<Vec<u8>>>(),
        (wall, cpu) in (duration(), option::of(duration())),
        (peak_memory_kib, stdout_bytes, stderr_bytes) in any::<(Option<u64>, u64, u64)>(),
        machine in option::of(machine_usage()),
    ) -> Verdict {
        let usage = Usage { wall, cpu, peak_memory_kib, stdout_bytes, stderr_bytes, machine: machine.map(Box::new) };
        Verdict { outcome, detail, usage, console_tail }
    }
}

fn phase() -> impl Strategy<Value = Phase> {
    prop_oneof![Just(Phase::Prepare), Just(Phase::Spawn), Just(Phase::Boot), Just(Phase::Handshake)]
}

fn setup_error() -> impl Strategy<Value = SetupError> {
    let failure = prop_oneof![
        any::<String>().prop_map(SetupFailure::BadInput),
        any::<String>().prop_map(SetupFailure::HostCannot),
        outcome().prop_map(SetupFailure::Ended),
    ];
    let usage = option::of(machine_usage().prop_map(Box::new));
    (phase(), failure, any::<Option<Vec<u8>>>(), usage)
        .prop_map(|(phase, failure, console_tail, usage)| SetupError { phase, failure, console_tail, usage })
}

prop_compose! {
    fn summary()(
        state in prop_oneof![Just(State::SettingUp), Just(State::Ready), Just(State::Ending), Just(State::Ended)],
        (image, workflow_id, accel, transport) in any::<(String, String, String, String)>(),
        (creator_uid, execs, memory_mib, vcpus) in any::<(u32, u32, u32, u32)>(),
        (cid, keeper_pid, cgroup) in any::<(Option<u32>, Option<u32>, Option<String>)>(),
        memory_limit_mib in any::<Option<u64>>(),
        (created_us, ended_us) in (0_u64..1 << 50, option::of(0_u64..1 << 50)),
        usage in option::of(machine_usage()),
        verdict in option::of(verdict()),
    ) -> Summary {
        let at = |microseconds| SystemTime::UNIX_EPOCH + Duration::from_micros(microseconds);
        let cgroup = cgroup.map(Into::into);
        let facts = MachineFacts {
            image: image.clone(), memory_mib, vcpus, accel, transport, cid, keeper_pid, cgroup, memory_limit_mib,
        };
        Summary {
            id: MachineId::random().unwrap(), state, image, workflow_id, creator_uid, created_at: at(created_us),
            facts, execs, usage, verdict, ended_at: ended_us.map(at),
        }
    }
}

fn at() -> impl Strategy<Value = SystemTime> {
    (0_u64..1 << 50).prop_map(|microseconds| SystemTime::UNIX_EPOCH + Duration::from_micros(microseconds))
}

prop_compose! {
    fn load()(
        (memory_bytes, pids, read_bytes, written_bytes) in any::<(Option<u64>, Option<u64>, Option<u64>, Option<u64>)>(),
        cpu in option::of(duration()),
        (cpu_pressure, memory_pressure, io_pressure) in
            (option::of(duration()), option::of(duration()), option::of(duration())),
    ) -> MachineLoad {
        MachineLoad {
            memory_bytes, cpu, pids, read_bytes, written_bytes, cpu_pressure, memory_pressure, io_pressure,
        }
    }
}

prop_compose! {
    fn details()(
        paths in any::<(Option<String>, Option<String>, Option<String>, Option<String>)>(),
        qemu in any::<Option<(String, String)>>(),
        limits in option::of((any::<(u64, u32, u16, u16)>(), option::of(duration()), duration())),
        processes in prop::collection::vec(any::<(u32, String, u32, u64)>(), 0..3),
    ) -> MachineDetails {
        let (directory, image_directory, image_digest, namespaces) = paths;
        MachineDetails {
            directory: directory.map(Into::into),
            image_directory: image_directory.map(Into::into),
            image_digest,
            qemu: qemu.map(|(path, version)| (path.into(), version)),
            namespaces,
            limits: limits.map(|((memory_bytes, pids, cpu_weight, io_weight), cpu_quota, cpu_period)| {
                MachineLimits { memory_bytes, pids, cpu_quota, cpu_period, cpu_weight, io_weight }
            }),
            processes: processes
                .into_iter()
                .map(|(pid, name, threads, resident_bytes)| HostProcess { pid, name, threads, resident_bytes })
                .collect(),
        }
    }
}

prop_compose! {
    fn inspection()(
        summary in summary(),
        lifetime in prop_oneof![
            Just(Lifetime::Attached),
            option::of(duration()).prop_map(|max_age| Lifetime::Detached { max_age }),
        ],
        setup in prop::collection::vec((phase(), at(), option::of(duration())), 0..4),
        notices in any::<Vec<String>>(),
        details in details(),
        console_tail in any::<Option<Vec<u8>>>(),
    ) -> Inspection {
        let setup = setup.into_iter().map(|(phase, started_at, took)| PhaseRecord { phase, started_at, took });
        Inspection { summary, lifetime, setup: setup.collect(), notices, details, console_tail }
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        any::<String>().prop_map(|image| Happening::Created { image }),
        Just(Happening::Ready),
        any::<String>().prop_map(|exec_id| Happening::ExecStarted { exec_id }),
        (any::<String>(), verdict()).prop_map(|(exec_id, verdict)| Happening::ExecEnded { exec_id, verdict }),
        Just(Happening::Ending),
        verdict().prop_map(|verdict| Happening::Ended { verdict }),
        any::<String>().prop_map(|why| Happening::SetupFailed { why }),
    ]
}

fn work() -> impl Strategy<Value = Work> {
    let text = "[^\\x00]{0,12}";
    let variable = ("[A-Za-z_][A-Za-z0-9_]{0,8}", text);
    prop_oneof![
        (
            prop::collection::vec("[^\\x00]{1,12}", 1..4),
            prop::collection::vec(variable, 0..4),
            "/[^\\x00]{0,8}",
            "[a-z]{1,8}",
            prop::option::of(("[a-z0-9-]{1,12}", 1u16.., 1u16..)),
        )
            .prop_map(|(argv, env, cwd, user, terminal)| {
                let size = |rows, columns| TerminalSize { rows, columns };
                let terminal =
                    terminal.map(|(term, rows, columns)| Terminal { term, size: size(rows, columns) });
                Work::Program { argv, env, cwd, user, terminal }
            }),
        ("/[a-z]{0,8}", "[a-z]{1,8}")
            .prop_map(|(destination, user)| Work::UnpackSource { destination, user }),
        ("/[a-z]{0,8}", "[a-z]{1,8}").prop_map(|(path, user)| Work::ReadFiles { path, user }),
        ("/[a-z]{0,8}", any::<bool>(), "[a-z]{1,8}")
            .prop_map(|(destination, directory, user)| { Work::WriteFiles { destination, directory, user } }),
    ]
}

proptest! {
    #[test]
    fn verdicts(verdict in verdict()) {
        prop_assert_eq!(Verdict::try_from(wire::Verdict::from(verdict.clone())), Ok(verdict));
    }

    #[test]
    fn failures_of_setups(error in setup_error()) {
        prop_assert_eq!(SetupError::try_from(wire::SetupFailure::from(error.clone())), Ok(error));
    }

    #[test]
    fn summaries(summary in summary()) {
        prop_assert_eq!(Summary::try_from(wire::Machine::from(summary.clone())), Ok(summary));
    }

    #[test]
    fn inspections(inspection in inspection()) {
        prop_assert_eq!(Inspection::try_from(wire::InspectResponse::from(inspection.clone())), Ok(inspection));
    }

    #[test]
    fn numbers(summary in summary(), load in load()) {
        let load = Some(load).filter(|load| *load != MachineLoad::default());
        let stats = MachineStats {
            id: summary.id,
            state: summary.state,
            execs: summary.execs,
            memory_limit_mib: summary.facts.memory_limit_mib,
            load,
        };
        prop_assert_eq!(MachineStats::try_from(wire::MachineStats::from(stats.clone())), Ok(stats));
    }

    #[test]
    fn events(what in happening(), at in at(), (sequence, creator_uid, workflow_id) in any::<(u64, u32, String)>()) {
        let machine = MachineId::random().unwrap();
        let event = MachineEvent { sequence, at, machine, workflow_id, creator_uid, what };
        prop_assert_eq!(MachineEvent::try_from(wire::MachineEvent::from(event.clone())), Ok(event));
    }

    #[test]
    fn work_to_do(work in work()) {
        let back = Work::try_from(wire::exec_start::Work::from(work.clone()));
        // `Work` shows no values, since secrets are among them; here all of it counts.
        match (back, work) {
            (
                Ok(Work::Program { argv, env, cwd, user, terminal }),
                Work::Program { argv: argv2, env: env2, cwd: cwd2, user: user2, terminal: terminal2 },
            ) => prop_assert_eq!((argv, env, cwd, user, terminal), (argv2, env2, cwd2, user2, terminal2)),
            (
                Ok(Work::UnpackSource { destination, user }),
                Work::UnpackSource { destination: destination2, user: user2 },
            ) => prop_assert_eq!((destination, user), (destination2, user2)),
            (Ok(back @ (Work::ReadFiles { .. } | Work::WriteFiles { .. })), work) => {
                prop_assert_eq!(format!("{back:?}"), format!("{work:?}"));
            }
            (back, work) => prop_assert!(false, "{back:?} of {work:?}"),
        }
    }

    #[test]
    fn output(bytes in any::<Vec<u8>>(), raw_offset: u64, stderr: bool) {
        let stream = if stderr { Stream::Stderr } else { Stream::Stdout };
        let chunk = OutputChunk { stream, raw_offset, bytes: bytes.into() };
        prop_assert_eq!(OutputChunk::try_from(wire::Output::from(chunk.clone())), Ok(chunk));
    }

    #[test]
    fn progress(phase in phase(), took in duration()) {
        let wire::create_event::Event::PhaseFinished(event) = SetupEvent::Finished(phase, took).into() else {
            panic!("another event");
        };
        prop_assert_eq!(SetupEvent::try_from(event), Ok(SetupEvent::Finished(phase, took)));
    }
}

#[test]
fn what_makes_no_sense_is_named() {
    let program = |argv: &[&str], env: &[&str], cwd: &str| {
        let argv = argv.iter().map(|&word| word.to_owned()).collect();
        let variable = |name: &&str| wire::Variable { name: (*name).to_owned(), value: String::new() };
        let env = env.iter().map(variable).collect();
        Some(wire::exec_start::Work::Program(wire::Program {
            argv,
            env,
            cwd: cwd.into(),
            user: String::new(),
            terminal: None,
        }))
    };
    let unpack = wire::UnpackSource { destination: "here".into(), user: String::new() };
    let works = [
        None,
        program(&[], &[], ""),
        program(&["a"], &["A=B"], ""),
        program(&["a"], &[], "here"),
        program(&["a\0"], &[], ""),
        Some(wire::exec_start::Work::UnpackSource(unpack)),
    ];
    let mut told: Vec<String> =
        works.into_iter().map(|work| Work::try_from(work).expect_err("makes no sense").to_string()).collect();
    told.push(machine_id("../../etc/passwd\n").expect_err("no id").to_string());
    let outcome = wire::Outcome { outcome: None };
    told.push(Outcome::try_from(outcome).expect_err("empty").to_string());
    told.push(SetupEvent::try_from(wire::PhaseStarted { phase: 9 }).expect_err("unknown").to_string());
    insta::assert_snapshot!(told.join("\n"), @"
    `work` is missing
    `program.argv` names no program
    `program.env` has a variable whose name is empty or contains `=`
    `program.cwd` is `here`, which is no absolute path
    `program` contains a NUL byte, which no program can be given
    `unpack_source.destination` is `here`, which is no absolute path
    `../../etc/passwd` is not a machine's id: those have ten lower-case letters and digits
    `outcome` is missing
    `phase` has the unknown value 9
    ");
}

#[test]
fn what_is_left_out_of_a_program_is_filled_in() {
    let program = wire::Program { argv: vec!["true".into()], ..wire::Program::default() };
    let work: Result<Work, Malformed> = wire::exec_start::Work::Program(program).try_into();
    assert!(
        matches!(work, Ok(Work::Program { cwd, user, .. }) if cwd == "/workspace" && user == "spindle-workflow")
    );
}
