//! Deliberate faults that the simulation of a host (`tests/simulation`) must find, to show that it
//! finds anything.
//!
//! The engine asks for each at the place where it strikes. Outside of tests none strikes, and the
//! compiler removes the question.

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A pVM that ends while its COMMIT waits takes the daemon with it.
    EndWhileCommitWaits,
    /// A pVM that loses a descendant is told that its frames are unshared, though others share
    /// them.
    UnshareEarly,
    /// Tables that a guest has taken out of its tree are taken for its tables.
    DeadTables,
    /// Frames of others are linked without a look at the parent's own entry.
    ForeignUnseen,
    /// Descent is told by domain numbers.
    NumberForIdentity,
    /// A pVM of the twentieth generation cannot fork.
    FewGenerations,
    /// Grants that a guest has withdrawn stay mapped.
    GrantsForEver,
    /// Forks that were not made are not given back.
    KeepForks,
    /// A rest after an end or a fork has no end of its own.
    RestForEver,
    /// A pVM is not stopped before its end is told.
    NoStop,
    /// A pVM is in the table of members when its end is told.
    LateStrike,
    /// A COMMIT makes children of domains that are out of date.
    StaleChildren,
    /// A COMMIT that waits is forgotten.
    ForgetCommit,
    /// Ids are given out again.
    SameIds,
    /// The home of an ended pVM stays in xenstore.
    KeepHome,
    /// A domain that cannot be built stays.
    KeepBuilding,
    /// Ports of an ended pVM stay open.
    KeepPorts,
    /// A daemon that starts anew keeps prepared domains of the earlier one.
    KeepPrepared,
    /// A daemon that starts anew answers no COMMIT of the earlier one.
    NoOldAnswers,
    /// Of the guest: a fork takes the place of another request.
    #[cfg(test)]
    ForkOverRequest,
    /// Of the guest: it takes the children of another fork for its own.
    #[cfg(test)]
    OthersChildren,
    /// Of the guest: a fork without an answer counts as not shared.
    #[cfg(test)]
    UnansweredIsUnshared,
}

#[cfg(test)]
impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::EndWhileCommitWaits,
        Self::UnshareEarly,
        Self::DeadTables,
        Self::ForeignUnseen,
        Self::NumberForIdentity,
        Self::FewGenerations,
        Self::GrantsForEver,
        Self::KeepForks,
        Self::RestForEver,
        Self::NoStop,
        Self::LateStrike,
        Self::StaleChildren,
        Self::ForgetCommit,
        Self::SameIds,
        Self::KeepHome,
        Self::KeepBuilding,
        Self::KeepPorts,
        Self::KeepPrepared,
        Self::NoOldAnswers,
        Self::ForkOverRequest,
        Self::OthersChildren,
        Self::UnansweredIsUnshared,
    ];
}

#[cfg(test)]
thread_local! {
    static NOW: std::cell::Cell<Option<Sabotage>> = const { std::cell::Cell::new(None) };
}

/// Has this fault strike in this thread from now on; none for no fault.
#[cfg(test)]
pub fn set(sabotage: Option<Sabotage>) {
    NOW.set(sabotage);
}

/// True if this fault strikes.
#[cfg(test)]
pub fn is(sabotage: Sabotage) -> bool {
    NOW.get() == Some(sabotage)
}

/// No fault strikes.
#[cfg(not(test))]
pub const fn is(_: Sabotage) -> bool {
    false
}
