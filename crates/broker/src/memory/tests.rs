use bytes::Bytes;

use super::*;

fn log(max_messages: u32, max_bytes: u64) -> ShardLog {
    let name = ClassName::new("short").unwrap();
    let class = RetentionClass { name, max_age: Duration::from_secs(600), max_messages, max_bytes };
    ShardLog::new(Epoch::from_bits(1), class)
}

fn keep(log: &mut ShardLog, channel: &str, offset: u64, data: &'static [u8]) {
    let message = NewMessage {
        channel: ChannelName::new(channel).unwrap(),
        event: None,
        data: Bytes::from_static(data),
        kind: carillon_model::DataKind::Json,
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
    past(log, channel, Since::Oldest).unwrap()
}

fn named(channel: &str) -> ChannelName {
    ChannelName::new(channel).unwrap()
}

fn at(offset: u64) -> Position {
    Position { epoch: Epoch::from_bits(1), offset: Offset::new(offset) }
}

fn past(log: &ShardLog, channel: &str, since: Since) -> Result<Vec<u64>, Unrecovered> {
    let list = log.past(&named(channel), since, at(log.head.get()), ReplayLimits::default())?;
    Ok(list.iter().filter_map(|kept| Some(kept.position?.offset.get())).collect())
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
    assert_eq!((log.count, log.bytes), (1, OVERHEAD_BYTES + 4));
}

#[test]
fn bytes_are_bounded_whatever_the_channels() {
    let mut log = log(100, 10 * (OVERHEAD_BYTES + 16));
    for offset in 1..=20 {
        keep(&mut log, if offset % 2 == 0 { "even" } else { "odd" }, offset, b"1234");
    }
    assert_eq!((kept(&log, "even"), kept(&log, "odd")), (vec![12, 14, 16, 18, 20], vec![11, 13, 15, 17, 19]));
}

#[test]
fn what_was_dropped_is_never_passed_over() {
    let mut log = log(3, 1 << 20);
    for offset in 1..=5 {
        keep(&mut log, "news", offset, b"1");
    }
    keep(&mut log, "other", 6, b"1");
    let after = |offset| Since::After(at(offset));
    assert_eq!(past(&log, "news", after(1)), Err(Unrecovered::Expired));
    assert_eq!(past(&log, "news", after(2)), Ok(vec![3, 4, 5]));
    assert_eq!(past(&log, "news", after(4)), Ok(vec![5]));
    assert_eq!(past(&log, "news", after(6)), Ok(vec![]));
    assert_eq!(past(&log, "news", after(7)), Err(Unrecovered::Epoch), "it never got as far");
    let foreign = Since::After(Position { epoch: Epoch::from_bits(2), ..at(4) });
    assert_eq!(past(&log, "news", foreign), Err(Unrecovered::Epoch));
    assert_eq!(past(&log, "news", Since::Last(2)), Ok(vec![4, 5]));
    assert_eq!(past(&log, "news", Since::Time(UnixMillis::new(3))), Ok(vec![3, 4, 5]));
    assert_eq!(past(&log, "news", Since::Time(UnixMillis::new(2))), Err(Unrecovered::Expired));
    // All of it expires, and with it the memory of the channel; what comes then does not make it whole.
    log.expire(UnixMillis::new(600_006));
    assert_eq!(past(&log, "news", after(4)), Err(Unrecovered::Expired));
    assert_eq!(past(&log, "news", after(5)), Ok(vec![]));
    keep(&mut log, "news", 600_007, b"1");
    assert_eq!(past(&log, "news", after(4)), Err(Unrecovered::Expired));
    assert_eq!(past(&log, "news", after(5)), Ok(vec![600_007]));
    assert_eq!(past(&log, "never", after(4)), Err(Unrecovered::Expired), "for all that is known");
    let small = ReplayLimits { messages: 1, bytes: 0 };
    let channel = ChannelName::new("news").unwrap();
    assert_eq!(log.past(&channel, Since::Oldest, at(600_007), small).err(), Some(Unrecovered::Limit));
}
