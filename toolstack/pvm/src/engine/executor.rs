//! The operations that the engine's work is made of, and the hooks around each.
//!
//! A domain is built, committed and removed by lists of these. All changes outside of this process
//! are operations, so a test can kill the daemon before and after each.

use std::fmt;
use std::time::Instant;

use rustix::process::{Signal, getpid, kill_process};

use super::api::StepTime;
use super::config::{DieAt, Point};
use super::stats::Time;

/// One operation. The log names it by its variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads the parent's tables and plans.
    Plan,
    /// Makes the domain.
    Create,
    /// Writes its identity into its handle.
    Sign,
    /// Gives it a vcpu, a CPU policy, a clock and its share of the processor.
    Configure,
    /// Gives it memory.
    Populate,
    /// Makes its ports.
    Channels,
    /// Fills its grant table.
    Grants,
    /// Writes its page tables.
    FillTables,
    /// Writes its special pages.
    FillPages,
    /// Pins its page tables.
    Pin,
    /// Links a table to the parent's.
    Link,
    /// Loads its registers.
    Load,
    /// Maps its control page.
    Map,
    /// Marks its home in xenstore, or makes that of a memory owner.
    Home,
    /// Lets it run to its waiting point.
    Start,
    /// Raises the parent's memory limit.
    MakeRoom,
    /// Sets entries that differ from the parent's.
    Relink,
    /// Makes a prepared domain a child: the commit point.
    Commit,
    /// Tells the child to go on.
    Go,
    /// Answers the parent.
    Reply,
    /// Fills a child's home in xenstore.
    FillHome,
    /// Introduces it to xenstored.
    Introduce,
    /// Writes the place of its console for xenconsoled.
    ShowConsole,
    /// Tells the parent of a child's end.
    TellEnd,
    /// Destroys a domain.
    Destroy,
    /// Removes its home from xenstore.
    RemoveHome,
    /// Tells a pVM that nobody shares its frames.
    Unshare,
    /// Makes a family's memory owner.
    MakeMemoryOwner,
    /// Gives it memory for an object, or for the table of members.
    Hold,
    /// Clears that memory.
    Clear,
    /// Writes in xenstore the frames of an object, or that it has none any more.
    Record,
    /// Copies a part of a library's file to its frames.
    FillLibrary,
    /// Maps an object's or a library's pages at a member.
    MapObject,
    /// Gives back the memory owner's frames.
    GiveBack,
    /// Maps the table of members at a member.
    MapMembers,
    /// Puts a pVM into the table of members.
    Enrol,
    /// Takes a pVM out of it.
    Strike,
    /// Tells members that there is news.
    TellMembers,
}

/// The operations that build a prepared domain.
pub const BUILD: [Operation; 15] = [
    Operation::Plan,
    Operation::Create,
    Operation::Sign,
    Operation::Configure,
    Operation::Populate,
    Operation::Channels,
    Operation::Grants,
    Operation::FillTables,
    Operation::FillPages,
    Operation::Pin,
    Operation::Home,
    Operation::Link,
    Operation::Map,
    Operation::Load,
    Operation::Start,
];

/// Counts operations, times them, and ends the process at one that a test names.
#[derive(Debug)]
pub struct Executor {
    count: u64,
    die_at: Option<DieAt>,
    began: Instant,
    /// In the order of their first use.
    times: Vec<(Operation, Time)>,
}

impl Executor {
    /// An executor that has done nothing yet.
    pub fn new(die_at: Option<DieAt>) -> Self {
        Self { count: 0, die_at, began: Instant::now(), times: Vec::new() }
    }

    /// The number of operations done.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their times.
    pub fn times(&self) -> impl Iterator<Item = StepTime> {
        self.times.iter().map(|(operation, time)| time.named(operation.to_string()))
    }

    /// Precedes an operation.
    pub fn before(&mut self, operation: Operation) {
        self.hook(operation, false);
        self.began = Instant::now();
    }

    /// Follows it, whether it succeeded or not.
    pub fn after(&mut self, operation: Operation) {
        let place = self.times.iter().position(|(other, _)| *other == operation).unwrap_or_else(|| {
            self.times.push((operation, Time::default()));
            self.times.len() - 1
        });
        self.times[place].1.add(self.began);
        self.hook(operation, true);
        self.count += 1;
    }

    fn hook(&self, operation: Operation, after: bool) {
        let Some(die_at) = self.die_at.as_ref().filter(|die_at| die_at.after == after) else { return };
        let is_it = match &die_at.point {
            Point::Number(number) => *number == self.count,
            Point::Named(name, number) => {
                let done = self.times.iter().find(|(other, _)| *other == operation).map_or(0, |(_, time)| time.count());
                // After the operation, it has been counted.
                *name == operation.to_string() && done + u64::from(!after) == *number
            }
        };
        if is_it {
            log::warn!(operation:?, after; "dying here, as configured");
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, out)
    }
}
