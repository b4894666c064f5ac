use std::sync::mpsc;

use super::*;
use crate::logs::queue::{BYTES_MAX, LINES_MAX};

/// A sink that blocks in `write` until it is told to go on, and then passes lines on.
struct Blocked {
    go_on: mpsc::Receiver<()>,
    lines: mpsc::Sender<Vec<u8>>,
}

impl io::Write for Blocked {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Once the other end is gone, everything passes.
        let _gone = self.go_on.recv().is_err();
        self.lines.send(line.to_vec()).map_err(io::Error::other)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn blocked() -> (Arc<Queue>, mpsc::Sender<()>, mpsc::Receiver<Vec<u8>>) {
    let (go_on, wait) = mpsc::channel();
    let (lines, written) = mpsc::channel();
    let queue = Arc::new(Queue::default());
    queue.write_to(Blocked { go_on: wait, lines }).unwrap();
    (queue, go_on, written)
}

#[test]
fn a_blocked_sink_holds_nobody_up_and_the_rest_is_counted() {
    let (queue, go_on, written) = blocked();
    let offered = LINES_MAX * 2;
    for line in 0..offered {
        queue.offer(format!("{line}\n").as_bytes());
    }
    assert!(!queue.flushed(Duration::from_millis(1)));
    let dropped = usize::try_from(queue.dropped()).unwrap();
    // The thread may hold one line besides those that wait.
    assert!((offered - LINES_MAX - 1..=offered - LINES_MAX).contains(&dropped), "{dropped}");

    drop(go_on);
    assert!(queue.flushed(Duration::from_secs(10)));
    let lines: Vec<_> = written.try_iter().collect();
    assert_eq!(lines.len(), offered - dropped);
    assert_eq!(lines.first().unwrap(), b"0\n");
}

#[test]
fn bytes_are_bounded_as_well() {
    let (queue, go_on, written) = blocked();
    queue.offer(&vec![b'x'; BYTES_MAX + 1]);
    assert_eq!(queue.dropped(), 1);
    for _ in 0..6 {
        queue.offer(&vec![b'x'; BYTES_MAX / 2]);
    }
    assert!((4..=5).contains(&queue.dropped()), "{}", queue.dropped());
    drop(go_on);
    assert!(queue.flushed(Duration::from_secs(10)));
    assert!(written.try_iter().count() >= 2);
}

#[test]
fn a_sink_that_fails_is_counted_and_does_not_end_the_thread() {
    let (queue, go_on, written) = blocked();
    drop(written);
    drop(go_on);
    queue.offer(b"lost\n");
    assert!(queue.flushed(Duration::from_secs(10)));
    queue.offer(b"lost too\n");
    assert!(queue.flushed(Duration::from_secs(10)));
    assert_eq!(queue.dropped(), 2);
}

fn written(format: LogFormat, directives: &str) -> String {
    let (queue, go_on, written) = blocked();
    drop(go_on);
    let filter = directives::filter(directives).unwrap();
    tracing::subscriber::with_default(subscriber(format, filter, queue.clone(), false), || {
        tracing::info!(target: "carillon_node", worker = 3, "a line\nwith a break");
        tracing::debug!(target: "carillon_node", "detail");
        tracing::debug!(target: "carillon_hub", "other detail");
    });
    assert!(queue.flushed(Duration::from_secs(10)));
    written.try_iter().map(|line| String::from_utf8(line).unwrap()).collect()
}

#[test]
fn directives_choose_lines() {
    let text = written(LogFormat::Text, "info,carillon_node=debug");
    assert!(text.contains("INFO carillon_node: a line\\nwith a break worker=3\n"), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("DEBUG carillon_node: detail") && !text.contains("other"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
    assert_eq!(written(LogFormat::Text, "off"), "");
}

#[test]
fn json_is_one_object_a_line() {
    let text = written(LogFormat::Json, "debug");
    assert_eq!(text.lines().count(), 3, "{text}");
    for line in text.lines() {
        assert!(line.starts_with("{\"timestamp\":\"") && line.ends_with('}'), "{line}");
    }
    assert!(text.contains(r#""message":"a line\nwith a break","worker":3"#), "{text}");
}

#[test]
fn a_misspelt_level_is_refused() {
    for good in
        ["info", "INFO", "off", "warn,carillon_node=trace", "info, carillon_api=debug", "a[s{f=1}]=debug"]
    {
        assert_eq!(check_directives(good), Ok(()), "{good}");
    }
    for bad in ["inof", "info,", "carillon_node", "carillon_node=loud", "=", "info;debug", "[=info"] {
        assert!(matches!(check_directives(bad), Err(BadDirectives::Part { .. })), "{bad}");
    }
    assert_eq!(check_directives(" "), Err(BadDirectives::Empty));
}
