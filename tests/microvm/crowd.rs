//! Many runs at once on a busy host.

use std::fs;
use std::process::{Child, Command};

use crate::harness::{Run, Sandbox, TINY, World, workflow};

const RUNS: usize = 10;

/// As much work as a compiler that has a CPU of its own. Dropped, it ends.
struct Hog(Child);

impl Hog {
    fn start() -> Self {
        let child = Command::new("sh").args(["-c", "while :; do :; done"]).spawn();
        Self(child.expect("a shell starts"))
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn ten_runs_at_once_beside_busy_cpus_all_end_well() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::alone(world);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let _hogs: Vec<Hog> = std::iter::repeat_with(Hog::start).take(cpus).collect();
    let file = sandbox.work_dir().join("say.yml");
    let steps = workflow(TINY, &[("say", "echo \"this is run $RUN\""), ("write", "echo $RUN > x; cat x")]);
    fs::write(&file, steps).expect("a workflow file");
    let runs: Vec<Run> = (0..RUNS)
        .map(|run| {
            let mut command = sandbox.creel(["run", "-f"]);
            command.arg(&file).arg("--env").arg(format!("RUN={run}"));
            Run::start(command)
        })
        .collect();
    for (number, run) in runs.into_iter().enumerate() {
        let ended = run.finish();
        ended.expect_code(0);
        assert_eq!(ended.text(), format!("this is run {number}\n{number}\n"), "{}", ended.said());
    }
}
