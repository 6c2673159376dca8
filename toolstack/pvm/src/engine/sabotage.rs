//! Deliberate faults: what the simulation of a host (`tests/simulation`) must find, or it finds nothing.
//!
//! Each is asked for at the place in the engine where it strikes. Outside of tests none ever does, and nothing is left of the question.

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A pVM that ends while its COMMIT waits takes the daemon with it.
    EndWhileCommitWaits,
    /// Whoever loses a descendant is told that nobody shares its frames, though others do.
    UnshareEarly,
    /// Tables that a guest has taken out of its tree are taken for its tables.
    DeadTables,
    /// Frames of others are linked without a look at what the parent has itself.
    ForeignUnseen,
    /// Who descends from whom is told by domain numbers.
    NumberForIdentity,
    /// A pVM of the twentieth generation cannot fork.
    FewGenerations,
    /// What a guest no longer grants stays mapped.
    GrantsForEver,
    /// Forks that were not made are not given back.
    KeepForks,
    /// A rest after an end or a fork has no end of its own.
    RestForEver,
    /// Nobody is stopped before its end is told.
    NoStop,
    /// A COMMIT makes children of what is not up to date.
    StaleChildren,
    /// A COMMIT that waits is forgotten.
    ForgetCommit,
    /// Ids come again.
    SameIds,
    /// The home of who has ended stays in xenstore.
    KeepHome,
    /// What was begun and cannot be built stays.
    KeepBuilding,
    /// Ports of who has ended stay open.
    KeepPorts,
    /// A daemon that starts anew lets prepared domains of the one before stay.
    KeepPrepared,
    /// A daemon that starts anew answers no COMMIT of the one before.
    NoOldAnswers,
    /// Of the guest: a fork takes the place of another request.
    #[cfg(test)]
    ForkOverRequest,
    /// Of the guest: it takes the children of another fork for its own.
    #[cfg(test)]
    OthersChildren,
    /// Of the guest: what pvmd did not answer counts as not shared.
    #[cfg(test)]
    UnansweredIsUnshared,
}

#[cfg(test)]
impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 21] = [
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

/// From now on, this fault strikes in this thread, or none.
#[cfg(test)]
pub fn set(sabotage: Option<Sabotage>) {
    NOW.set(sabotage);
}

/// Whether this fault strikes.
#[cfg(test)]
pub fn is(sabotage: Sabotage) -> bool {
    NOW.get() == Some(sabotage)
}

/// Whether this fault strikes: never.
#[cfg(not(test))]
pub const fn is(_: Sabotage) -> bool {
    false
}
