//! `docs/specification.md` and `docs/security.md` name the tests that hold what they say: each of
//! them is there, and `make test` runs it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold crates of the workspace.
const FOLDERS: [&str; 7] = ["examples", "kernel", "libos", "pvm-fork", "tests", "toolstack", "xen"];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files below `folder`, from the top, that `wanted` takes.
fn files(folder: &str, wanted: fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(top().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&path, wanted));
        } else if wanted(&path) {
            found.push(path);
        }
    }
    found
}

/// A function with the attribute `#[test]`.
struct Test {
    name: String,
    /// The path of the file, from the top of the repository.
    file: String,
    /// `cargo test` leaves it out.
    ignored: bool,
}

/// The tests in `source`.
fn tests(file: &str, source: &str) -> Vec<Test> {
    let mut found = Vec::new();
    let mut attributes = Vec::new();
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[") {
            attributes.push(line);
        } else if !line.starts_with("//") {
            let name = line.strip_prefix("fn ").and_then(|rest| rest.split_once("()"));
            if let (Some((name, _)), true) = (name, attributes.contains(&"#[test]")) {
                let ignored = attributes.iter().any(|it| it.contains("ignore"));
                found.push(Test { name: name.to_owned(), file: file.to_owned(), ignored });
            }
            attributes.clear();
        }
    }
    found
}

/// All tests of the tree, with those that `make test` runs.
struct Suite {
    /// The tests, by package.
    tests: BTreeMap<String, Vec<Test>>,
    /// The packages of which `make test` runs the unit tests.
    host_crates: Vec<String>,
    /// Boot cases.
    cases: Vec<String>,
}

impl Suite {
    fn of_the_tree() -> Self {
        let makefile = read("Makefile");
        let host_crates = makefile.lines().find_map(|line| line.strip_prefix("HOST_CRATES := ")).expect("a list");
        let register: toml::Table = read("tests/boot/cases.toml").parse().unwrap();
        let name_of = |case: &toml::Value| case["name"].as_str().unwrap().to_owned();
        Self {
            tests: FOLDERS.iter().flat_map(|it| files(it, |path| path.ends_with("/Cargo.toml"))).map(package).collect(),
            host_crates: host_crates.split_whitespace().map(str::to_owned).collect(),
            cases: register["case"].as_array().unwrap().iter().map(name_of).collect(),
        }
    }

    /// Judges `name`: a boot case, `package::test`, or the path of a file or folder of tests.
    ///
    /// # Errors
    /// The reason for which `make test` does not run the test.
    fn judge(&self, name: &str) -> Result<(), String> {
        let all =
            || self.tests.iter().flat_map(|(package, tests)| tests.iter().map(move |test| (package.as_str(), test)));
        let named: Vec<_> = match name.split_once("::") {
            Some((package, test)) => all().filter(|(of, it)| *of == package && it.name == test).collect(),
            None if name.contains('/') => all().filter(|(_, it)| it.file.starts_with(name)).collect(),
            None if self.cases.iter().any(|case| case == name) => return Ok(()),
            None => return Err(format!("{name} is not in the register of boot tests")),
        };
        if named.is_empty() {
            return Err(format!("{name}: there is no such test"));
        }
        for (package, test) in named {
            if !self.host_crates.iter().any(|host| host == package) {
                return Err(format!("{package}::{} is not run: {package} is not in HOST_CRATES", test.name));
            }
            if test.ignored {
                return Err(format!("{package}::{} is not run: it is ignored", test.name));
            }
        }
        Ok(())
    }
}

/// Name and tests of the package whose manifest this is.
fn package(manifest: String) -> (String, Vec<Test>) {
    let folder = manifest.strip_suffix("/Cargo.toml").expect("a manifest");
    let table: toml::Table = read(&manifest).parse().unwrap();
    let mut sources = files(folder, |path| path.ends_with(".rs"));
    // A package below this one has its own tests.
    for other in files(folder, |path| path.ends_with("/Cargo.toml")).into_iter().filter(|other| *other != manifest) {
        let below = other.strip_suffix("Cargo.toml").expect("a manifest");
        sources.retain(|file| !file.starts_with(below));
    }
    let mut found: Vec<Test> = sources.iter().flat_map(|file| tests(file, &read(file))).collect();
    if table.get("lib").and_then(|lib| lib.get("test")).is_some_and(|test| test.as_bool() == Some(false)) {
        let sources = format!("{folder}/src/");
        found.iter_mut().filter(|test| test.file.starts_with(&sources)).for_each(|test| test.ignored = true);
    }
    (table["package"]["name"].as_str().unwrap().to_owned(), found)
}

/// The first and the last cell of each row of the tables in `page`.
fn rows(page: &str) -> Vec<(&str, &str)> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.filter_map(|row| Some((row.split(" | ").next()?, row.rsplit(" | ").next()?))).collect()
}

/// The texts in backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn every_test_that_is_named_is_run() {
    let suite = Suite::of_the_tree();
    for path in ["docs/specification.md", "docs/security.md"] {
        let page = read(path);
        let names: Vec<&str> = rows(&page).iter().flat_map(|(_, cell)| quoted(cell)).collect();
        assert!(names.len() > 20, "{path}: {names:?}");
        let faults: Vec<String> = names.iter().filter_map(|name| suite.judge(name).err()).collect();
        assert!(faults.is_empty(), "{path}: {faults:#?}");
    }
}

#[test]
fn every_promise_names_a_test_or_is_pending() {
    let page = read("docs/specification.md");
    let is_number = |cell: &str| cell.get(1..).is_some_and(|rest| rest.parse::<u32>().is_ok());
    let promises: Vec<_> = rows(&page).into_iter().filter(|(first, _)| is_number(first)).collect();
    assert!(promises.len() > 100, "{promises:?}");
    for (number, held_by) in promises {
        assert!(quoted(held_by).next().is_some() || held_by.starts_with("pending"), "{number}: {held_by}");
    }
}

#[test]
fn every_test_of_the_tree_is_run() {
    let suite = Suite::of_the_tree();
    let all =
        suite.tests.iter().flat_map(|(package, tests)| tests.iter().map(move |it| format!("{package}::{}", it.name)));
    let (mut tests, mut faults) = (0, Vec::new());
    for name in all {
        tests += 1;
        faults.extend(suite.judge(&name).err());
    }
    assert!(tests > 400, "{tests}");
    assert!(faults.is_empty(), "{faults:#?}");
}

/// The checker itself, on a tree that is made up: each way in which a test that is named can be
/// missing.
#[test]
fn a_test_that_does_not_run_is_found() {
    let source = "#[test]\nfn runs() {\n}\n/// Comment.\n#[test]\n// Another.\n#[ignore = \"slow\"]\nfn sleeps() {}\n\
                  fn helper() {}\n// #[test]\nfn comment() {}\n#[test]\nmod a {}\nfn after() {}\n";
    let found = |package: &str| (package.to_owned(), tests(&format!("libos/{package}/src/lib.rs"), source));
    let suite = Suite {
        tests: [found("one"), found("two")].into(),
        host_crates: vec!["one".to_owned()],
        cases: vec!["boots".to_owned()],
    };
    assert_eq!(suite.judge("one::runs"), Ok(()));
    assert_eq!(suite.judge("boots"), Ok(()));
    for (name, why) in [
        ("one::sleeps", "it is ignored"),
        ("one::helper", "no such test"),
        ("one::comment", "no such test"),
        ("one::after", "no such test"),
        ("one::run", "no such test"),
        ("three::runs", "no such test"),
        ("two::runs", "two is not in HOST_CRATES"),
        ("libos/one/", "it is ignored"),
        ("libos/two/src", "two is not in HOST_CRATES"),
        ("libos/three/", "no such test"),
        ("boot", "not in the register"),
        ("runs", "not in the register"),
    ] {
        let error = suite.judge(name).expect_err(name);
        assert!(error.contains(why), "{name}: {error}");
    }
}
