//! The rows there are, in the order in which they are measured.

mod cold_setup;
mod copy_program;
mod exec;
mod guest_stdout;
mod jail;
mod memory;
mod neighbours;
mod stdin;
mod stdout;

use crate::row::Row;

/// All of them.
pub fn all() -> Vec<Box<dyn Row>> {
    vec![
        Box::new(exec::Exec::native()),
        Box::new(exec::Commands::default()),
        Box::new(exec::Exec::emulated()),
        Box::new(stdout::Stdout::against_command()),
        Box::new(stdout::Stdout::against_engine()),
        Box::new(stdin::Stdin::default()),
        Box::new(neighbours::Neighbours::default()),
        Box::new(guest_stdout::GuestStdout::default()),
        Box::new(cold_setup::ColdSetup::default()),
        Box::new(jail::Jail::beside("jail-1", 1)),
        Box::new(jail::Jail::beside("jail-10", 10)),
        Box::new(jail::Jail::beside("jail-100", 100)),
        Box::new(memory::DaemonMemory::default()),
        Box::new(memory::MachineMemory::default()),
    ]
}

/// MiB a second.
fn throughput(bytes: u64, took: std::time::Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a few GiB at most")]
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    mebibytes / took.as_secs_f64()
}

/// Of a row that was not prepared.
fn unprepared() -> crate::row::Failed {
    crate::row::Failed::new("the row was not prepared")
}
