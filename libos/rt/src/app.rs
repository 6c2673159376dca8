//! An image without an application of its own, which runs those that come as shared objects: `pvm run --app`.
//!
//! ```ignore
//! zooid::main!(zooid::app::host);
//! zooid::dl::trust!(include_bytes!("shop.pub"));
//! ```
//!
//! Each application runs in a child of the empty pVM, made for it, and ends with it: no pVM runs a second one. So what an application finds in its memory is
//! what was there before the first one came, and what Xen gives, which it scrubs.

use alloc::string::String;
use alloc::vec::Vec;
use core::convert::Infallible;

use crate::dl::{self, Flags};
use crate::process::{self, AtFork};
use crate::sync::{Condvar, Mutex};
use crate::xenstore;

/// Below this domain's home: what the next child is to run, written by pvmd before it asks for the fork. The object's name and the arguments, each with a
/// line feed behind it.
const APPLICATION: &str = "application";
/// Tells pvmd that this pVM takes applications.
const READY: (&str, &str) = ("data/application", "ready");

struct Next {
    words: Option<String>,
    /// Whether this is the child for it.
    is_child: bool,
}

static NEXT: Mutex<Next> = Mutex::new(Next { words: None, is_child: false });
static BORN: Condvar = Condvar::new();

/// Waits for an application, and runs it in a child; the image's `main`.
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

/// Before a fork.
fn look() {
    // Nobody else asks how an application has ended: pvmd knows.
    while let Ok(Some(_)) = process::waitpid(None, true) {}
    NEXT.lock().words = xenstore::read(APPLICATION).ok().filter(|words| !words.is_empty());
}

/// After it, in the empty pVM.
fn forget() {
    NEXT.lock().words = None;
}

/// After it, in a child.
fn begin() {
    let mut next = NEXT.lock();
    next.is_child = next.words.is_some();
    BORN.notify_all();
}
