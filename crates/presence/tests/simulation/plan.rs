//! What may happen in a run.

/// Which faults there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Faults {
    /// None: nodes start at the beginning and stay.
    None,
    /// Nodes start and stop in order.
    Rolling,
    /// Nodes are killed, too.
    Kills,
    /// Words are lost.
    Losses,
    /// Links are interrupted.
    Links,
    /// All of these.
    All,
}

impl Faults {
    pub(crate) const ALL: [Self; 6] =
        [Self::None, Self::Rolling, Self::Kills, Self::Losses, Self::Links, Self::All];

    pub(crate) const fn nodes_change(self) -> bool {
        matches!(self, Self::Rolling | Self::Kills | Self::All)
    }

    pub(crate) const fn kills(self) -> bool {
        matches!(self, Self::Kills | Self::All)
    }

    pub(crate) const fn loses(self) -> bool {
        matches!(self, Self::Losses | Self::All)
    }
}

/// Bugs that are planted on purpose, around the rules or by impossible times: each must be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// Questions are not answered.
    NoAnswers,
    /// Answers claim to be newer than they are.
    AnswersFromTheFuture,
    /// A shard's digest is never right.
    DigestOfNothing,
    /// The dead do not leave.
    Immortal,
    /// Who is silent between two heartbeats is dead.
    DiesAtOnce,
    /// A node does not know that its link is down.
    DeafUnknown,
    /// Ends are not held.
    NoHold,
    /// A node that starts tells at once.
    TellsAtOnce,
    /// No node knows that others tell, too.
    AllTell,
    /// Nobody tells.
    NobodyTells,
    /// A leave is forgotten now and then.
    Ghosts,
    /// Half of a word's changes are lost.
    HalfWords,
    /// A node that stops says so, and goes on.
    ByeAndStay,
    /// A node that was thought dead is not told so.
    NoDoubt,
    /// A node that comes back says what it said before.
    OneLife,
    /// What a node adds is shown twice now and then.
    AddedTwice,
}

impl Bug {
    pub(crate) const ALL: [Self; 16] = [
        Self::NoAnswers,
        Self::AnswersFromTheFuture,
        Self::DigestOfNothing,
        Self::Immortal,
        Self::DiesAtOnce,
        Self::DeafUnknown,
        Self::NoHold,
        Self::TellsAtOnce,
        Self::AllTell,
        Self::NobodyTells,
        Self::Ghosts,
        Self::HalfWords,
        Self::ByeAndStay,
        Self::NoDoubt,
        Self::OneLife,
        Self::AddedTwice,
    ];
}
