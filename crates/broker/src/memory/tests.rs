use bytes::Bytes;

use super::*;

fn log(max_messages: u32, max_bytes: u64) -> ShardLog {
    let name = ClassName::new("short").unwrap();
    ShardLog::new(RetentionClass { name, max_age: Duration::from_secs(600), max_messages, max_bytes })
}

fn keep(log: &mut ShardLog, channel: &str, offset: u64, data: &'static [u8]) {
    let message = NewMessage {
        channel: ChannelName::new(channel).unwrap(),
        event: None,
        data: Bytes::from_static(data),
        time: UnixMillis::new(offset),
        user: None,
        exclude: Box::default(),
        id: None,
    };
    let offset = Offset::new(offset);
    let position = Some(Position { epoch: Epoch::from_bits(1), offset });
    log.keep(offset, Arc::new(Publication::new(message, position)));
}

fn kept(log: &ShardLog, channel: &str) -> Vec<u64> {
    let channel = ChannelName::new(channel).unwrap();
    log.after(&channel, Offset::ZERO).filter_map(|kept| Some(kept.position?.offset.get())).collect()
}

#[test]
fn a_loud_channel_costs_what_it_keeps_and_drops_nothing_of_a_quiet_one() {
    let mut log = log(3, 1 << 20);
    keep(&mut log, "quiet", 1, b"1");
    for offset in 2..100_000 {
        keep(&mut log, "loud", offset, b"1");
        assert!(log.order.len() <= 2 * log.count + ORDER_SLACK, "{} at {offset}", log.order.len());
    }
    assert_eq!((kept(&log, "quiet"), kept(&log, "loud")), (vec![1], vec![99_997, 99_998, 99_999]));
    log.expire(UnixMillis::new(99_999 + 600_000));
    assert_eq!((kept(&log, "quiet"), kept(&log, "loud")), (vec![], vec![99_999]));
    assert_eq!((log.count, log.bytes), (1, OVERHEAD_BYTES + 1));
}

#[test]
fn bytes_are_bounded_whatever_the_channels() {
    let mut log = log(100, 10 * (OVERHEAD_BYTES + 4));
    for offset in 1..=20 {
        keep(&mut log, if offset % 2 == 0 { "even" } else { "odd" }, offset, b"1234");
    }
    assert_eq!((kept(&log, "even"), kept(&log, "odd")), (vec![12, 14, 16, 18, 20], vec![11, 13, 15, 17, 19]));
}
