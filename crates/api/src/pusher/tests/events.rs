//! Events and batches of them.

use serde_json::json;

use super::*;

#[tokio::test]
async fn an_event_reaches_each_of_its_channels_once() {
    let served = Served::new();
    served.trigger(r#"{"name":"App\\Events\\Shipped","channel":"a","data":"{\"id\":7}"}"#).await.is("{}");
    served
        .trigger(r#"{"name":"e","channels":["b","private-c","b"],"data":"é","tags":["ignored"]}"#)
        .await
        .is("{}");
    served.trigger(r#"{"name":"e","channel":"d","channels":["e","d"],"data":""}"#).await.is("{}");
    assert_eq!(
        served.published(),
        [
            r#"#a App\Events\Shipped "{\"id\":7}""#,
            r#"#b e "é""#,
            r#"#private-c e "é""#,
            r#"#d e """#,
            r#"#e e """#,
        ]
    );
}

#[tokio::test]
async fn the_data_is_passed_on_byte_for_byte() {
    let served = Served::new();
    for data in
        [r#""{ \"a\" : \"\\u00e9\\/\", \"a\": 1.0 }""#, r#""\u00e9\ud83d\ude00\n""#, r#""5""#, r#""plain""#]
    {
        served.trigger(format!(r#"{{"name":"e","channel":"a","data":{data}}}"#)).await.is("{}");
        assert_eq!(served.published(), [format!("#a e {data}")]);
    }
    // What is no string is its own text.
    served.trigger(r#"{"name":"e","channel":"a","data": { "a" : [ 1, "x y" ] }}"#).await.is("{}");
    assert_eq!(served.published(), [r#"#a e "{\"a\":[1,\"x y\"]}""#]);
}

#[tokio::test]
async fn what_is_missing_or_wrong_is_said_and_nothing_is_published() {
    let served = Served::new();
    for (body, status, text) in [
        ("", 400, "Invalid JSON"),
        ("[]", 400, "Invalid JSON"),
        ("{", 400, "Invalid JSON"),
        ("{}", 400, "Missing required parameter: name"),
        (r#"{"name":null,"channel":"a","data":"x"}"#, 400, "Missing required parameter: name"),
        (r#"{"name":"e","channel":"a"}"#, 400, "Missing required parameter: data"),
        (r#"{"name":"e","channel":"a","data":null}"#, 400, "Missing required parameter: data"),
        (r#"{"name":"e","data":"x"}"#, 400, "Missing required parameter: channel"),
        (r#"{"name":"e","channels":[],"data":"x"}"#, 400, "Missing required parameter: channel"),
        (r#"{"name":5,"channel":"a","data":"x"}"#, 400, "Invalid JSON"),
        (r#"{"name":"e","channel":5,"data":"x"}"#, 400, "Invalid JSON"),
        (r#"{"name":"e","channels":"a","data":"x"}"#, 400, "Invalid JSON"),
        (r#"{"name":"e","channels":["a",5],"data":"x"}"#, 400, "Invalid JSON"),
        (r#"{"name":"e","name":"f","channel":"a","data":"x"}"#, 400, "Invalid JSON"),
        (r#"{"name":"","channel":"a","data":"x"}"#, 400, "Invalid event name"),
        (r#"{"name":"pusher:error","channel":"a","data":"x"}"#, 400, "Invalid event name"),
        (r#"{"name":"pusher_internal:x","channel":"a","data":"x"}"#, 400, "Invalid event name"),
        (r#"{"name":"e","channel":"","data":"x"}"#, 400, "Invalid channel name: ''"),
        (r#"{"name":"e","channel":"a b","data":"x"}"#, 400, "Invalid channel name: 'a b'"),
        (r#"{"name":"e","channel":"é","data":"x"}"#, 400, "Invalid channel name"),
        (r#"{"name":"e","channel":"a/b","data":"x"}"#, 400, "Invalid channel name"),
        (r#"{"name":"e","channel":"a*","data":"x"}"#, 400, "Invalid channel name"),
        (r#"{"name":"e","channel":"$user:7","data":"x"}"#, 400, "Invalid channel name"),
        (r##"{"name":"e","channel":"#other","data":"x"}"##, 400, "Invalid channel name"),
        (r##"{"name":"e","channel":"#server-to-user-","data":"x"}"##, 400, "Invalid channel name"),
        (r##"{"name":"e","channel":"#server-to-user-a b","data":"x"}"##, 400, "Invalid channel name"),
        (r#"{"name":"e","channels":["a","b c"],"data":"x"}"#, 400, "Invalid channel name: 'b c'"),
        (r#"{"name":"e","channel":"a","data":"x","socket_id":"x"}"#, 400, "Invalid socket_id"),
        (r#"{"name":"e","channel":"a","data":"x","socket_id":""}"#, 400, "Invalid socket_id"),
        (r#"{"name":"e","channel":"a","data":"x","socket_id":"1.2:private-a"}"#, 400, "Invalid socket_id"),
        (r#"{"name":"e","channel":"a","data":"\ud800"}"#, 400, "surrogate"),
        (r#"{"name":"e","channels":["a","nowhere"],"data":"x"}"#, 404, "no channel rule covers"),
        (r#"{"name":"e","channels":["a","small"],"data":"0123456789abcdefg"}"#, 413, "at most 16 bytes"),
    ] {
        served.trigger(body).await.refuses(status, text);
        assert!(served.published().is_empty(), "{body}");
        // The same as the second of a batch.
        if let Some(item) = body.strip_prefix('{').filter(|_| !body.contains("channels") && body.len() > 1) {
            let batch = format!(r#"{{"batch":[{{"name":"e","channel":"first","data":"x"}},{{{item}]}}"#);
            served.batch(batch).await.refuses(status, text);
            assert!(served.published().is_empty(), "{body}");
        }
    }
}

#[tokio::test]
async fn every_limit_is_kept_on_both_sides() {
    let served = Served::new();
    let event = |name: &str, channels: &[String], data: &str| {
        json!({ "name": name, "channels": channels, "data": data }).to_string()
    };
    let one = ["a".to_owned()];
    let many = |count: usize| (0..count).map(|index| format!("c{index}")).collect::<Vec<_>>();

    served.trigger(event("e", &one, &"x".repeat(10_240))).await.is("{}");
    served.trigger(event("e", &one, &"x".repeat(10_241))).await.refuses(413, "content of this event");
    // Bytes of the text are counted, not those of its JSON.
    served.trigger(event("e", &one, &"\u{1}".repeat(10_240))).await.is("{}");
    served.trigger(event("e", &one, &"é".repeat(5_120))).await.is("{}");
    served.trigger(event("e", &one, &"é".repeat(5_121))).await.refuses(413, "content of this event");
    served.published();

    served.trigger(event("e", &many(100), "x")).await.is("{}");
    assert_eq!(served.published().len(), 100);
    served
        .trigger(event("e", &many(101), "x"))
        .await
        .refuses(400, "Too many channels: an event has at most 100");
    served.trigger(event("e", &[many(100), many(100)].concat(), "x")).await.is("{}");
    assert_eq!(served.published().len(), 100);

    served.trigger(event("e", &["c".repeat(164)], "x")).await.is("{}");
    served.trigger(event("e", &["c".repeat(165)], "x")).await.refuses(400, "Invalid channel name");
    served.trigger(event(&"e".repeat(200), &one, "x")).await.is("{}");
    served.trigger(event(&"e".repeat(201), &one, "x")).await.refuses(400, "Invalid event name");
    served.published();

    let batch = |count: usize| {
        let item = |index| json!({ "name": "e", "channel": format!("c{index}"), "data": "x" });
        json!({ "batch": (0..count).map(item).collect::<Vec<_>>() }).to_string()
    };
    served.batch(batch(10)).await.is("{}");
    assert_eq!(served.published().len(), 10);
    served.batch(batch(11)).await.refuses(400, "Batch too large (> 10)");
    served.batch(batch(0)).await.is("{}");
    let large = json!({ "batch": [
        { "name": "e", "channel": "a", "data": "x" },
        { "name": "e", "channel": "a", "data": "x".repeat(10_241) },
    ] });
    served.batch(large.to_string()).await.refuses(413, "content of this event");
    assert!(served.published().is_empty());
}

#[tokio::test]
async fn the_limits_are_the_applications() {
    let limits = AppLimits {
        event_data_bytes: 100,
        channels_per_event: 2,
        events_per_batch: 1,
        channel_name_bytes: 20,
        ..AppLimits::default()
    };
    let served = Served::with(Lists::default(), limits);
    let long = "x".repeat(101);
    served
        .trigger(format!(r#"{{"name":"e","channel":"a","data":"{long}"}}"#))
        .await
        .refuses(413, "(100 bytes)");
    served.trigger(r#"{"name":"e","channels":["a","b","c"],"data":"x"}"#).await.refuses(400, "at most 2");
    served
        .trigger(format!(r#"{{"name":"e","channel":"{}","data":"x"}}"#, "c".repeat(21)))
        .await
        .refuses(400, "1 to 20");
    let two = r#"{"batch":[{"name":"e","channel":"a","data":"x"},{"name":"e","channel":"a","data":"x"}]}"#;
    served.batch(two).await.refuses(400, "Batch too large (> 1)");
}

#[tokio::test]
async fn a_socket_id_is_left_out_and_an_unknown_one_ignored() {
    let served = Served::new();
    let body = |id: &str| format!(r#"{{"name":"e","channels":["a","b"],"data":"x","socket_id":"{id}"}}"#);
    served.trigger(body("1.2")).await.is("{}");
    served.trigger(body("9999999999.1")).await.is("{}");
    let published = served.lists.published.lock().unwrap();
    let excluded: Vec<_> = published.iter().map(|message| message.exclude.to_vec()).collect();
    let id = carillon_model::ConnectionId::from_halves(1, 2);
    assert_eq!(excluded, [vec![id], vec![id], vec![], vec![]]);
}

#[tokio::test]
async fn a_batch_is_published_in_order() {
    let served = Served::new();
    let batch = r##"{"batch":[{"name":"1","channel":"a","data":"x"},{"name":"2","channel":"b","data":{"y": 1}},
        {"name":"3","channel":"a","data":"z"},{"name":"4","channel":"#server-to-user-7","data":""}]}"##;
    served.batch(batch).await.is("{}");
    let expected = [r#"#a 1 "x""#, r#"#b 2 "{\"y\":1}""#, r#"#a 3 "z""#, r#"#$user:7 4 """#];
    assert_eq!(served.published(), expected);
    for (body, text) in [
        ("{}", "Missing required parameter: batch"),
        (r#"{"batch":null}"#, "Missing required parameter: batch"),
        (r#"{"batch":{}}"#, "Invalid JSON"),
        (r#"{"batch":[5]}"#, "Invalid JSON"),
        (r#"{"batch":[{"name":"e","channels":["a"],"data":"x"}]}"#, "Invalid parameter: channels"),
    ] {
        served.batch(body).await.refuses(400, text);
    }
    assert!(served.published().is_empty());
}

fn occupied() -> Lists {
    let count = |name: &str, count| (name.to_owned(), count);
    Lists {
        subscriptions: [count("a", 3), count("presence-full", 2)].into(),
        members: [("presence-full".to_owned(), vec!["7", "8"])].into(),
        ..Lists::default()
    }
}

#[tokio::test]
async fn what_is_asked_of_the_channels_of_an_event_is_told() {
    let served = Served::over(occupied());
    let event = |info: &str| {
        format!(
            r#"{{"name":"e","channels":["a","empty","presence-full","presence-empty"],"data":"x","info":"{info}"}}"#
        )
    };
    served.trigger(event("user_count,subscription_count")).await.is(
        r#"{"channels":{"a":{"subscription_count":3},"empty":{"subscription_count":0},
            "presence-full":{"user_count":2,"subscription_count":2},
            "presence-empty":{"user_count":0,"subscription_count":0}}}"#,
    );
    served
        .trigger(event("subscription_count"))
        .await
        .is(r#"{"channels":{"a":{"subscription_count":3},"empty":{"subscription_count":0},
            "presence-full":{"subscription_count":2},"presence-empty":{"subscription_count":0}}}"#);
    served.lists.asked.lock().unwrap().clear();
    served.trigger(event(" user_count ")).await.is(
        r#"{"channels":{"a":{},"empty":{},"presence-full":{"user_count":2},"presence-empty":{"user_count":0}}}"#,
    );
    served.trigger(event("")).await.is("{}");
    served.trigger(event("unknown")).await.is("{}");
    assert!(served.lists.asked.lock().unwrap().is_empty(), "members are known without asking");
    served.published();
    let user = r##"{"name":"e","channel":"#server-to-user-7","data":"x","info":"subscription_count"}"##;
    served.trigger(user).await.is(r##"{"channels":{"#server-to-user-7":{"subscription_count":0}}}"##);
}

#[tokio::test]
async fn what_is_asked_of_the_events_of_a_batch_is_told_in_their_order() {
    let served = Served::over(occupied());
    let item = |channel: &str, info: &str| {
        format!(r#"{{"name":"e","channel":"{channel}","data":"x","info":"{info}"}}"#)
    };
    let items = [
        item("presence-full", "user_count"),
        item("a", ""),
        item("a", "subscription_count,user_count"),
        item("presence-empty", "user_count,subscription_count"),
    ];
    served.batch(format!(r#"{{"batch":[{}]}}"#, items.join(","))).await.is(
        r#"{"batch":[{"user_count":2},{},{"subscription_count":3},{"user_count":0,"subscription_count":0}]}"#,
    );
}

#[tokio::test]
async fn an_idempotency_key_is_of_each_channel_and_of_each_event_of_a_batch() {
    let served = Served::new();
    let send = async |path: &str, key: &str, body: &str| {
        let headers = HeaderMap::from_iter([(
            header::HeaderName::from_static("idempotency-key"),
            HeaderValue::from_bytes(key.as_bytes()).unwrap(),
        )]);
        served.raw("POST", &uri(KEY, "POST", path, "", body.as_bytes()), &headers, body.as_bytes()).await
    };
    let ids = || {
        let mut published = served.lists.published.lock().unwrap();
        let ids: Vec<_> = published
            .drain(..)
            .map(|message| {
                format!("{} {}", message.channel, message.id.map_or_else(String::new, |id| id.to_string()))
            })
            .collect();
        ids
    };
    send("/apps/1/events", "k", r#"{"name":"e","channels":["a","b"],"data":"x"}"#).await.is("{}");
    assert_eq!(ids(), ["a k", "b k"]);
    let batch = r#"{"batch":[{"name":"e","channel":"a","data":"x"},{"name":"e","channel":"a","data":"y"}]}"#;
    send("/apps/1/batch_events", "k", batch).await.is("{}");
    assert_eq!(ids(), ["a k:0", "a k:1"], "the second is no repetition of the first");
    served.trigger(r#"{"name":"e","channel":"a","data":"x"}"#).await.is("{}");
    assert_eq!(ids(), ["a "]);
    for bad in ["", "a b", "é", &"k".repeat(129)] {
        let told = send("/apps/1/events", bad, r#"{"name":"e","channel":"a","data":"x"}"#).await;
        told.refuses(400, "Invalid Idempotency-Key");
    }
    assert!(ids().is_empty());
}

#[tokio::test]
async fn a_broker_that_is_away_is_said_with_what_to_do() {
    let served = Served::new();
    let told = served.trigger(r#"{"name":"e","channels":["a","down"],"data":"x"}"#).await;
    told.refuses(503, "the broker is away; some of it may have been published");
    assert!(told.body.contains("Idempotency-Key"));
    assert_eq!(told.header("retry-after"), "1");
    assert_eq!(served.published(), ["#a e \"x\""]);
    let batch =
        r#"{"batch":[{"name":"e","channel":"down","data":"x"},{"name":"e","channel":"a","data":"y"}]}"#;
    served.batch(batch).await.refuses(503, "Idempotency-Key");
    // It does not answer at all.
    let told = served.trigger(r#"{"name":"e","channel":"stall","data":"x"}"#).await;
    told.refuses(503, "the broker did not answer in time");
}
