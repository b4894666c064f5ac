//! Bugs that are planted on purpose, in what surrounds the rules here: each must be found.
//!
//! **Lives here:** their names.
//! **Called by:** the parts of the simulation, each at the place of its bug; the test that wants them found.
//! **Must not know:** how they are found.

/// What is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Nothing.
    None,
    /// Now and then a publication is neither remembered nor handed on.
    SkipSequence,
    /// Now and then a frame is offered twice.
    DeliverTwice,
    /// Now and then two publications are handed on in the wrong order.
    SwapTwo,
    /// A client that is brought its past gets what is published meanwhile.
    ReleaseEarly,
    /// A place of another epoch is taken for one of the present epoch.
    TrustForeignEpoch,
    /// A place that the stream never reached is taken for its end.
    TrustFuture,
    /// A loss that the broker could not repair is not told.
    LoseInSilence,
    /// What finds no room in the mailbox is dropped without word.
    OverflowInSilence,
    /// What finds no room in an outbox is dropped without word.
    OutboxInSilence,
    /// A replay ends one message early.
    PartialReplay,
    /// The position is read before the node wants the channel.
    InterestLate,
    /// A client stands where the channel is, not where its replay ended.
    StandAhead,
    /// A publication is handed on before it is remembered.
    RememberLate,
    /// After an interruption the feed is believed without a question.
    BelieveFeed,
    /// A stream that went backwards keeps its epoch.
    KeepEpoch,
}

impl Bug {
    /// Every bug.
    pub const ALL: [Self; 15] = [
        Self::SkipSequence,
        Self::DeliverTwice,
        Self::SwapTwo,
        Self::ReleaseEarly,
        Self::TrustForeignEpoch,
        Self::TrustFuture,
        Self::LoseInSilence,
        Self::OverflowInSilence,
        Self::OutboxInSilence,
        Self::PartialReplay,
        Self::InterestLate,
        Self::StandAhead,
        Self::RememberLate,
        Self::BelieveFeed,
        Self::KeepEpoch,
    ];
}
