//! A manifest: whatever its octets, it is refused, or is written as it stood; and nobody vouches for what he has not signed.

use zooid_manifest::{Manifest, PublicKey, Rules, SecretKey};

pub fn check(input: &[u8]) {
    let _ = PublicKey::parse(input);
    let key = SecretKey::from_seed([7; 32]);
    // The rest is reached with a good signature only.
    if let Ok(manifest) = Manifest::parse(input) {
        assert_eq!(manifest.to_string().as_bytes(), input);
        let signed = manifest.description.sign(&key).expect("it was read");
        assert_eq!(signed.description, manifest.description);
        let rules = Rules {
            keys: vec![key.public()],
            image: "a",
            family: Some("b"),
            versions: vec![("a", "^1")],
            user_mode: false,
        };
        let _ = rules.judge(&manifest.description.name, b"", Some(signed.to_string().as_bytes()));
    }
    let rules = Rules { keys: vec![key.public()], ..Rules::default() };
    assert!(rules.judge("libone.so.1", b"the octets of a library", Some(input)).is_err());
}
