//! The command `cargo build --target x86_64-xen-pv`, as it is written: at the top, in an example's
//! folder, and in the folder of an application outside this repository. The resulting image is
//! booted.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-xen-pv";
const PROFILES: [(&str, &[&str]); 2] = [("debug", &[]), ("release", &["--release"])];

/// A folder outside the repository, removed with the value.
struct Outside(PathBuf);

impl Outside {
    fn create() -> Self {
        let folder = std::env::temp_dir().join(format!("zooid-outside-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The command, in these profiles.
fn build_in(folder: &Path, profiles: &[(&str, &[&str])]) {
    for (_, options) in profiles {
        let status = Command::new("cargo")
            .args(["build", "--quiet", "--target", TARGET])
            .args(*options)
            .current_dir(folder)
            .env_remove("CARGO_TARGET_DIR")
            .env("CARGO_NET_OFFLINE", "true")
            .status()
            .unwrap();
        assert!(status.success(), "cargo build --target {TARGET} {options:?} in {}", folder.display());
    }
}

fn image(folder: &Path, profile: &str, name: &str) -> PathBuf {
    folder.join("target").join(TARGET).join(profile).join(name)
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// One test, because cargo lets one build at a time into a target folder anyway.
#[test]
fn images_build_and_boot() {
    let top = top();
    let example = top.join("examples/hello");
    build_in(&example, &PROFILES);
    // All images in the other profile take minutes.
    build_in(&top, &PROFILES[1..]);

    let outside = Outside::create();
    let application = outside.0.join("greeter");
    copy_folder(&top.join("tests/outside/greeter"), &application);
    // The very versions that have been fetched: the test needs no registry.
    fs::copy(top.join("Cargo.lock"), application.join("Cargo.lock")).unwrap();
    symlink(&top, outside.0.join("zooid")).unwrap();
    // The other profile would take as long as half of the images, for what `hello` has shown.
    build_in(&application, &PROFILES[..1]);

    let mut files = vec![top.join("tests/boot/lib.sh")];
    let mut bring = |image: PathBuf, name: &str| {
        let file = outside.0.join(name);
        fs::copy(image, &file).unwrap();
        files.push(file);
    };
    bring(image(&top, "debug", "hello"), "hello-debug");
    bring(image(&top, "release", "hello"), "hello-stripped");
    bring(image(&application, "debug", "greeter"), "greeter-debug");
    let strip = Command::new("strip").arg(outside.0.join("hello-stripped")).status().unwrap();
    assert!(strip.success());
    // Asked for when the test runs: the shell script that calls rustc drops variables whose names
    // have a hyphen.
    let runner = std::env::var_os("CARGO_BIN_EXE_zooid-runner").expect("cargo names the runner");
    let files: Vec<_> = files.iter().map(|file| file.to_str().unwrap()).collect();
    let output = Command::new(runner)
        .args(["dom0", "--timeout", "120", "--files", &files.join(" "), "--script"])
        .arg(top.join("tests/outside/boot.sh"))
        .arg("--out")
        .arg(outside.0.join("out"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
