//! Inputs that fuzzing has found, for each fuzzed property.

#[path = "../../../fuzz/properties/corpus.rs"]
mod corpus;
#[path = "../../../fuzz/properties/manifest.rs"]
mod property;

#[test]
fn what_fuzzing_has_kept_is_refused_or_taken_as_a_whole() {
    corpus::each(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/manifest"), property::check);
}
