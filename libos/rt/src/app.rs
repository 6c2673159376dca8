//! An image without an application of its own. It runs those that come as shared objects: `pvm run
//! --app`.
//!
//! ```ignore
//! zooid::main!(zooid::app::host);
//! zooid::dl::trust!(include_bytes!("shop.pub"));
//! ```
//!
//! Each application runs in a child of the empty pVM, made for it, and ends with it; no pVM runs a
//! second one. An application therefore finds in its memory only the contents from before the first
//! one came, and pages of Xen, which it has scrubbed.

use alloc::string::String;
use alloc::vec::Vec;
use core::convert::Infallible;

use crate::dl::{self, Flags};
use crate::process::{self, AtFork};
use crate::sync::{Condvar, Mutex};
use crate::xenstore;

/// A key below this domain's home with the application of the next child, written by pvmd before it
/// asks for the fork. It holds the object's name and the arguments, each followed by a line feed.
const APPLICATION: &str = "application";
/// The key that tells pvmd that this pVM takes applications.
const READY: (&str, &str) = ("data/application", "ready");

struct Next {
    words: Option<String>,
    /// True in the child that is to run it.
    is_child: bool,
}

static NEXT: Mutex<Next> = Mutex::new(Next { words: None, is_child: false });
static BORN: Condvar = Condvar::new();

/// Waits for an application, and runs it in a child. It serves as the image's `main`.
///
/// # Errors
/// In the child: the object cannot be opened, or has no `main`.
pub fn host() -> Result<Infallible, dl::Error> {
    process::at_fork(AtFork { prepare: look, parent: forget, child: begin });
    if let Err(error) = xenstore::write(READY.0, READY.1) {
        log::error!("pvmd will not know that this pVM takes applications: {error}");
    }
    let mut next = NEXT.lock();
    let words = loop {
        if next.is_child
            && let Some(words) = next.words.take()
        {
            break words;
        }
        next = BORN.wait(next);
    };
    drop(next);
    let words: Vec<&str> = words.lines().collect();
    let library = dl::open(words.first().copied().unwrap_or_default(), Flags { global: true, ..Flags::default() })?;
    Err(library.run(&words))
}

/// Runs before a fork.
fn look() {
    // No other code asks for the ends of applications: pvmd knows them.
    while let Ok(Some(_)) = process::waitpid(None, true) {}
    NEXT.lock().words = xenstore::read(APPLICATION).ok().filter(|words| !words.is_empty());
}

/// Runs after a fork, in the empty pVM.
fn forget() {
    NEXT.lock().words = None;
}

/// Runs after a fork, in a child.
fn begin() {
    let mut next = NEXT.lock();
    next.is_child = next.words.is_some();
    BORN.notify_all();
}
