//! The table of metrics: every one that Carillon shows, and nothing else is shown.
//!
//! **Lives here:** names, units, labels, meanings, buckets.
//! **Called by:** every crate that counts: `metric::CONNECTIONS_OPENED.counter(&[…])`.
//! **Must not know:** who counts, the exporter.
//!
//! A name never changes its meaning. Base units, counters end in `_total`, labels come from closed sets.

use metrics::Unit;

use crate::{
    entry::{CounterMetric, Entry, GaugeMetric, HistogramMetric, Kind},
    label::{
        API, API_GRPC, API_HTTP, AUTH_METHOD, AUTH_RESULT, BROKER, BROKER_OP, CLOSED, DROPPED, GRPC_CODE,
        HTTP_CLASS, LIVE_LOST, PROTOCOL, RATE_SCOPE, RECOVERED, REJECTED, REVISION, SUBSCRIBED, TRANSPORT,
        VERSION, WEBHOOK_DROPPED, WEBHOOK_RESULT, WORD_LOST,
    },
};

/// Half a millisecond to five seconds: what a caller waits for.
const WAITS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// One millisecond to ten seconds: what crosses a network of clients.
const JOURNEYS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// One second to a day: how long people stay.
const STAYS: &[f64] = &[1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0];
/// How many received one publication.
const CROWDS: &[f64] = &[1.0, 10.0, 100.0, 1000.0, 10_000.0, 100_000.0];

/// Makes a static of every row and the table of all of them, so that no row can be missing from the table.
macro_rules! table {
    ($([$section:literal] $($row:ident: $kind:ident
        ($name:literal, $unit:ident $(, $buckets:ident)?, [$($($label:ident),+)|*])
        $(.$start:ident())?, $help:literal;)*)*) => {
        $($(
            #[doc = $help]
            pub static $row: $kind =
                $kind::new($name, Unit::$unit, $($buckets,)? &[$(&[$(&$label),+]),*], $help)$(.$start())?;
        )*)*
        /// Every metric, in the order of the reference.
        pub static TABLE: &[&Entry] = &[$($($row.entry()),*),*];
        /// The same by section of the reference, each with its title.
        pub(crate) static SECTIONS: &[(&str, &[&Entry])] = &[$(($section, &[$($row.entry()),*])),*];
    };
}

table! {
    ["Release"]
    BUILD_INFO: GaugeMetric("carillon_build_info", Count, [VERSION, REVISION]).on_use(),
        "Always 1; the labels say which release runs.";

    ["Connections"]
    CONNECTIONS: GaugeMetric("carillon_connections", Count, [TRANSPORT, PROTOCOL]),
        "Client connections that are open.";
    CONNECTIONS_LIMIT: GaugeMetric("carillon_connections_limit", Count, []),
        "Client connections that this node accepts at most.";
    CONNECTIONS_OPENED: CounterMetric("carillon_connections_opened_total", Count, [TRANSPORT, PROTOCOL]),
        "Client connections that were opened.";
    CONNECTIONS_CLOSED: CounterMetric("carillon_connections_closed_total", Count, [TRANSPORT, CLOSED]),
        "Client connections that ended, by what ended them.";
    CONNECTIONS_REJECTED: CounterMetric("carillon_connections_rejected_total", Count, [TRANSPORT, REJECTED]),
        "Connections that were refused before they were open.";
    CONNECTION_DURATION: HistogramMetric("carillon_connection_duration_seconds", Seconds, STAYS, [TRANSPORT]),
        "How long client connections lasted.";
    HANDSHAKE_DURATION: HistogramMetric("carillon_handshake_duration_seconds", Seconds, WAITS, [TRANSPORT]),
        "From accepting a socket to the end of its handshake.";
    CHANNELS: GaugeMetric("carillon_channels", Count, []),
        "Channels that somebody on this node is subscribed to.";
    PRESENCE_MEMBERS: GaugeMetric("carillon_presence_members", Count, []),
        "Memberships in presence channels that this node knows of: those of all nodes.";
    PRESENCE_WAITING: GaugeMetric("carillon_presence_waiting", Count, []),
        "Nodes that have asked this one for its members and wait: all together get 40 MB/s at most.";
    NODES: GaugeMetric("carillon_nodes", Count, []),
        "Nodes that this node hears, itself among them.";
    SUBSCRIPTIONS: GaugeMetric("carillon_subscriptions", Count, []),
        "Subscriptions of the connections on this node.";
    SUBSCRIBES: CounterMetric("carillon_subscribe_total", Count, [SUBSCRIBED]),
        "Requests to subscribe, by outcome.";

    ["Publishing"]
    PUBLISH_REQUESTS: CounterMetric("carillon_publish_requests_total", Count,
        [API_HTTP, HTTP_CLASS | API_GRPC, GRPC_CODE]),
        "Requests to publish, by class of HTTP status or by gRPC code.";
    PUBLISH_DURATION: HistogramMetric("carillon_publish_duration_seconds", Seconds, WAITS, [API]),
        "From reading a request to publish to its answer.";
    PUBLISH_DUPLICATES: CounterMetric("carillon_publish_duplicates_total", Count, [API]),
        "Publications that were stored before under the same id, and were not stored again.";
    MESSAGES_PUBLISHED: CounterMetric("carillon_messages_published_total", Count, [API]),
        "Messages that the broker took, one for each channel of a request.";

    ["Delivery"]
    MESSAGES_DELIVERED: CounterMetric("carillon_messages_delivered_total", Count, [TRANSPORT]),
        "Messages that were handed to a connection, one for each subscriber.";
    MESSAGES_DROPPED: CounterMetric("carillon_messages_dropped_total", Count, [DROPPED]),
        "Messages that were accepted and did not reach a subscriber.";
    DELIVERY_LATENCY: HistogramMetric("carillon_delivery_latency_seconds", Seconds, JOURNEYS, [TRANSPORT]),
        "From accepting a publication to the last socket written: one sample for each publication and worker.";
    FANOUT_RECIPIENTS: HistogramMetric("carillon_fanout_recipients", Count, CROWDS, []),
        "Subscribers that one publication reached: one sample for each publication and worker.";
    SENT_BYTES: CounterMetric("carillon_sent_bytes_total", Bytes, [TRANSPORT]),
        "Bytes written to client sockets.";
    RECEIVED_BYTES: CounterMetric("carillon_received_bytes_total", Bytes, [TRANSPORT]),
        "Bytes read from client sockets.";
    SEND_QUEUE_MESSAGES: GaugeMetric("carillon_send_queue_messages", Count, []),
        "Frames that wait in the outboxes of slow connections.";
    SEND_QUEUE_BYTES: GaugeMetric("carillon_send_queue_bytes", Bytes, []),
        "Bytes that wait in the outboxes of slow connections.";
    PING_RTT: HistogramMetric("carillon_ping_rtt_seconds", Seconds, JOURNEYS, [TRANSPORT]),
        "From a ping to its pong.";
    WORKER_QUEUE_MESSAGES: GaugeMetric("carillon_worker_queue_messages", Count, []),
        "Publications that wait for a worker, all workers together.";
    WORKER_QUEUE_OVERFLOWS: CounterMetric("carillon_worker_queue_overflows_total", Count, []),
        "Publications that found a worker's queue full; the broker's memory makes up for them, or a `gap` is told.";
    WORKER_QUEUE_HEALED: CounterMetric("carillon_worker_queue_healed_messages_total", Count, []),
        "Publications that were taken from the broker's memory after a worker's queue was full.";
    RECOVERIES: CounterMetric("carillon_recoveries_total", Count, [RECOVERED]),
        "Pasts that clients asked for when they subscribed, by outcome: all but `ok` were told `recovered:false`.";
    RECOVERED_MESSAGES: CounterMetric("carillon_recovered_messages_total", Count, []),
        "Messages that clients had missed and were sent.";
    GAPS: CounterMetric("carillon_gaps_total", Count, []),
        "Times that a client was told of a `gap` in a channel, other than by an overflow rule.";

    ["Broker"]
    BROKER_CONNECTED: GaugeMetric("carillon_broker_connected", Count, [BROKER]).on_use(),
        "1 while the broker is reached and nothing is missing, 0 otherwise. Only the broker in use is shown.";
    BROKER_RECONNECTS: CounterMetric("carillon_broker_reconnects_total", Count, [BROKER]),
        "Times that the link to the broker came back.";
    BROKER_ERRORS: CounterMetric("carillon_broker_errors_total", Count, [BROKER, BROKER_OP]),
        "Requests to the broker that failed.";
    BROKER_PUBLISH_DURATION: HistogramMetric("carillon_broker_publish_duration_seconds", Seconds, WAITS, [BROKER]),
        "From handing a message to the broker to its acknowledgement.";
    BROKER_PENDING_MESSAGES: GaugeMetric("carillon_broker_pending_messages", Count, [BROKER]),
        "Messages that the broker has not acknowledged yet.";
    BROKER_SLOW_CONSUMER: CounterMetric("carillon_broker_slow_consumer_total", Count, [BROKER]),
        "Times that the broker or its client said that this node reads too slowly.";
    BROKER_GAPS: CounterMetric("carillon_broker_gaps_total", Count, [BROKER]),
        "Holes that were found in a stream, by sequence.";
    BROKER_REPAIRED: CounterMetric("carillon_broker_repaired_messages_total", Count, [BROKER]),
        "Messages that were missing from a stream and were fetched.";
    BROKER_DUPLICATES: CounterMetric("carillon_broker_duplicates_total", Count, [BROKER]),
        "Messages that the broker brought a second time, and that were left out.";
    BROKER_LOST: CounterMetric("carillon_broker_lost_total", Count, [BROKER]),
        "Losses that could not be repaired; the subscribers concerned were told.";
    BROKER_LIVE_LOST: CounterMetric("carillon_broker_live_lost_total", Count, [BROKER, LIVE_LOST]),
        "Live messages that did not reach this node, as far as their publishers' counts show; subscribers were told.";
    BROKER_HISTORY_READS: CounterMetric("carillon_broker_history_reads_total", Count, [BROKER]),
        "Times that a channel's history was read from the broker for those who came back after a longer absence.";
    BROKER_HISTORY_SHARED: CounterMetric("carillon_broker_history_shared_total", Count, [BROKER]),
        "Times that somebody was answered from what was read for somebody else.";
    BROKER_RECENT_BYTES: GaugeMetric("carillon_broker_recent_bytes", Bytes, [BROKER]),
        "Memory that the last minutes' messages take, from which most who come back are served.";
    BROKER_POISON: CounterMetric("carillon_broker_poison_total", Count, [BROKER]),
        "Messages on our subjects that cannot be read as publications.";

    ["Between nodes"]
    WORDS_SENT: CounterMetric("carillon_words_sent_total", Count, []),
        "Words to other nodes, such as heartbeats and changes of rosters, that were handed to the broker.";
    WORDS_HEARD: CounterMetric("carillon_words_heard_total", Count, []),
        "Words of other nodes that were heard.";
    WORDS_LOST: CounterMetric("carillon_words_lost_total", Count, [WORD_LOST]),
        "Words to other nodes that were not sent; what they said is found out later.";

    ["Webhooks"]
    WEBHOOK_REQUESTS: CounterMetric("carillon_webhook_requests_total", Count, [WEBHOOK_RESULT]),
        "Requests to applications, by outcome; one may tell of several events.";
    WEBHOOK_DURATION: HistogramMetric("carillon_webhook_duration_seconds", Seconds, JOURNEYS, []),
        "From a request to an application to its answer, or to the end of our patience.";
    WEBHOOK_RETRIES: CounterMetric("carillon_webhook_retries_total", Count, []),
        "Requests to applications that were made again, as the one before had failed.";
    WEBHOOK_EVENTS_TOLD: CounterMetric("carillon_webhook_events_told_total", Count, []),
        "Events that an application has accepted.";
    WEBHOOK_EVENTS_DROPPED: CounterMetric("carillon_webhook_events_dropped_total", Count, [WEBHOOK_DROPPED]),
        "Events that an application was not told of.";
    WEBHOOK_EVENTS_WAITING: GaugeMetric("carillon_webhook_events_waiting", Count, []),
        "Events that this node has not put into the work queue yet, and those that it is telling.";

    ["Doors and stopping"]
    AUTH: CounterMetric("carillon_auth_total", Count, [AUTH_METHOD, AUTH_RESULT]),
        "Credentials that were checked, by outcome.";
    RATE_LIMITED: CounterMetric("carillon_rate_limited_total", Count, [RATE_SCOPE]),
        "Things that were refused because they came too often.";
    API_CONNECTIONS: GaugeMetric("carillon_api_connections", Count, []),
        "Connections of publishers that are open.";
    DRAINING: GaugeMetric("carillon_draining", Count, []),
        "1 while this node sends its clients away, 0 otherwise.";
    DRAINED_CONNECTIONS: CounterMetric("carillon_drained_connections_total", Count, []),
        "Client connections that were asked to move to another node.";
    LOG_DROPPED: CounterMetric("carillon_log_dropped_total", Count, []),
        "Lines of the log that were dropped because nobody read them fast enough.";
}

/// The metrics of the process itself, by their usual names, with their kinds and meanings. The collector describes
/// them.
pub const PROCESS: &[(&str, Kind, &str)] = &[
    ("process_cpu_seconds_total", Kind::Counter, "Seconds of a core that were used, in whole seconds."),
    ("process_open_fds", Kind::Gauge, "File descriptors that are open: each client connection is one."),
    ("process_max_fds", Kind::Gauge, "File descriptors that the process may have."),
    ("process_virtual_memory_bytes", Kind::Gauge, "Virtual memory; says little."),
    ("process_virtual_memory_max_bytes", Kind::Gauge, "Virtual memory that the process may have."),
    ("process_resident_memory_bytes", Kind::Gauge, "Memory that is in use."),
    ("process_start_time_seconds", Kind::Gauge, "When the process began, in seconds since 1970."),
    ("process_threads", Kind::Gauge, "Threads."),
];
