//! The gRPC door, by tonic's client.

use std::time::Duration;

use carillon_api::proto::{
    PublishBatchRequest, PublishRequest, PublishResult, publish_request::Data,
    publish_service_client::PublishServiceClient,
};
use carillon_tasks::{Phase, clock};
use futures_util::stream;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::harness::{PATIENCE, Served, small};

async fn channel(served: &Served) -> Channel {
    Channel::from_shared(format!("http://{}", served.address)).unwrap().connect().await.unwrap()
}

fn with_key<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    request
}

fn to(channel: &str, json: &str) -> PublishRequest {
    PublishRequest {
        channel: channel.into(),
        data: Some(Data::Json(json.into())),
        ..PublishRequest::default()
    }
}

fn name(status: &Status) -> (Code, &str) {
    (status.code(), status.metadata().get("carillon-error").map_or("", |value| value.to_str().unwrap()))
}

fn error(result: &PublishResult) -> &str {
    result.error.as_ref().map_or("ok", |error| error.error.as_str())
}

#[tokio::test]
async fn a_publish_has_the_same_answer_as_over_http() {
    let served = Served::start(small()).await;
    let mut client = PublishServiceClient::new(channel(&served).await);
    let message = PublishRequest { event: "e".into(), id: "k".into(), ..to("a", "{\"x\":\n1}") };
    let first = client.publish(with_key(&served.key, message.clone())).await.unwrap().into_inner();
    let again = client.publish(with_key(&served.key, message)).await.unwrap().into_inner();
    assert!(first.results[0].stored && !first.results[0].duplicate, "{first:?}");
    assert!(again.results[0].duplicate, "{again:?}");
    assert_eq!(first.results[0].id, again.results[0].id);
    for data in [Data::Text("hé\"".into()), Data::Binary(vec![0xff].into())] {
        let message = PublishRequest { user: "7".into(), data: Some(data), ..PublishRequest::default() };
        let answer = client.publish(with_key(&served.key, message)).await.unwrap().into_inner();
        assert_eq!((answer.results[0].user.as_str(), answer.results[0].channel.as_str()), ("7", ""));
    }
    let message = PublishRequest { channels: vec!["a".into(), "down.1".into()], ..to("", "1") };
    let answer = client.publish(with_key(&served.key, message)).await.unwrap().into_inner();
    assert_eq!(answer.results.iter().map(error).collect::<Vec<_>>(), ["ok", "unavailable"]);
    let expected = ["a e {\"x\": 1}", "$user:7 - \"hé\\\"\"", "$user:7 - {\"base64\":\"/w==\"}", "a - 1"];
    assert_eq!(served.heard(), expected);
}

#[tokio::test]
async fn errors_have_a_status_and_a_stable_name() {
    let served = Served::start(small()).await;
    let mut client = PublishServiceClient::new(channel(&served).await);
    let cases = [
        (to("a b", "1"), Code::InvalidArgument, "bad_request"),
        (to("", "1"), Code::InvalidArgument, "bad_request"),
        (to("a.>", "1"), Code::InvalidArgument, "bad_request"),
        (to("a", "{"), Code::InvalidArgument, "bad_request"),
        (to("a", &"[".repeat(50_000)), Code::InvalidArgument, "bad_request"),
        (PublishRequest { data: None, ..to("a", "") }, Code::InvalidArgument, "bad_request"),
        (PublishRequest { exclude: vec!["x".into()], ..to("a", "1") }, Code::InvalidArgument, "bad_request"),
        (to("secret", "1"), Code::PermissionDenied, "forbidden"),
        (to("small.x", "\"0123456789abcdef\""), Code::InvalidArgument, "too_large"),
        (to("down.x", "1"), Code::Unavailable, "unavailable"),
        (to("stall.x", "1"), Code::Unavailable, "unavailable"),
    ];
    for (message, code, error) in cases {
        let status = client.publish(with_key(&served.key, message)).await.unwrap_err();
        assert_eq!(name(&status), (code, error), "{status:?}");
        assert_eq!(status.metadata().contains_key("carillon-retry-after-ms"), code == Code::Unavailable);
    }
    let status = client.publish(to("a", "1")).await.unwrap_err();
    assert_eq!(name(&status), (Code::Unauthenticated, "unauthorized"));
    let status = client.publish(with_key(&served.reader_key, to("a", "1"))).await.unwrap_err();
    assert_eq!(name(&status), (Code::PermissionDenied, "forbidden"));
    for _ in 0..2 {
        assert!(client.publish(with_key(&served.slow_key, to("a", "1"))).await.is_ok());
    }
    let status = client.publish(with_key(&served.slow_key, to("a", "1"))).await.unwrap_err();
    assert_eq!(name(&status), (Code::ResourceExhausted, "rate_limited"));
    let huge = to("a", &format!("\"{}\"", "x".repeat(200 << 10)));
    assert!(client.publish(with_key(&served.key, huge)).await.is_err());
    assert!(client.publish(with_key(&served.key, to("a", "1"))).await.is_ok(), "the connection survives");
}

#[tokio::test]
async fn a_shorter_deadline_of_the_caller_counts() {
    let served = Served::start(carillon_api::Config { deadline: PATIENCE, ..small() }).await;
    // tonic's own channel would keep the deadline itself; this one does not know of it.
    let plain = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let origin = format!("http://{}", served.address).parse().unwrap();
    let mut client = PublishServiceClient::with_origin(plain, origin);
    let mut request = with_key(&served.key, to("stall.x", "1"));
    request.metadata_mut().insert("grpc-timeout", "50m".parse().unwrap());
    let status = timeout(Duration::from_secs(10), client.publish(request)).await.unwrap().unwrap_err();
    assert_eq!(name(&status), (Code::Unavailable, "unavailable"));
}

#[tokio::test]
async fn a_bad_item_of_a_batch_fails_alone() {
    let served = Served::start(small()).await;
    let mut client = PublishServiceClient::new(channel(&served).await);
    let many = PublishRequest { channels: vec!["a".into()], ..to("", "1") };
    let items = vec![to("a", "1"), to("a b", "1"), to("secret", "1"), many, to("a", "2")];
    let answer = client.publish_batch(with_key(&served.key, PublishBatchRequest { items })).await.unwrap();
    let errors: Vec<_> = answer.get_ref().results.iter().map(error).collect();
    assert_eq!(errors, ["ok", "bad_request", "forbidden", "bad_request", "ok"]);
    assert_eq!(served.heard(), ["a - 1", "a - 2"]);
    let items = vec![to("a", "1"); 101];
    let status =
        client.publish_batch(with_key(&served.key, PublishBatchRequest { items })).await.unwrap_err();
    assert_eq!(name(&status), (Code::InvalidArgument, "limit_exceeded"));
}

#[tokio::test]
async fn a_stream_is_acknowledged_in_order_and_survives_bad_messages() {
    let served = Served::start(small()).await;
    let mut client = PublishServiceClient::new(channel(&served).await);
    let messages = (0..500).map(|n| match n {
        // Slow, so that what follows waits for its turn to be told.
        7 => to("stall.x", "1"),
        8 => to("a b", "1"),
        n => PublishRequest { id: format!("k{n}"), ..to("a", &n.to_string()) },
    });
    let request = with_key(&served.key, stream::iter(messages.collect::<Vec<_>>()));
    let mut results = client.publish_stream(request).await.unwrap().into_inner();
    let mut told = Vec::new();
    while let Some(result) = timeout(PATIENCE, results.message()).await.unwrap().unwrap() {
        told.push(result);
    }
    assert_eq!(told.len(), 500);
    assert_eq!(error(&told[7]), "unavailable");
    assert_eq!(error(&told[8]), "bad_request");
    let expected: Vec<_> = (0..500).filter(|n| !matches!(n, 7 | 8)).map(|n| format!("a - {n}")).collect();
    assert_eq!(served.heard(), expected);
    let offsets: Vec<u64> = told
        .iter()
        .filter(|result| result.error.is_none())
        .map(|result| result.id.split_once('-').unwrap().1.parse().unwrap())
        .collect();
    assert!(offsets.is_sorted(), "{offsets:?}");
    let status = client.publish_stream(stream::iter([to("a", "1")])).await.unwrap_err();
    assert_eq!(name(&status), (Code::Unauthenticated, "unauthorized"));
}

#[tokio::test]
async fn an_unread_stream_is_held_back() {
    let served = Served::start(carillon_api::Config { deadline: PATIENCE, ..small() }).await;
    let mut client = PublishServiceClient::new(channel(&served).await);
    // The first never gets its answer: at most 64 are taken on.
    let messages = (0..500).map(|n| if n == 0 { to("stall.x", "1") } else { to("a", &n.to_string()) });
    let request = with_key(&served.key, stream::iter(messages.collect::<Vec<_>>()));
    let mut results = client.publish_stream(request).await.unwrap().into_inner();
    let heard_by = clock::now() + PATIENCE;
    while served.heard().len() < 63 && clock::now() < heard_by {
        assert!(timeout(Duration::from_millis(10), results.message()).await.is_err());
    }
    // Time for those that must not come.
    assert!(timeout(Duration::from_millis(200), results.message()).await.is_err());
    assert_eq!(served.heard().len(), 63);
}

#[tokio::test]
async fn draining_ends_streams_after_their_results_and_health_says_so() {
    let served = Served::start(small()).await;
    let channel = channel(&served).await;
    let mut health = HealthClient::new(channel.clone());
    let mut client = PublishServiceClient::new(channel);
    for service in ["", "carillon.v1.PublishService"] {
        let check = HealthCheckRequest { service: service.into() };
        let status = health.check(check).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }
    let watch = HealthCheckRequest { service: "carillon.v1.PublishService".into() };
    let mut watched = health.watch(watch).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);

    let (send, messages) = mpsc::channel(4);
    let request = with_key(&served.key, ReceiverStream::new(messages));
    send.send(to("a", "1")).await.unwrap();
    let mut results = client.publish_stream(request).await.unwrap().into_inner();
    assert_eq!(error(&results.message().await.unwrap().unwrap()), "ok");
    served.tasks.enter(Phase::Draining);
    let status = timeout(PATIENCE, results.message()).await.unwrap().unwrap_err();
    assert_eq!(name(&status), (Code::Unavailable, "unavailable"));
    let told = timeout(PATIENCE, watched.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(told.status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn reflection_knows_the_service() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let served = Served::start(small()).await;
    let mut client = ServerReflectionClient::new(channel(&served).await);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = client.server_reflection_info(stream::iter([ask])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"carillon.v1.PublishService"), "{names:?}");
    assert!(names.contains(&"grpc.health.v1.Health"), "{names:?}");
}
