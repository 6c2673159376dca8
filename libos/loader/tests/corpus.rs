//! What fuzzing has found worth keeping (fuzz/corpus), by the property that it is fuzzed with.

#[path = "../../../fuzz/properties/shared_object.rs"]
mod property;

#[test]
fn what_fuzzing_has_kept_is_refused_or_taken_as_a_whole() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/shared_object");
    let mut inputs = 0;
    for entry in std::fs::read_dir(corpus).expect("it is kept") {
        let input = std::fs::read(entry.expect("a file").path()).expect("a file");
        property::check(&input);
        inputs += 1;
    }
    assert!(inputs > 10, "{inputs} are all that is left of it");
}
