//! The red zone is found in functions that use it, and only there.

mod common;

use std::path::Path;

use common::{directory, gcc, parse};
use zooid_loader::red_zone;

const BUILDS: [&[&str]; 5] = [
    &["-O0"],
    &["-O2"],
    &["-Os"],
    &["-O2", "-fno-omit-frame-pointer", "-mno-omit-leaf-frame-pointer"],
    &["-O2", "-Wl,-z,noseparate-code"],
];

#[test]
fn leaf_functions_are_found() {
    let directory = directory("red-zone");
    for (number, arguments) in BUILDS.iter().enumerate() {
        let path = gcc(&directory, &format!("with{number}"), "leaves.c", arguments);
        let found: Vec<_> = red_zone::places(&parse(&path)).collect();
        assert!(found.iter().any(|place| place.function.as_deref() == Some("exported_leaf")), "{arguments:?}");
        assert!(found.iter().any(|place| place.function.is_none()), "{arguments:?}: {found:?}");
        assert!(found.iter().all(|place| (1..=128).contains(&place.below)));
        assert_eq!(red_zone::find(&parse(&path)), found.first().cloned());
        let line = found[0].to_string();
        assert!(line.contains(&format!("{:#x}", found[0].address)) && line.contains("-mno-red-zone"), "{line}");
    }
}

#[test]
fn code_without_one_passes() {
    let directory = directory("no-red-zone");
    for source in ["leaves.c", "features.c", "provider.c", "no_leaves.c"] {
        for (number, arguments) in BUILDS.iter().enumerate() {
            let script = format!("-Wl,--version-script={}", common::source("provider.map").display());
            let mut all = vec!["-mno-red-zone"];
            all.extend(*arguments);
            if source == "provider.c" {
                all.push(&script);
            }
            let path = gcc(&directory, &format!("without{number}"), source, &all);
            assert_eq!(red_zone::find(&parse(&path)), None, "{source} {arguments:?}");
        }
    }
}

#[test]
fn the_distributions_libraries_have_one() {
    for library in ["libm.so.6", "libz.so.1", "libsqlite3.so.0"] {
        let path = Path::new("/lib/x86_64-linux-gnu").join(library);
        if path.exists() {
            assert!(red_zone::find(&parse(&path)).is_some(), "{library}");
        }
    }
}
