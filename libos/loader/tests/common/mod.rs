//! Shared objects that the tests build with the compilers of this machine.

#![allow(dead_code, reason = "each test uses a part of it")]

pub mod file;

use std::path::{Path, PathBuf};
use std::process::Command;

pub type Bytes = Vec<u8>;
pub type Object = zooid_loader::Object<Bytes>;

/// A directory for the files of one test.
pub fn directory(test: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    std::fs::create_dir_all(&directory).expect("below target/");
    directory
}

pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/objects").join(name)
}

/// Runs a compiler; a failure stops the test.
pub fn run(program: &str, directory: &Path, arguments: &[&str]) {
    let output = Command::new(program).current_dir(directory).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Builds `lib{name}.so` from a source in `objects/`, with that name as DT_SONAME too.
pub fn gcc(directory: &Path, name: &str, from: &str, arguments: &[&str]) -> PathBuf {
    build("gcc", directory, name, from, arguments)
}

/// As [`gcc`], with the named compiler.
pub fn build(compiler: &str, directory: &Path, name: &str, from: &str, arguments: &[&str]) -> PathBuf {
    let (source, library) = (source(from), format!("lib{name}.so"));
    let soname = format!("-Wl,-soname,{library}");
    let mut all = vec!["-shared", "-fPIC", "-O2", "-o", &library, &soname, source.to_str().expect("a path of ours")];
    all.extend(arguments);
    run(compiler, directory, &all);
    directory.join(library)
}

/// Builds `provider.c` with its versions.
pub fn provider(directory: &Path, name: &str, arguments: &[&str]) -> PathBuf {
    provider_by("gcc", directory, name, arguments)
}

pub fn provider_by(compiler: &str, directory: &Path, name: &str, arguments: &[&str]) -> PathBuf {
    let script = format!("-Wl,--version-script={}", source("provider.map").display());
    build(compiler, directory, name, "provider.c", &[arguments, &[&script]].concat())
}

pub fn read(path: &Path) -> Bytes {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn parse(path: &Path) -> Object {
    Object::parse(read(path)).unwrap_or_else(|refusal| panic!("{}: {refusal}", path.display()))
}
