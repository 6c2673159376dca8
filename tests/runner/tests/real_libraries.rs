//! The libraries that tests/libraries/real builds for guests are fit to run there.

use std::path::Path;

use zooid_loader::{Object, red_zone};

#[test]
fn libraries_for_guests_hold_no_red_zone() {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/libraries/guest");
    for (folder, library) in
        [("zlib", "libz.so.1"), ("lz4", "liblz4.so.1"), ("brotli", "libbrotli.so.1"), ("sqlite", "libsqlite3.so.0")]
    {
        for file in [library.to_owned(), format!("{folder}_tests.so")] {
            let path = built.join(folder).join(&file);
            let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let object = Object::parse(&bytes).unwrap_or_else(|refusal| panic!("{file}: {refusal}"));
            if let Some(place) = red_zone::find(&object) {
                panic!("{file}: {place}");
            }
        }
    }
}
