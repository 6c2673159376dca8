//! Calls of Xen's own tool, which makes the domains.

use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::error::Error;
use crate::plain::plain;

/// The output of `xl WORDS...`.
///
/// # Errors
/// It does not exist, or failed. The error holds the last line of its output.
pub fn run(what: &'static str, words: &[&str]) -> Result<String, Error> {
    run_with(what, words, Stdio::null())
}

/// As [`run`], with something on standard input.
pub fn run_with(what: &'static str, words: &[&str], input: impl Into<Stdio>) -> Result<String, Error> {
    // In a group of its own: a Ctrl-C at the terminal would end it in the middle of what it does.
    let output = command().arg(what).args(words).stdin(input).process_group(0).output().map_err(not_there)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(if lacks_memory(&said) { Error::NoMemory(what, complaint(&said)) } else { Error::Xl(what, complaint(&said)) })
}

/// `xl`, without arguments.
pub fn command() -> Command {
    Command::new("xl")
}

/// The error for an `xl` that does not exist or cannot be started.
pub fn not_there(error: std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::Io("start xl: install Xen's tools (Debian: xen-utils)".to_owned(), error),
        _ => Error::Io("start xl".to_owned(), error),
    }
}

/// True if the host has not enough memory: libxl's words where it looks before (`xl` with
/// `autoballoon`), libxenguest's, and those of errno 12.
fn lacks_memory(said: &str) -> bool {
    let words = ["free memory for the domain", "t allocate low memory", "out of memory", "cannot allocate memory"];
    let said = said.to_ascii_lowercase();
    words.iter().any(|word| said.contains(word))
}

/// The line with the reason. libxl prints it first, and then the operations that it could not do
/// for that reason.
fn complaint(said: &str) -> String {
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let error = lines().find(|line| line.contains("error:")).or_else(|| lines().next());
    let line = error.unwrap_or("it does not say why");
    // "libxl: error: libxl_create.c:1234:initiate_domain_create:Domain 5:Unable to ..."
    let text = line.rsplit_once("error: ").map_or(line, |(_, text)| text);
    let text = match text.split_once(".c:") {
        Some((_, rest)) => rest.splitn(3, ':').nth(2).unwrap_or(rest),
        None => text,
    };
    plain(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_memory_is_told_from_other_failures() {
        for said in [
            "xc: error: panic: xg_dom_boot.c:119: xc_dom_boot_mem_init: can't allocate low memory for domain: Out of memory\n",
            "libxl: error: libxl_mem.c:1:f:x\nfailed to free memory for the domain\n",
            "libxl: error: libxl_create.c:1:f:Domain 5:cannot add: Cannot allocate memory\n",
        ] {
            assert!(lacks_memory(said), "{said}");
        }
        assert!(!lacks_memory("libxl: error: libxl_dom.c:1:f:Domain 5:memory map is full\n"));
    }

    #[test]
    fn a_complaint_is_its_first_error_without_the_place_in_libxls_source() {
        for (said, line) in [
            (
                "Parsing config from x.cfg\nlibxl: error: libxl_domain.c:123:libxl__domain_rename:Domain 5:Domain with name \"x\" already exists.\nlibxl: error: libxl_create.c:9:f:cannot make domain: -6\n",
                "Domain 5:Domain with name \"x\" already exists.",
            ),
            (
                "xc: error: panic: xg_dom_boot.c:119: xc_dom_boot_mem_init: can't allocate low memory\n",
                "can't allocate low memory",
            ),
            ("Failed to read x: No such file\n", "Failed to read x: No such file"),
            ("", "it does not say why"),
            ("error:  two  blanks\n", "two blanks"),
        ] {
            assert_eq!(complaint(said), line);
        }
    }
}
