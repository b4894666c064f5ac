use bytes::Bytes;
use carillon_model::{Epoch, NewMessage, Offset, Publication, UnixMillis};
use carillon_tasks::clock;

use super::*;

fn name(text: &str) -> ChannelName {
    ChannelName::new(text).unwrap()
}

fn delivery(channel: &str, offset: u64) -> Arc<Delivery> {
    let message = NewMessage {
        channel: name(channel),
        event: None,
        data: Bytes::from_static(b"1"),
        kind: carillon_model::DataKind::Json,
        time: UnixMillis::new(0),
        user: None,
        exclude: Box::default(),
        id: None,
    };
    let position = Some(Position { epoch: Epoch::from_bits(1), offset: Offset::new(offset) });
    Arc::new(Delivery::new(Arc::new(Publication::new(message, position)), clock::now()))
}

fn shown(mailbox: &Mailbox, budget: usize) -> Vec<String> {
    let mut mail = Vec::new();
    mailbox.take(&mut mail, budget);
    let show = |mail: Mail| match mail {
        Mail::Deliver(delivery) => {
            let publication = delivery.publication();
            format!("{}@{}", publication.message.channel, publication.position.unwrap().offset)
        }
        Mail::Missed(channel, position, _) => format!("gap {channel}@{}", position.unwrap().offset),
        Mail::Changed(change) => format!("change {}", change.turn),
        Mail::Counted(channel) => format!("count {channel}"),
        Mail::Overlooked(channel) => format!("overlooked {channel}"),
        other @ (Mail::Asked(..) | Mail::Accepted(..) | Mail::Drain(_) | Mail::Cut) => format!("{other:?}"),
    };
    mail.into_iter().map(show).collect()
}

#[test]
fn what_does_not_fit_leaves_one_notice_of_the_last_loss() {
    let mailbox = Mailbox::new(2, Arc::default());
    assert_eq!(mailbox.deliver(delivery("a", 1)), Delivered::Queued);
    assert_eq!(mailbox.deliver(delivery("a", 2)), Delivered::Queued);
    for offset in 3..10 {
        assert_eq!(mailbox.deliver(delivery("a", offset)), Delivered::Dropped);
        assert_eq!(mailbox.deliver(delivery("b", offset)), Delivered::Dropped);
    }
    assert_eq!(shown(&mailbox, 3), ["a@1", "a@2", "gap a@9"]);
    // There is room again behind the notices, and a loss after that is told again.
    assert_eq!(mailbox.deliver(delivery("a", 10)), Delivered::Queued);
    assert_eq!(mailbox.deliver(delivery("c", 11)), Delivered::Queued);
    assert_eq!(mailbox.deliver(delivery("a", 12)), Delivered::Dropped);
    assert_eq!(shown(&mailbox, 10), ["gap b@9", "a@10", "c@11", "gap a@12"]);
    assert_eq!(mailbox.deliver(delivery("a", 13)), Delivered::Queued);
}

#[test]
fn a_loss_is_told_although_an_earlier_one_was_told_before() {
    let mailbox = Mailbox::new(2, Arc::default());
    mailbox.deliver(delivery("a", 1));
    mailbox.deliver(delivery("a", 2));
    assert_eq!(mailbox.deliver(delivery("a", 3)), Delivered::Dropped);
    assert_eq!(mailbox.deliver(delivery("b", 3)), Delivered::Dropped);
    assert_eq!(shown(&mailbox, 3), ["a@1", "a@2", "gap a@3"]);
    // The notice of `b` is still there, so the queue never ran empty.
    mailbox.deliver(delivery("c", 4));
    mailbox.deliver(delivery("c", 5));
    assert_eq!(mailbox.deliver(delivery("a", 6)), Delivered::Dropped);
    assert_eq!(shown(&mailbox, 10), ["gap b@3", "c@4", "c@5", "gap a@6"]);
}

#[test]
fn notices_take_no_room_from_deliveries() {
    let mailbox = Mailbox::new(2, Arc::default());
    for n in 0..100 {
        mailbox.gap(name(&format!("quiet.{n}")), delivery("a", n).publication().position);
    }
    assert_eq!(mailbox.deliver(delivery("a", 1)), Delivered::Queued);
    assert_eq!(mailbox.len(), 1);
}

#[tokio::test]
async fn publishers_wait_for_room_and_are_woken_when_there_is() {
    let roomy = Arc::new(Notify::new());
    let mailbox = Mailbox::new(8, Arc::clone(&roomy));
    for offset in 0..5 {
        assert!(!mailbox.is_crowded(), "{offset} of 8");
        mailbox.deliver(delivery("a", offset));
    }
    let woken = roomy.notified();
    assert!(mailbox.is_crowded());
    assert_eq!(shown(&mailbox, 1).len(), 1);
    woken.await;
    assert!(!mailbox.is_crowded());
}

#[test]
fn changes_that_do_not_fit_leave_one_notice_for_each_channel() {
    let mailbox = Mailbox::new(2, Arc::default());
    let change = |channel: &str, turn| {
        let channel = ChannelName::new(channel).unwrap();
        let user = carillon_model::UserId::new("7").unwrap();
        let member = carillon_model::Member { user, kind: carillon_model::IdKind::Text, info: None };
        Arc::new(Change { channel, what: Changed::Came(member), turn })
    };
    assert_eq!(mailbox.change(&change("a", 1)), Delivered::Queued);
    assert_eq!(mailbox.change(&change("a", 2)), Delivered::Queued);
    for turn in 3..9 {
        assert_eq!(mailbox.change(&change("a", turn)), Delivered::Dropped);
        assert_eq!(mailbox.change(&change("b", turn)), Delivered::Dropped);
    }
    // Deliveries have room of their own.
    assert_eq!(mailbox.deliver(delivery("a", 1)), Delivered::Queued);
    assert_eq!(shown(&mailbox, 10), ["change 1", "change 2", "overlooked a", "overlooked b", "a@1"]);
    assert_eq!(mailbox.change(&change("a", 9)), Delivered::Queued);
    assert_eq!(shown(&mailbox, 10), ["change 9"]);
}

#[test]
fn of_the_counts_of_a_channel_the_last_one_waits() {
    let mailbox = Mailbox::new(2, Arc::default());
    let count = |channel: &str, turn| {
        let channel = ChannelName::new(channel).unwrap();
        Arc::new(Change { channel, what: Changed::Counted(turn), turn })
    };
    for turn in 1..100 {
        assert_eq!(mailbox.change(&count("a", turn)), Delivered::Queued);
        assert_eq!(mailbox.change(&count("b", 1000 + turn)), Delivered::Queued);
    }
    assert_eq!(shown(&mailbox, 10), ["change 99", "change 1099"]);
    assert_eq!(mailbox.change(&count("a", 100)), Delivered::Queued);
    assert_eq!(shown(&mailbox, 10), ["change 100"]);
}
