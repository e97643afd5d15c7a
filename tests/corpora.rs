//! The inputs that fuzzing found worth keeping, through the same functions that are fuzzed (`make fuzz`).

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::path::Path;

#[test]
fn every_input_of_every_corpus_still_passes() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut named: Vec<_> =
        std::fs::read_dir(&corpora).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    named.sort();
    assert_eq!(named, fuzz::TARGETS.map(|(name, _)| name), "a corpus for each target, and no other");
    for (name, run) in fuzz::TARGETS {
        let mut inputs = 0;
        for entry in std::fs::read_dir(corpora.join(name)).unwrap() {
            let path = entry.unwrap().path();
            let input = std::fs::read(&path).unwrap();
            let passed = std::panic::catch_unwind(|| run(&input));
            assert!(passed.is_ok(), "`{}` fails", path.display());
            inputs += 1;
        }
        assert!(inputs > 0, "the corpus of {name} has inputs");
    }
}
