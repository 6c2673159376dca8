mod children;
mod interleavings;
mod mailbox;

use alloc::collections::BTreeMap;
use core::cell::{Cell, RefCell};

use crate::Page;
use crate::mailbox::Channel;

/// A control page, a clock, and a pvmd that is there or not; [`Channel::wait`] lets time pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Desk {
    words: RefCell<BTreeMap<usize, u32>>,
    now: Cell<u64>,
    there: Cell<bool>,
}

impl Page for Desk {
    fn read(&self, at: usize) -> u32 {
        self.words.borrow().get(&at).copied().unwrap_or(0)
    }

    fn write(&self, at: usize, value: u32) {
        self.words.borrow_mut().insert(at, value);
    }
}

impl Channel for Desk {
    fn notify(&self) {}

    fn daemon_is_there(&self) -> bool {
        self.there.get()
    }

    fn now(&self) -> u64 {
        self.now.get()
    }

    fn wait(&self, deadline: u64, answered: &mut dyn FnMut() -> bool) -> bool {
        self.now.set(deadline);
        answered()
    }
}
