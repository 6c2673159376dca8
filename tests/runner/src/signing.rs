//! Signs the libraries that guests load in tests, with a key that everybody knows.

use zooid_loader::{Object, red_zone};
use zooid_manifest::{Description, RedZone, SecretKey, Version, is_name};

/// The key that the tests' images trust.
pub fn key() -> SecretKey {
    SecretKey::parse(include_bytes!("../../libraries/test-only.key")).expect("a key")
}

/// The manifest of a library: version 1.0.0 for everybody, unless `change` says otherwise.
pub fn manifest(name: &str, file: &[u8], key: &SecretKey, change: impl FnOnce(&mut Description)) -> String {
    let mut description = Description::new(name, Version::new(1, 0, 0), file);
    // Some libraries are made so that no loader takes them.
    if let Ok(object) = Object::parse(file) {
        description.build_id = object.build_id().map(<[u8]>::to_vec);
        description.red_zone = red_zone::find(&object)
            .map(|place| RedZone { address: place.address, function: place.function.filter(|name| is_name(name)) });
    }
    change(&mut description);
    description.sign(key).expect("plain names").to_string()
}
