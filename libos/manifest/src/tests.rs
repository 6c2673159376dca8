use std::format;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use super::*;

const FILE: &[u8] = b"the octets of a library";
const NAME: &str = "libone.so.1";

fn key() -> SecretKey {
    SecretKey::from_seed([7; 32])
}

fn described() -> Description {
    let mut description = Description::new(NAME, Version::new(1, 2, 3), FILE);
    description.build_id = Some(vec![0xab, 0xcd]);
    description.images = vec!["httpd".to_string(), "shop".to_string()];
    description.families = vec!["web".to_string()];
    description
}

fn rules() -> Rules<'static> {
    Rules {
        keys: vec![SecretKey::from_seed([1; 32]).public(), key().public()],
        image: "httpd",
        family: Some("web"),
        versions: vec![("libother.so", "=9.9.9"), (NAME, ">=1.2, <2"), (NAME, "^1")],
        user_mode: false,
    }
}

fn text(description: &Description) -> String {
    description.sign(&key()).unwrap().to_string()
}

fn judge(rules: &Rules, text: &str) -> Result<Manifest, Refusal> {
    rules.judge(NAME, FILE, Some(text.as_bytes()))
}

#[test]
fn what_is_written_is_read() {
    let manifest = judge(&rules(), &text(&described())).unwrap();
    assert_eq!((manifest.description, manifest.signer), (described(), key().public()));
    let mut other = Description::new("a", Version::parse("1.0.0-rc.1+x86").unwrap(), b"");
    other.red_zone = Some(RedZone { address: 0x1234, function: Some("f".to_string()) });
    other.revoked = true;
    assert_eq!(Manifest::parse(text(&other).as_bytes()).unwrap().description, other);
}

#[test]
fn the_form_is_that_of_the_page() {
    let page = include_str!("../../../docs/libraries.md");
    let example = page.split("```").find_map(|block| block.strip_prefix("text\n")).unwrap();
    let manifest = Manifest::parse(example.as_bytes()).unwrap();
    assert_eq!(manifest.description, described());
    assert_eq!(manifest.to_string(), example);
    manifest.vouches(&[key().public()], NAME, FILE).unwrap();
}

/// RFC 8032, 7.1, TEST 2; FIPS 180-4's example for `abc`.
#[test]
fn signatures_and_digests_are_the_standards() {
    let key = SecretKey::parse(b"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb\n").unwrap();
    assert_eq!(key.public().to_string(), "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
    let signature = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                     085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
    assert_eq!(hex::Hex(&key.sign(&[0x72])).to_string(), signature);
    let digest = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                  2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
    assert_eq!(Digest::of(b"abc").to_string(), digest);
}

#[test]
fn every_rule_is_named() {
    let good = text(&described());
    assert!(judge(&rules(), &good).is_ok());
    let refused = |change: &dyn Fn(&mut Description)| {
        let mut description = described();
        change(&mut description);
        judge(&rules(), &text(&description)).unwrap_err().to_string()
    };
    let with = |change: &dyn Fn(&mut Rules)| {
        let mut rules = rules();
        change(&mut rules);
        judge(&rules, &good).unwrap_err().to_string()
    };
    let other = key().public();
    for (said, expected) in [
        (with(&|rules| rules.keys.clear()), "signature rule: the image trusts no key; name one with dl::trust!".into()),
        (with(&|rules| rules.keys.truncate(1)), format!("signature rule: the key {other} is not trusted")),
        (rules().judge(NAME, FILE, None).unwrap_err().to_string(), "signature rule: it has no manifest".into()),
        (
            rules().judge(NAME, b"the octets of a librarz", Some(good.as_bytes())).unwrap_err().to_string(),
            "signature rule: the file is not the one that was signed".into(),
        ),
        (
            rules().judge(NAME, &FILE[1..], Some(good.as_bytes())).unwrap_err().to_string(),
            "signature rule: the file is not the one that was signed".into(),
        ),
        (
            judge(&rules(), &good.replace("version 1.2.3", "version 1.2.4")).unwrap_err().to_string(),
            "signature rule: the manifest is not what its signer has signed".into(),
        ),
        (refused(&|it| it.name = "libtwo.so".into()), "signature rule: the manifest is that of libtwo.so".into()),
        (refused(&|it| it.revoked = true), "version rule: 1.2.3 is revoked".into()),
        (refused(&|it| it.version = Version::new(1, 1, 9)), "version rule: it is 1.1.9, wanted is >=1.2, <2".into()),
        (refused(&|it| it.version = Version::new(2, 0, 0)), "version rule: it is 2.0.0, wanted is >=1.2, <2".into()),
        (with(&|rules| rules.versions.push((NAME, "new"))), "version rule: `new` is no range of versions".into()),
        (with(&|rules| rules.image = "hello"), "loader rule: the image hello may not map it".into()),
        (with(&|rules| rules.family = Some("shop")), "loader rule: the family shop may not map it".into()),
        (with(&|rules| rules.family = None), "loader rule: a pVM of an unknown family may not map it".into()),
        (
            refused(&|it| it.red_zone = Some(RedZone { address: 0x1010, function: Some("leaf".into()) })),
            "loader rule: the code at 0x1010, in `leaf`, uses the red zone; build it with -mno-red-zone, or run the image in user mode".into(),
        ),
    ] {
        assert_eq!(said, expected);
    }
    let mut description = described();
    description.red_zone = Some(RedZone { address: 0x1010, function: None });
    let in_user_mode = Rules { user_mode: true, ..rules() };
    assert!(judge(&in_user_mode, &text(&description)).is_ok());
}

#[test]
fn a_changed_octet_anywhere_is_refused() {
    let good = text(&described()).into_bytes();
    for at in 0..good.len() {
        // The changes make another digit or letter, an invalid text, and a new line.
        for change in [1, 0x20, 0x80, good[at] ^ b'\n'] {
            let mut bad = good.clone();
            bad[at] ^= change;
            let refused = bad == good || rules().judge(NAME, FILE, Some(&bad)).is_err();
            assert!(refused, "octet {at} changed by {change:#x}");
        }
        assert!(rules().judge(NAME, FILE, Some(&good[..at])).is_err(), "the first {at} octets");
        for octet in [b'\n', b' ', b'0', b'a', 0] {
            let mut longer = good.clone();
            longer.insert(at, octet);
            assert!(rules().judge(NAME, FILE, Some(&longer)).is_err(), "{octet} before octet {at}");
        }
    }
}

#[test]
fn there_is_one_form() {
    let good = text(&described());
    let malformed = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        Manifest::parse(good.replacen(from, to, 1).as_bytes()).unwrap_err().0
    };
    for (from, to, line) in [
        ("zooid-library 1", "zooid-library 2", "zooid-library"),
        ("name libone.so.1", "name ../libone.so", "name"),
        ("name libone.so.1", "name ", "name"),
        ("version 1.2.3", "version 01.2.3", "version"),
        ("version 1.2.3\n", "", "version"),
        ("build-id abcd", "build-id ABCD", "build-id"),
        ("build-id abcd", "build-id abc", "build-id"),
        ("size 23", "size -1", "size"),
        ("size 23", "size 023", "form"),
        ("size 23", "size +23", "form"),
        ("red-zone none", "red-zone 0x0010", "form"),
        ("red-zone none", "red-zone 0x10 a b", "red-zone"),
        ("images httpd shop", "images shop httpd", "images"),
        ("images httpd shop", "images httpd httpd", "images"),
        ("images httpd shop", "images httpd  shop", "images"),
        ("images httpd shop", "images", "images"),
        ("families web", "families * web", "families"),
        ("revoked no", "revoked maybe", "revoked"),
        ("signer ", "colour red\nsigner ", "signer"),
        ("\nsignature ", "\nsignature 00", "signature"),
        ("\n", "\r\n", "zooid-library"),
    ] {
        assert_eq!(malformed(from, to), line, "{from:?} made {to:?}");
    }
    assert_eq!(Manifest::parse((good.clone() + "\n").as_bytes()).unwrap_err().0, "form");
    assert_eq!(Manifest::parse((good + &" ".repeat(MAX_OCTETS)).as_bytes()).unwrap_err().0, "length");
    assert_eq!(Manifest::parse(&[0xff; 10]).unwrap_err().0, "text");
    assert!(Manifest::parse(b"").is_err());
}

#[test]
fn what_cannot_be_read_is_not_written() {
    let sign = |change: &dyn Fn(&mut Description)| {
        let mut description = described();
        change(&mut description);
        description.sign(&key()).map(drop).map_err(|malformed| malformed.0)
    };
    assert_eq!(sign(&|_| ()), Ok(()));
    assert_eq!(sign(&|it| it.name = "lib one.so".into()), Err("name"));
    assert_eq!(sign(&|it| it.name = "lib\nrevoked no".into()), Err("version"));
    let lines = text(&described());
    let rest = lines.strip_prefix("zooid-library 1\nname ").and_then(|rest| rest.split_once("\nsigner ")).unwrap().0;
    assert!(sign(&|it| it.name = rest.into()).is_err());
    assert_eq!(sign(&|it| it.images = vec!["b".into(), "a".into()]), Err("images"));
    let many: Vec<String> = (10..50).map(|number| number.to_string()).collect();
    assert_eq!(sign(&|it| it.families = many.clone()), Err("families"));
}

#[test]
fn key_files_are_read_strictly() {
    let file = key().public().to_string() + "\n";
    assert_eq!(PublicKey::parse(file.as_bytes()), Some(key().public()));
    assert_eq!(PublicKey::parse(file.trim().as_bytes()), Some(key().public()));
    for wrong in [file.to_uppercase(), file.clone() + "\n", format!(" {file}"), file[2..].to_string(), String::new()] {
        assert_eq!(PublicKey::parse(wrong.as_bytes()), None, "{wrong:?}");
    }
    assert!(!format!("{:?}", key()).contains("0707"));
}

#[test]
fn a_key_file_that_names_its_kind_is_not_taken_for_the_other() {
    let (public, secret) = (key().public().to_file(), SecretKey::file_of([7; 32]));
    assert_eq!(PublicKey::parse(public.as_bytes()), Some(key().public()));
    assert_eq!(SecretKey::parse(secret.as_bytes()).unwrap().public(), SecretKey::from_seed([7; 32]).public());
    assert_eq!(PublicKey::parse(secret.as_bytes()), None);
    assert!(SecretKey::parse(public.as_bytes()).is_none());
    for wrong in [format!("{public}{public}"), public.replacen(' ', "  ", 1), public.replace("zooid", "Zooid")] {
        assert_eq!(PublicKey::parse(wrong.as_bytes()), None, "{wrong}");
    }
}
