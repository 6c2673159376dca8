//! `docs/specification.md` names a test for each promise: every test that it names exists.

use std::fs;
use std::path::{Path, PathBuf};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The contents of all Rust files below `folder`.
fn sources(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|end| end == "rs") {
            all.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// What stands in backquotes in the last cell of each row: `case` of a boot test, `package::test` of a unit test.
fn named_tests(specification: &str) -> Vec<&str> {
    let rows = specification.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let cells = rows.filter_map(|row| row.rsplit(" | ").next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn every_test_that_is_named_exists() {
    let specification = fs::read_to_string(top().join("docs/specification.md")).unwrap();
    let register = fs::read_to_string(top().join("tests/boot/cases.toml")).unwrap();
    let mut code = String::new();
    for folder in ["xen", "kernel", "libos", "pvm-fork", "tests", "toolstack"] {
        sources(&top().join(folder), &mut code);
    }
    let tests = named_tests(&specification);
    assert!(tests.len() > 100, "{tests:?}");
    for test in tests {
        let exists = match test.split_once("::") {
            Some((_, name)) => code.contains(&format!("fn {name}()")),
            None => register.contains(&format!("name = \"{test}\"\n")),
        };
        assert!(exists, "{test}");
    }
}
