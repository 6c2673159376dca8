//! The inputs that fuzzing has kept for a target (fuzz/corpus).

/// Calls `check` with each input in a folder.
pub fn each(folder: &str, check: fn(&[u8])) {
    let mut inputs = 0;
    for entry in std::fs::read_dir(folder).expect("it is kept") {
        let input = std::fs::read(entry.expect("a file").path()).expect("a file");
        check(&input);
        inputs += 1;
    }
    assert!(inputs > 10, "{inputs} are all that is left of it");
}
