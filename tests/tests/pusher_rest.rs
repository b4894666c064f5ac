//! The Pusher protocol's REST API: what it publishes, what it answers, what it refuses. (PUSHER §2.2, §2.3)

use carillon_tests::{
    gateway::Gateway,
    pusher::{FIRST, Rest, SMALL, Socket, alone, refusal},
    raw::eventually,
};
use serde_json::json;

/// Bytes of an event's data.
const DATA_MAX_BYTES: usize = 10 * 1024;

/// Connects and subscribes to a public or private channel.
async fn subscriber(gateway: &Gateway, channel: &str) -> Socket {
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.subscribe(channel).await;
    socket
}

/// Makes sure that nothing has come on a channel: the next event is this one.
async fn nothing_came(rest: &Rest, socket: &mut Socket, channel: &str) {
    rest.trigger(channel, "after-all", "").await;
    socket.hears(channel, "after-all", "").await;
}

#[tokio::test]
async fn an_event_goes_to_one_channel_or_to_many() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let mut a = subscriber(&gateway, "rest-a").await;
    let mut b = subscriber(&gateway, "rest-b").await;
    let one = rest.post("/events", &json!({"name": "one", "channel": "rest-a", "data": "1"})).await;
    assert_eq!((one.status, one.body.as_str()), (200, "{}"));
    let many = json!({"name": "many", "channels": ["rest-a", "rest-b", "rest-nobody"], "data": "2"});
    let many = rest.post("/events", &many).await;
    assert_eq!((many.status, many.body.as_str()), (200, "{}"));
    a.hears("rest-a", "one", "1").await;
    a.hears("rest-a", "many", "2").await;
    b.hears("rest-b", "many", "2").await;
}

#[tokio::test]
async fn a_channel_that_is_named_twice_gets_the_event_once() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let mut socket = subscriber(&gateway, "rest-twice").await;
    let body = json!({"name": "x", "channels": ["rest-twice", "rest-twice", "rest-twice"], "data": "1"});
    assert_eq!(rest.done("/events", &body).await, json!({}));
    socket.hears("rest-twice", "x", "1").await;
    nothing_came(&rest, &mut socket, "rest-twice").await;
}

#[tokio::test]
async fn an_event_goes_to_100_channels_and_not_to_101() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let channels: Vec<_> = (0..101).map(|number| format!("rest-hundred-{number}")).collect();
    let mut first = subscriber(&gateway, &channels[0]).await;
    let mut last = subscriber(&gateway, &channels[99]).await;
    let body = |count: usize| json!({"name": "x", "channels": channels[..count], "data": "1"});
    let (status, _) = rest.refused("/events", &body(101)).await;
    assert_eq!(status, 400);
    nothing_came(&rest, &mut first, &channels[0]).await;
    assert_eq!(rest.done("/events", &body(100)).await, json!({}));
    first.hears(&channels[0], "x", "1").await;
    last.hears(&channels[99], "x", "1").await;
}

#[tokio::test]
async fn an_event_without_a_channel_a_name_or_data_is_refused() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    for (body, missing) in [
        (json!({"name": "x", "data": "1"}), "channel"),
        (json!({"name": "x", "data": "1", "channels": []}), "channel"),
        (json!({"name": "x", "data": "1", "channels": null}), "channel"),
        (json!({"channel": "rest-missing", "data": "1"}), "name"),
        (json!({"name": null, "channel": "rest-missing", "data": "1"}), "name"),
        (json!({"name": "", "channel": "rest-missing", "data": "1"}), "name"),
        (json!({"name": "x", "channel": "rest-missing"}), "data"),
    ] {
        let (status, text) = rest.refused("/events", &body).await;
        assert!(status == 400 && text.contains(missing), "{body}: {status} {text}");
    }
    let (_, text) = rest.refused("/events", &json!({"name": "x", "data": "1"})).await;
    assert_eq!(text, "Missing required parameter: channel");
}

#[tokio::test]
async fn a_body_that_is_no_object_is_refused() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    for tail in ["/events", "/batch_events"] {
        for body in [
            "",
            "[]",
            "null",
            "7",
            "\"x\"",
            "{",
            "{}",
            "name=x&channel=y&data=z",
            "{\"name\":\"x\",}",
            "\u{feff}{}",
        ] {
            let answer = rest.send(rest.request("POST", tail).body(body)).await;
            assert_eq!(refusal(&answer).0, 400, "{tail} {body:?}");
        }
        let answer = rest.send(rest.request("POST", tail).body(b"{\"name\":\"\xff\xfe\"}".to_vec())).await;
        assert_eq!(refusal(&answer).0, 400, "bytes that are no UTF-8");
    }
}

#[tokio::test]
async fn values_of_the_wrong_type_are_refused() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    for change in [
        json!({"name": 7}),
        json!({"name": ["x"]}),
        json!({"channel": 7}),
        json!({"channel": {"x": 1}}),
        json!({"channels": "rest-types"}),
        json!({"channels": [7]}),
        json!({"channels": [null]}),
        json!({"channels": [["rest-types"]]}),
        json!({"socket_id": 7.5}),
        json!({"socket_id": ["1.1"]}),
        json!({"info": 7}),
    ] {
        let mut body = json!({"name": "x", "channel": "rest-types", "data": "1"});
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        if change.get("channels").is_some() {
            body.as_object_mut().unwrap().remove("channel");
        }
        let (status, _) = rest.refused("/events", &body).await;
        assert_eq!(status, 400, "{body}");
    }
}

/// PUSHER §2.2: nothing of a request is published when anything of it is wrong.
#[tokio::test]
async fn one_bad_channel_spoils_the_whole_event() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let mut socket = subscriber(&gateway, "rest-spoiled").await;
    for bad in ["", "a b", "a/b", "a#b", "#b", "ü", "a*", "$user:1", "#server-to-user-", &"n".repeat(165)] {
        let body = json!({"name": "x", "channels": ["rest-spoiled", bad], "data": "1"});
        let (status, _) = rest.refused("/events", &body).await;
        assert_eq!(status, 400, "{bad:?}");
    }
    nothing_came(&rest, &mut socket, "rest-spoiled").await;
    rest.trigger(&"n".repeat(164), "x", "1").await;
    rest.trigger("-azAZ09_=@,.;", "x", "1").await;
}

#[tokio::test]
async fn data_of_10_kib_is_published_and_one_byte_more_is_413() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let mut socket = subscriber(&gateway, "rest-size").await;
    for unit in ["d", "ü", "\"", "\n"] {
        let largest = unit.repeat(DATA_MAX_BYTES / unit.len());
        rest.trigger("rest-size", "x", &largest).await;
        socket.hears("rest-size", "x", &largest).await;
        let body = json!({"name": "x", "channel": "rest-size", "data": format!("{largest}d")});
        let (status, _) = rest.refused("/events", &body).await;
        assert_eq!(status, 413, "{unit:?}");
    }
    nothing_came(&rest, &mut socket, "rest-size").await;
}

/// PUSHER §2.3: the protocol says text; what is not is written as JSON.
#[tokio::test]
async fn data_that_is_no_text_is_published_as_compact_json() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let mut socket = subscriber(&gateway, "rest-json").await;
    for (data, arrives) in [
        (r#"{"b": 1, "a": [1, 2.50]}"#, r#"{"b":1,"a":[1,2.50]}"#),
        ("7", "7"),
        ("true", "true"),
        (r#"[ "x y" ]"#, r#"["x y"]"#),
    ] {
        let body = format!(r#"{{"name":"x","channel":"rest-json","data":{data}}}"#);
        let answer = rest.send(rest.request("POST", "/events").body(body)).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"), "{data}");
        socket.hears("rest-json", "x", arrives).await;
    }
}

#[tokio::test]
async fn a_name_of_200_characters_is_published_and_one_more_is_refused() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let mut socket = subscriber(&gateway, "rest-name").await;
    for name in ["e".repeat(200), "App\\Events\\Order Shipped! ü \" #".to_owned(), ".client-x".to_owned()] {
        rest.trigger("rest-name", &name, "1").await;
        socket.hears("rest-name", &name, "1").await;
    }
    let body = json!({"name": "e".repeat(201), "channel": "rest-name", "data": "1"});
    assert_eq!(rest.refused("/events", &body).await.0, 400);
    nothing_came(&rest, &mut socket, "rest-name").await;
}

#[tokio::test]
async fn a_backend_cannot_speak_as_the_server() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let mut socket = subscriber(&gateway, "rest-server").await;
    for name in ["pusher:error", "pusher:", "pusher_internal:member_added", "pusher_internal:"] {
        let body = json!({"name": name, "channel": "rest-server", "data": "1"});
        assert_eq!(rest.refused("/events", &body).await.0, 400, "{name}");
        let batch = json!({"batch": [body]});
        assert_eq!(rest.refused("/batch_events", &batch).await.0, 400, "{name}");
    }
    // Its own names may look alike.
    for name in ["pusher", "Pusher:x", "pusher-x", "pusher_internal"] {
        rest.trigger("rest-server", name, "1").await;
        socket.hears("rest-server", name, "1").await;
    }
}

#[tokio::test]
async fn the_socket_that_caused_an_event_is_left_out() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let mut one = subscriber(&gateway, "rest-exclude").await;
    let mut other = subscriber(&gateway, "rest-exclude").await;
    let body = json!({"name": "x", "channel": "rest-exclude", "data": "1", "socket_id": one.id()});
    assert_eq!(rest.done("/events", &body).await, json!({}));
    let batch = json!({"batch": [
        {"name": "y", "channel": "rest-exclude", "data": "2", "socket_id": one.id()},
        {"name": "z", "channel": "rest-exclude", "data": "3"},
    ]});
    assert_eq!(rest.done("/batch_events", &batch).await, json!({}));
    one.hears("rest-exclude", "z", "3").await;
    for (event, data) in [("x", "1"), ("y", "2"), ("z", "3")] {
        other.hears("rest-exclude", event, data).await;
    }
}

#[tokio::test]
async fn a_socket_id_of_a_bad_shape_is_refused_and_an_unknown_one_ignored() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let mut socket = subscriber(&gateway, "rest-socket-id").await;
    let body = |id: &str| json!({"name": "x", "channel": "rest-socket-id", "data": "1", "socket_id": id});
    for bad in ["x", "1", "1.", ".1", "1.1.1", "1,1", "1.1 ", " 1.1", "1.1\n", "-1.1", "1.a", "١.١"] {
        assert_eq!(rest.refused("/events", &body(bad)).await.0, 400, "{bad:?}");
        let batch = json!({"batch": [body(bad)]});
        assert_eq!(rest.refused("/batch_events", &batch).await.0, 400, "{bad:?}");
    }
    nothing_came(&rest, &mut socket, "rest-socket-id").await;
    for unknown in ["1.1", "0.0", "4294967295.4294967295", "99999999999999999999.99999999999999999999"] {
        assert_eq!(rest.done("/events", &body(unknown)).await, json!({}), "{unknown}");
        socket.hears("rest-socket-id", "x", "1").await;
    }
    let null = json!({"name": "x", "channel": "rest-socket-id", "data": "1", "socket_id": null});
    assert_eq!(rest.done("/events", &null).await, json!({}));
    socket.hears("rest-socket-id", "x", "1").await;
}

#[tokio::test]
async fn an_event_answers_with_what_was_asked_of_its_channels() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let _one = subscriber(&gateway, "rest-info").await;
    let _two = subscriber(&gateway, "rest-info").await;
    let (mut three, mut four) =
        (Socket::open(gateway.public, &FIRST).await, Socket::open(gateway.public, &FIRST).await);
    let _members = three.join("presence-rest-info", "3").await;
    let _members = four.join("presence-rest-info", "3").await;
    let channels = ["rest-info", "rest-info-empty", "presence-rest-info", "presence-rest-info-empty"];
    for (info, expected) in [
        (
            "user_count,subscription_count",
            json!({
                "rest-info": {"subscription_count": 2},
                "rest-info-empty": {"subscription_count": 0},
                "presence-rest-info": {"user_count": 1, "subscription_count": 2},
                "presence-rest-info-empty": {"user_count": 0, "subscription_count": 0},
            }),
        ),
        (
            "user_count",
            json!({
                "rest-info": {},
                "rest-info-empty": {},
                "presence-rest-info": {"user_count": 1},
                "presence-rest-info-empty": {"user_count": 0},
            }),
        ),
    ] {
        let body = json!({"name": "x", "channels": channels, "data": "1", "info": info});
        eventually(info, || async {
            (rest.done("/events", &body).await == json!({"channels": expected})).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_batch_of_10_is_published_in_order_and_one_of_11_is_refused() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let mut socket = subscriber(&gateway, "rest-batch").await;
    let batch = |count: usize| {
        let events: Vec<_> = (0..count)
            .map(|number| json!({"name": format!("n{number}"), "channel": "rest-batch", "data": number.to_string()}))
            .collect();
        json!({"batch": events})
    };
    let (status, text) = rest.refused("/batch_events", &batch(11)).await;
    assert!(status == 400 && text.contains("Batch too large"), "{status} {text}");
    let answer = rest.post("/batch_events", &batch(10)).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    for number in 0..10 {
        socket.hears("rest-batch", &format!("n{number}"), &number.to_string()).await;
    }
    socket.quiet().await;
}

#[tokio::test]
async fn one_bad_event_spoils_the_whole_batch() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let mut socket = subscriber(&gateway, "rest-batch-spoiled").await;
    let good = json!({"name": "x", "channel": "rest-batch-spoiled", "data": "1"});
    for (bad, status, part) in [
        (json!({"name": "x", "channel": "a b", "data": "1"}), 400, ""),
        (json!({"name": "x", "data": "1"}), 400, "channel"),
        (json!({"channel": "rest-batch-spoiled", "data": "1"}), 400, "name"),
        (json!({"name": "x", "channel": "rest-batch-spoiled"}), 400, "data"),
        (
            json!({"name": "x", "channel": "rest-batch-spoiled", "data": "d".repeat(DATA_MAX_BYTES + 1)}),
            413,
            "content of this event",
        ),
        (json!("x"), 400, ""),
        (json!(null), 400, ""),
    ] {
        let batch = json!({"batch": [good, bad]});
        let (told, text) = rest.refused("/batch_events", &batch).await;
        assert!(told == status && text.contains(part), "{bad}: {told} {text}");
    }
    for body in [json!({}), json!({"batch": {}}), json!({"batch": "x"}), json!({"batch": null})] {
        assert_eq!(rest.refused("/batch_events", &body).await.0, 400, "{body}");
    }
    nothing_came(&rest, &mut socket, "rest-batch-spoiled").await;
}

/// PUSHER §2.3: as many answers as events, in their order, empty for who asked nothing.
#[tokio::test]
async fn a_batch_answers_for_each_event_once_one_asks() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let _socket = subscriber(&gateway, "rest-batch-info").await;
    let batch = json!({"batch": [
        {"name": "x", "channel": "rest-batch-info", "data": "1", "info": "subscription_count"},
        {"name": "x", "channel": "rest-batch-info", "data": "2"},
        {"name": "x", "channel": "presence-rest-batch-info", "data": "3", "info": "user_count,subscription_count"},
    ]});
    let expected = json!({"batch": [
        {"subscription_count": 1}, {}, {"user_count": 0, "subscription_count": 0},
    ]});
    eventually("the count", || async {
        (rest.done("/batch_events", &batch).await == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_type_of_a_body_is_not_insisted_on() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let mut socket = subscriber(&gateway, "rest-type").await;
    let body = json!({"name": "x", "channel": "rest-type", "data": "1"}).to_string();
    for kind in [None, Some("application/x-www-form-urlencoded"), Some("text/plain; charset=utf-8")] {
        let mut request = rest.request("POST", "/events").body(body.clone());
        request.headers = kind.map(|kind| ("Content-Type", kind.to_owned())).into_iter().collect();
        let request = request.header("X-Pusher-Library", "pusher-http-php 7.2.6");
        assert_eq!(rest.send(request).await.status, 200, "{kind:?}");
        socket.hears("rest-type", "x", "1").await;
    }
}

/// PUSHER §2.2: a queue that tries again after a timeout does not say it twice.
#[tokio::test]
async fn an_idempotency_key_makes_a_retry_harmless() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let mut socket = subscriber(&gateway, "rest-retry").await;
    let post = async |key: &str, data: &str| {
        let body = json!({"name": "x", "channel": "rest-retry", "data": data}).to_string();
        let request = rest.request("POST", "/events").body(body).header("Idempotency-Key", key);
        let answer = rest.send(request).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    };
    post("job-1", "1").await;
    post("job-1", "1").await;
    post("job-2", "2").await;
    post("job-1", "1").await;
    socket.hears("rest-retry", "x", "1").await;
    socket.hears("rest-retry", "x", "2").await;
    nothing_came(&rest, &mut socket, "rest-retry").await;
}

#[tokio::test]
async fn an_application_may_have_other_limits() {
    let gateway = alone().await;
    let rest = gateway.rest(&SMALL);
    let event = |channel: &str, data: &str| json!({"name": "x", "channel": channel, "data": data});
    rest.trigger(&"n".repeat(40), "x", &"d".repeat(2048)).await;
    assert_eq!(rest.refused("/events", &event(&"n".repeat(41), "1")).await.0, 400);
    assert_eq!(rest.refused("/events", &event("n", &"d".repeat(2049))).await.0, 413);
    let many = |count: usize| {
        let channels = &["a", "b", "c", "d"][..count];
        json!({"name": "x", "channels": channels, "data": "1"})
    };
    assert_eq!(rest.done("/events", &many(3)).await, json!({}));
    assert_eq!(rest.refused("/events", &many(4)).await.0, 400);
    let batch = |count: usize| json!({"batch": vec![event("a", "1"); count]});
    assert_eq!(rest.done("/batch_events", &batch(2)).await, json!({}));
    assert_eq!(rest.refused("/batch_events", &batch(3)).await.0, 400);
}
