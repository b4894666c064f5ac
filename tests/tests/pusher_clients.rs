//! Clients of Pusher Channels that nobody here wrote, on two nodes: npm's pusher publishes on one, pusher-js listens on
//! the other; so do PyPI's pusher and pysher.

use std::sync::Arc;

use carillon_tests::{
    document::{Document, root},
    gateway::Gateway,
    pusher::{Cluster, cluster},
    scenario::{node, python, run, world},
};
use serde_json::json;

async fn both_nodes() -> (Arc<Cluster>, String) {
    let cluster = cluster().await;
    let world = world(&cluster.nodes);
    (cluster, world)
}

async fn javascript(file: &str, scenario: &str) {
    let (_cluster, world) = both_nodes().await;
    run(node(file, scenario), world).await;
}

async fn pysher(scenario: &str) {
    let (_cluster, world) = both_nodes().await;
    run(python("clients.py", scenario), world).await;
}

#[tokio::test]
async fn every_data_arrives() {
    javascript("channels", "everyDataArrives").await;
}

#[tokio::test]
async fn a_string_that_is_json_arrives_as_its_value() {
    javascript("channels", "aStringThatIsJsonArrivesAsItsValue").await;
}

#[tokio::test]
async fn events_have_the_names_they_were_given() {
    javascript("channels", "eventsHaveTheNamesTheyWereGiven").await;
}

#[tokio::test]
async fn one_trigger_reaches_many_channels() {
    javascript("channels", "oneTriggerReachesManyChannels").await;
}

#[tokio::test]
async fn batches_arrive_in_their_order() {
    javascript("channels", "batchesArriveInTheirOrder").await;
}

#[tokio::test]
async fn who_said_it_does_not_hear_it() {
    javascript("channels", "whoSaidItDoesNotHearIt").await;
}

#[tokio::test]
async fn private_channels_are_heard_by_those_who_may() {
    javascript("channels", "privateChannelsAreHeardByThoseWhoMay").await;
}

#[tokio::test]
async fn a_wrong_signature_is_told_and_the_connection_stays() {
    javascript("channels", "aWrongSignatureIsToldAndTheConnectionStays").await;
}

#[tokio::test]
async fn encrypted_channels_are_read_by_clients_only() {
    javascript("channels", "encryptedChannelsAreReadByClientsOnly").await;
}

#[tokio::test]
async fn the_last_event_of_a_cache_channel_is_kept() {
    javascript("channels", "theLastEventOfACacheChannelIsKept").await;
}

#[tokio::test]
async fn a_cache_channel_is_filled_before_anybody_listens() {
    javascript("channels", "aCacheChannelIsFilledBeforeAnybodyListens").await;
}

#[tokio::test]
async fn joining_and_leaving_in_any_order_ends_as_it_was_said_last() {
    javascript("channels", "joiningAndLeavingInAnyOrderEndsAsItWasSaidLast").await;
}

#[tokio::test]
async fn nothing_is_heard_after_leaving() {
    javascript("channels", "nothingIsHeardAfterLeaving").await;
}

#[tokio::test]
async fn a_key_that_nobody_has_is_refused_for_good() {
    javascript("channels", "aKeyThatNobodyHasIsRefusedForGood").await;
}

#[tokio::test]
async fn subscribers_are_told_how_many_they_are() {
    javascript("channels", "subscribersAreToldHowManyTheyAre").await;
}

#[tokio::test]
async fn the_page_works_as_it_stands() {
    let gateway = Gateway::dev(&[]);
    let port = format!("wsPort: {}", gateway.public.port());
    let page = Document::read("docs/pusher.md");
    let blocks = page.blocks("js").into_iter().map(|block| {
        block
            .replace("wsPort: 8000", &port)
            .replace("port: '8000'", &format!("port: '{}'", gateway.public.port()))
    });
    let blocks: Vec<String> = blocks.collect();
    assert_eq!(blocks.len(), 2);
    let mut command = node("channels", "thePageWorksAsItStands");
    command.env("BLOCKS", json!(blocks).to_string());
    run(command, world([&gateway])).await;
    for link in page.links() {
        assert!(root().join(&link).exists(), "{}", link.display());
    }
}

#[tokio::test]
async fn members_of_both_nodes_see_each_other() {
    javascript("people", "membersOfBothNodesSeeEachOther").await;
}

#[tokio::test]
async fn a_user_with_two_tabs_comes_and_goes_once() {
    javascript("people", "aUserWithTwoTabsComesAndGoesOnce").await;
}

#[tokio::test]
async fn what_clients_say_reaches_the_others_only() {
    javascript("people", "whatClientsSayReachesTheOthersOnly").await;
}

#[tokio::test]
async fn an_application_may_switch_client_events_off() {
    javascript("people", "anApplicationMaySwitchClientEventsOff").await;
}

#[tokio::test]
async fn a_user_is_reached_on_every_connection() {
    javascript("people", "aUserIsReachedOnEveryConnection").await;
}

#[tokio::test]
async fn a_user_whose_connections_are_terminated_stays_away() {
    javascript("people", "aUserWhoseConnectionsAreTerminatedStaysAway").await;
}

#[tokio::test]
async fn who_has_signed_in_is_a_member_by_that() {
    javascript("people", "whoHasSignedInIsAMemberByThat").await;
}

#[tokio::test]
async fn a_watchlist_tells_who_comes_online_and_goes() {
    javascript("people", "aWatchlistTellsWhoComesOnlineAndGoes").await;
}

#[tokio::test]
async fn with_python_every_byte_arrives() {
    pysher("every_byte_arrives").await;
}

#[tokio::test]
async fn with_python_a_batch_arrives_in_its_order() {
    pysher("a_batch_arrives_in_its_order").await;
}

#[tokio::test]
async fn with_python_members_come_and_go() {
    pysher("members_come_and_go").await;
}

#[tokio::test]
async fn with_python_what_a_client_says_arrives_as_text() {
    pysher("what_a_client_says_arrives_as_text").await;
}

#[tokio::test]
async fn with_python_a_signature_of_the_backend_opens_a_channel() {
    pysher("a_signature_of_the_backend_opens_a_channel").await;
}

#[tokio::test]
async fn with_python_who_said_it_does_not_hear_it() {
    pysher("who_said_it_does_not_hear_it").await;
}

#[tokio::test]
async fn with_python_encrypted_data_is_not_read_on_the_way() {
    pysher("encrypted_data_is_not_read_on_the_way").await;
}

#[tokio::test]
async fn with_python_what_is_asked_is_answered() {
    pysher("what_is_asked_is_answered").await;
}

#[tokio::test]
async fn with_python_what_is_wrong_is_refused() {
    pysher("what_is_wrong_is_refused").await;
}
