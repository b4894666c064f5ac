//! What happens to connections while the node stops, and when there are too many.

use carillon_tasks::{Phase, Stopped};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::harness::{Answer, Ask, PATIENCE, Served, small};

const GOOD: &[u8] = br#"{"channel":"a","data":1}"#;

async fn is_closed(socket: &mut TcpStream) -> bool {
    matches!(timeout(PATIENCE, socket.read(&mut [0; 64])).await.unwrap(), Ok(0) | Err(_))
}

#[tokio::test]
async fn draining_finishes_work_and_still_accepts() {
    let served = Served::start(carillon_api::Config { first_request_timeout: PATIENCE, ..small() }).await;
    let good = Ask::post("/v1/publish", GOOD).bytes(&served);
    let mut idle = served.connect().await;
    idle.write_all(&good).await.unwrap();
    assert_eq!(Answer::read(&mut idle).await.header("connection"), "");
    let mut fresh = served.connect().await;
    let mut busy = served.connect().await;
    busy.write_all(&Ask::post("/v1/publish", br#"{"channel":"stall.1","data":1}"#).bytes(&served))
        .await
        .unwrap();
    // The answer to a request that came later shows that `busy` is being served.
    served.post("/v1/publish", br#"{"channel":"down.1","data":1}"#).await;

    served.tasks.enter(Phase::Draining);
    assert!(is_closed(&mut idle).await);
    assert_eq!(Answer::read(&mut busy).await.status, 503);
    assert!(is_closed(&mut busy).await);
    // One that had not asked yet, and one that came later: both are answered, and asked not to come back.
    let mut late = served.connect().await;
    for socket in [&mut fresh, &mut late] {
        socket.write_all(&good).await.unwrap();
        let answer = Answer::read(socket).await;
        assert_eq!((answer.status, answer.header("connection")), (200, "close"));
        assert!(is_closed(socket).await);
    }

    let mut unfinished = served.connect().await;
    served.tasks.enter(Phase::Cut);
    assert!(is_closed(&mut unfinished).await);
    assert_eq!(served.tasks.finished(PATIENCE).await, Stopped::Clean);
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_their_turn() {
    let served = Served::start(carillon_api::Config {
        connections_max: 2,
        first_request_timeout: PATIENCE,
        ..small()
    })
    .await;
    let good = Ask::post("/v1/publish", GOOD).bytes(&served);
    let (mut first, mut second) = (served.connect().await, served.connect().await);
    for socket in [&mut first, &mut second] {
        socket.write_all(&good).await.unwrap();
        assert_eq!(Answer::read(socket).await.status, 200);
    }
    let mut third = served.connect().await;
    third.write_all(&good).await.unwrap();
    // A place becomes free, and the one who waited is served.
    drop(first);
    assert_eq!(Answer::read(&mut third).await.status, 200);
    assert_eq!(served.heard().len(), 3);
}
