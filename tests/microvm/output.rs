//! Output is complete and in order, however much there is.

use sha2::{Digest as _, Sha256};

use crate::harness::{Noise, Repository, Run, Sandbox, World};

const BYTES: usize = 20 << 20;

#[test]
fn twenty_mebibytes_of_output_arrive_complete_and_in_order() {
    let Some(world) = World::get() else { return };
    let sandbox = Sandbox::new(world);
    let repository = Repository::create(sandbox.work_dir().join("project"));
    let sent = Noise::take(BYTES);
    repository.write("noise", &sent);
    repository.write("ci.yml", "engine: microvm\nimage: tiny\nwhen:\n  - event: manual\nsteps:\n  - name: say\n    command: cat noise\n");
    repository.commit();
    let mut command = sandbox.creel(["run", "-f", "ci.yml"]);
    command.current_dir(&repository.path);
    let ended = Run::start(command).finish();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stdout.len(), sent.len());
    assert_eq!(Sha256::digest(&ended.stdout), Sha256::digest(&sent), "the output is not what was written");
}
