use carillon_broker::MemoryQueue;
use carillon_model::{AppSpace, Webhook};
use tokio::runtime::Handle;

use super::*;

fn app(url: &str, keys: Vec<AppKey>) -> Apps {
    let hook = Webhook { url: url.to_owned(), events: WebhookEvent::ALL.to_vec(), batch: false };
    Apps::new(vec![App { keys, webhooks: vec![hook], ..App::bare("shop", AppSpace::default()) }])
}

#[tokio::test]
async fn webhooks_that_cannot_work_are_refused_at_the_start() {
    let key = || AppKey { key: "key".to_owned(), secret: "secret".to_owned() };
    let start = |apps: &Apps| {
        let queue: Arc<dyn WorkQueue> = Arc::new(MemoryQueue::default());
        Webhooks::start(apps, &queue, Egress::default(), &Tasks::new(Handle::current())).err()
    };
    for url in ["", "/hook", "ftp://example.com/", "http://user@example.com/", "http://[::1", "http://a:b/"] {
        let refused = Some(StartError::Url { app: "shop".to_owned(), url: url.to_owned() });
        assert_eq!(start(&app(url, vec![key()])), refused, "{url}");
    }
    let good = "http://192.0.2.1/hook";
    assert_eq!(start(&app(good, vec![])), Some(StartError::NoKey { app: "shop".to_owned() }));
    let illegal = AppKey { key: "line\nbreak".to_owned(), ..key() };
    assert_eq!(start(&app(good, vec![illegal])), Some(StartError::NoKey { app: "shop".to_owned() }));
    assert_eq!(start(&app(good, vec![key()])), None);
}
