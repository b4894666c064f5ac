//! What backends may rely on, asked through npm's pusher on two nodes. The same is asserted by the suites that belong to
//! Pusher's own libraries.

use carillon_tests::{
    pusher::cluster,
    scenario::{node, run, world},
};

async fn backend(scenario: &str) {
    let cluster = cluster().await;
    run(node("rest", scenario), world(&cluster.nodes)).await;
}

#[tokio::test]
async fn channels_are_those_that_somebody_hears() {
    backend("channelsAreThoseThatSomebodyHears").await;
}

#[tokio::test]
async fn what_nobody_hears_is_answered_too() {
    backend("whatNobodyHearsIsAnsweredToo").await;
}

#[tokio::test]
async fn users_are_counted_of_presence_channels_only() {
    backend("usersAreCountedOfPresenceChannelsOnly").await;
}

#[tokio::test]
async fn a_trigger_is_answered_with_what_was_asked_for() {
    backend("aTriggerIsAnsweredWithWhatWasAskedFor").await;
}

#[tokio::test]
async fn a_batch_is_answered_with_what_was_asked_for() {
    backend("aBatchIsAnsweredWithWhatWasAskedFor").await;
}

#[tokio::test]
async fn limits_are_met_on_both_sides() {
    backend("limitsAreMetOnBothSides").await;
}

#[tokio::test]
async fn what_is_no_event_is_refused() {
    backend("whatIsNoEventIsRefused").await;
}

#[tokio::test]
async fn channels_that_are_named_twice_hear_once() {
    backend("channelsThatAreNamedTwiceHearOnce").await;
}

#[tokio::test]
async fn who_cannot_sign_is_refused() {
    backend("whoCannotSignIsRefused").await;
}

#[tokio::test]
async fn clocks_may_differ_by_less_than_ten_minutes() {
    backend("clocksMayDifferByLessThanTenMinutes").await;
}

#[tokio::test]
async fn users_are_reached_and_terminated() {
    backend("usersAreReachedAndTerminated").await;
}

#[tokio::test]
async fn a_backend_made_from_an_address_is_the_same() {
    backend("aBackendMadeFromAnAddressIsTheSame").await;
}

#[tokio::test]
async fn the_last_event_of_a_cache_channel_is_shown() {
    backend("theLastEventOfACacheChannelIsShown").await;
}

#[tokio::test]
async fn what_is_not_here_is_not_found() {
    backend("whatIsNotHereIsNotFound").await;
}
