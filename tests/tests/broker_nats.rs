//! The NATS broker does what every broker does, on the servers that it accepts, and says why it refuses others.

use std::{sync::Arc, time::Duration};

use carillon_broker::Health;
use carillon_broker_nats::{Config, Credentials, Fatal, StartError, Tls, TlsMode};
use carillon_tests::{
    conformance::{Fixture, Inbox, classes},
    nats::{NatsServer, NatsVersion},
    nats_node::{Node, config},
};

async fn check_all(version: NatsVersion) {
    let server = NatsServer::start(version);
    let publisher = Node::start(config(&server, classes())).expect("a good configuration");
    let reader = Node::start(config(&server, classes())).expect("a good configuration");
    publisher.connected().await;
    reader.connected().await;
    let inbox: Arc<Inbox> = Arc::clone(&reader.inbox);
    Fixture { publisher: publisher.broker.clone(), broker: reader.broker.clone(), inbox }.check_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_conforms_on_the_oldest_server() {
    check_all(NatsVersion::Oldest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_conforms_on_the_newest_server() {
    check_all(NatsVersion::Newest).await;
}

async fn fatal(config: Config) -> Fatal {
    let node = Node::start(config).expect("a good configuration");
    let fatal = tokio::time::timeout(Duration::from_secs(30), node.broker.fatal()).await;
    assert!(matches!(*node.health().borrow(), Health::Connecting { .. }));
    fatal.expect("it is refused in time")
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused() {
    let server = NatsServer::start(NatsVersion::TooOld);
    let version = NatsVersion::TooOld.find().0.to_owned();
    assert_eq!(fatal(config(&server, classes())).await, Fatal::TooOld { version });
}

#[tokio::test]
async fn wrong_credentials_are_refused() {
    let server =
        NatsServer::start_with(NatsVersion::Newest, "", "authorization { user: carillon, password: secret }");
    let with = |credentials| Config { credentials, ..config(&server, classes()) };
    let password =
        |password: &str| Credentials::Password { user: "carillon".to_owned(), password: password.to_owned() };
    for wrong in [Credentials::None, password("sesame"), Credentials::Token("secret".to_owned())] {
        let refused = fatal(with(wrong)).await;
        assert!(matches!(refused, Fatal::Credentials { .. }), "{refused}");
    }
    Node::start(with(password("secret"))).expect("a good configuration").connected().await;
}

#[tokio::test]
async fn permissions_that_are_missing_are_named() {
    let all = [
        ("publish", "gw.h.>"),
        ("publish", "gw.e.>"),
        ("publish", "gw.ctl.>"),
        ("publish", "$JS.API.STREAM.INFO.*"),
        ("publish", "$JS.API.STREAM.CREATE.*"),
        ("publish", "$JS.API.STREAM.MSG.GET.*"),
        ("publish", "$JS.API.DIRECT.GET.*"),
        ("subscribe", "gw.l.>"),
        ("subscribe", "gw.e.>"),
        ("subscribe", "_INBOX_gw.>"),
    ];
    let start = |without: &str| {
        let allowed = |verb: &str| {
            let of = all.iter().filter(|(each, subject)| *each == verb && *subject != without);
            of.map(|(_, subject)| format!("\"{subject}\"")).collect::<Vec<_>>().join(", ")
        };
        let permissions =
            format!("{{ publish: [{}], subscribe: [{}] }}", allowed("publish"), allowed("subscribe"));
        let user =
            format!("authorization {{ users: [{{ user: a, password: a, permissions: {permissions} }}] }}");
        NatsServer::start_with(NatsVersion::Newest, "", &user)
    };
    let credentials = || Credentials::Password { user: "a".to_owned(), password: "a".to_owned() };
    for without in ["gw.h.>", "gw.l.>", "gw.ctl.>", "$JS.API.STREAM.CREATE.*", "_INBOX_gw.>"] {
        let server = start(without);
        let one = classes().into_iter().take(1).collect();
        let node = Node::start(Config { credentials: credentials(), ..config(&server, one) });
        let node = node.expect("a good configuration");
        let refused = tokio::time::timeout(Duration::from_secs(30), node.broker.fatal()).await;
        let refused = refused.expect("it is refused in time").to_string();
        let named = without.trim_end_matches(['>', '*']);
        assert!(refused.contains(named), "without {without}: {refused}");
    }
    let server = start("");
    let publisher = Node::start(Config { credentials: credentials(), ..config(&server, classes()) });
    let publisher = publisher.expect("a good configuration");
    publisher.connected().await;
    let (broker, inbox) = (publisher.broker.clone(), Arc::clone(&publisher.inbox));
    Fixture { publisher: broker.clone(), broker, inbox }.check_all().await;
}

#[tokio::test]
async fn a_server_with_a_certificate_is_reached_by_tls() {
    let directory = std::env::temp_dir().join(format!("carillon-tls-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("the temporary directory is writable");
    let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let server = NatsServer::start_with(
        NatsVersion::Newest,
        "",
        &format!("tls {{ cert_file: {certificate:?}, key_file: {key:?} }}"),
    );
    let tls = Tls { mode: TlsMode::Required, ca: Some(certificate), identity: None };
    let node = Node::start(Config { tls, ..config(&server, vec![]) }).expect("a good configuration");
    node.connected().await;
    let stranger = Node::start(config(&server, vec![])).expect("a good configuration");
    let reached = tokio::time::timeout(Duration::from_secs(1), stranger.connected()).await;
    assert!(reached.is_err(), "a certificate that nobody trusts is not accepted");
    std::fs::remove_dir_all(directory).expect("the directory is ours");
}

#[tokio::test]
async fn jetstream_that_is_switched_off_is_refused() {
    let accounts = "accounts { A { jetstream: disabled, users: [{user: a, password: a}] } }\nno_auth_user: a";
    let server = NatsServer::start_with(NatsVersion::Newest, "", accounts);
    let refused = fatal(config(&server, classes())).await;
    assert_eq!(refused, Fatal::NoJetStreamInAccount);
    let server = NatsServer::start_with(NatsVersion::Newest, "", "jetstream: disabled");
    assert_eq!(fatal(config(&server, classes())).await, Fatal::NoJetStream);
}

#[tokio::test]
async fn streams_of_another_layout_are_refused() {
    let server = NatsServer::start(NatsVersion::Newest);
    let client = async_nats::connect(server.url()).await.expect("the server is there");
    let stream = serde_json::json!({
        "name": "gw_long_3", "subjects": ["gw.h.long.3.>"], "num_replicas": 1, "storage": "memory",
    });
    let made = client.request("$JS.API.STREAM.CREATE.gw_long_3", stream.to_string().into()).await;
    made.expect("the stream is made");
    let refused = fatal(config(&server, classes())).await;
    let said = refused.to_string();
    assert!(matches!(refused, Fatal::Layout { ref stream, .. } if stream == "gw_long_3"), "{said}");
    assert!(said.contains("carillon-layout is nothing, expected"), "{said}");
}

#[tokio::test]
async fn changed_limits_are_changed_on_the_streams() {
    let server = NatsServer::start(NatsVersion::Newest);
    Node::start(config(&server, classes())).expect("a good configuration").connected().await;
    let mut changed = classes();
    changed[0].max_messages = 7;
    Node::start(config(&server, changed)).expect("a good configuration").connected().await;
    let client = async_nats::connect(server.url()).await.expect("the server is there");
    let info = client.request("$JS.API.STREAM.INFO.gw_long_0", "".into()).await.expect("an answer");
    let info: serde_json::Value = serde_json::from_slice(&info.payload).expect("JSON");
    assert_eq!(info.pointer("/config/max_msgs_per_subject"), Some(&7.into()));
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_at_once() {
    let server = NatsServer::prepare(NatsVersion::Newest, "", "");
    let good = || config(&server, classes());
    let refused = |config| Node::start(config).expect_err("it is refused");
    assert!(matches!(refused(Config { servers: vec![], ..good() }), StartError::NoServer));
    assert!(matches!(refused(Config { replicas: 2, ..good() }), StartError::Replicas { replicas: 2 }));
    assert!(matches!(refused(Config { prefix: "a.b".to_owned(), ..good() }), StartError::Name { .. }));
    let servers = vec!["http://[".to_owned()];
    assert!(matches!(refused(Config { servers, ..good() }), StartError::Server { .. }));
    let credentials = Credentials::File("/nowhere/x.creds".into());
    assert!(matches!(refused(Config { credentials, ..good() }), StartError::CredentialsFile { .. }));
}
