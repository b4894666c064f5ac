<?php
/** Cases about gateways that fail, each with a real server that misbehaves. */

/** Publishes to a server of that manner: [results, failure, requests it read, milliseconds]. */
function attempt(callable $make, $manner, $options = [], $key = 'dev')
{
    $server = new Server($manner);
    $client = $make($options, $server->url, $key);
    $results = null;
    $failure = null;
    $began = microtime(true);
    try {
        $results = $client->publish('orders.7', ['id' => 7], ['event' => 'shipped']);
    } catch (Carillon\Exception $thrown) {
        $failure = $thrown;
    }
    $took = (microtime(true) - $began) * 1000;
    return [$results, $failure, $server->stop(), $took];
}

/** The case: the first attempt fails, the second succeeds, with the same body. */
function retried($manner, $options = [])
{
    return function ($make) use ($manner, $options) {
        list($results, $failure, $requests) = attempt($make, $manner, $options);
        same(null, $failure === null ? null : $failure->getMessage(), 'failure');
        same('k3f9-1042', $results[0]['id'], 'result');
        same(2, count($requests), 'requests');
        same($requests[0]['body'], $requests[1]['body'], 'the second body, id included');
        holds(strlen(json_decode($requests[0]['body'], true)['id']) >= 16, 'an id was made up');
    };
}

/** The case: fails with this error, after so many requests. */
function fails($manner, $error, $code, $retryable, $requestCount, $options = [])
{
    return function ($make) use ($manner, $error, $code, $retryable, $requestCount, $options) {
        list(, $failure, $requests, $took) = attempt($make, $manner, $options);
        holds($failure !== null, 'the call failed');
        $found = [$failure->getError(), $failure->getCode(), $failure->isRetryable(), count($requests)];
        same([$error, $code, $retryable, $requestCount], $found, $failure->getMessage());
        holds($took < 1500, "the call took $took ms");
    };
}

return [
    'retry: 503 once' => retried('503-once'),
    'retry: 429 with Retry-After: 0' => retried('429-now'),
    'retry: 503 with a wait that fits, more exact than the header' => retried('503-in-100ms'),
    'retry: 429 in a second, when there is time' => retried('429-in-1s', ['timeout_ms' => 3000]),
    'retry: connection cut once' => retried('cut-once'),
    'retry: answer cut short once' => retried('truncated-once'),
    'retry: 429 in a second is too late by default' => fails('429-in-1s', 'unavailable', 4353, true, 1),
    'retry: Retry-After that does not fit' => fails('503-in-5s', 'unavailable', 4353, true, 1),
    'retry: only once' => fails('503-always', 'unavailable', 4353, true, 2),
    'retry: never on 403' => fails('403', 'forbidden', 4303, false, 1),
    'retry: never when the gateway says that it is final' => fails('501', 'not_enabled', 4309, false, 1),
    'redirect: not followed' => fails('redirect', 'redirect', 302, false, 1),
    'silence: over after the whole time' => fails('silent', 'timeout', 0, true, 1),
    'answer: a web page' => fails('html', 'bad_answer', 200, false, 1),
    'answer: a proxy that cannot reach the gateway' => fails('html-502', 'bad_answer', 502, true, 2),
    'answer: not HTTP' => fails('not-http', 'network', 0, true, 2),
    'answer: too long' => fails('endless', 'network', 0, true, 2),
    'answer: one channel of two refused' => fails('partly', 'forbidden', 4303, false, 1),
    'answer: chunked, after an early hint' => function ($make) {
        list($results, $failure) = attempt($make, 'chunked');
        same(null, $failure === null ? null : $failure->getMessage(), 'failure');
        same('k3f9-1042', $results[0]['id'], 'result');
    },
    'request: what is on the wire' => function ($make) {
        list(, , $requests) = attempt($make, 'good', [], 'crl_app_k1_verysecret');
        holds(strpos($requests[0]['head'], "POST /v1/publish HTTP/1.1\r\n") === 0, $requests[0]['head']);
        holds(stripos($requests[0]['head'], "\r\nAuthorization: Bearer crl_app_k1_verysecret\r\n") !== false, 'key');
        holds(stripos($requests[0]['head'], "\r\nContent-Type: application/json\r\n") !== false, 'type');
        holds(stripos($requests[0]['head'], "\r\nExpect:") === false, 'no Expect');
        $body = json_decode($requests[0]['body'], true);
        unset($body['id']);
        same(['channel' => 'orders.7', 'data' => ['id' => 7], 'event' => 'shipped'], $body, 'body');
    },
    'request: to a user, several channels, a batch' => function ($make) {
        $server = new Server('good');
        $client = $make([], $server->url . '/gateway/');
        $client->publishToUser(7, 1.0, ['id' => 'x']);
        $client->publish(['a', 'b'], [], ['id' => 'y', 'exclude' => ['c1']]);
        $client->batch([['channel' => 'a', 'data' => null, 'id' => 'z', 'event' => null]]);
        $requests = $server->stop();
        same('{"user":"7","data":1.0,"id":"x"}', $requests[0]['body'], 'to a user');
        same('{"channels":["a","b"],"data":[],"id":"y","exclude":["c1"]}', $requests[1]['body'], 'channels');
        same('[{"channel":"a","data":null,"id":"z"}]', $requests[2]['body'], 'batch');
        holds(strpos($requests[2]['head'], 'POST /gateway/v1/batch HTTP/1.1') === 0, $requests[2]['head']);
    },
    'request: 5 MB are sent whole' => function ($make) {
        $server = new Server('good');
        $make(['timeout_ms' => 10000], $server->url)->publish('orders.7', str_repeat('x', 5000000));
        $requests = $server->stop();
        same([1, 5000000], [count($requests), strlen(json_decode($requests[0]['body'], true)['data'])], 'request');
    },
    'keep-alive: curl uses one connection, for two clients as well' => function ($make, $transport) {
        $server = new Server('good');
        $make([], $server->url)->publish('a', 1);
        $make([], $server->url)->publish('a', 2);
        $connections = array_column($server->stop(), 'connection');
        same($transport === 'curl' ? [1, 1] : [1, 2], $connections, 'connections');
    },
    'connection refused: fast, named, retryable' => function ($make) {
        $server = new Server('good');
        $server->stop();
        $began = microtime(true);
        $failure = failure(function () use ($make, $server) {
            $make([], $server->url)->publish('a', 1);
        });
        same(['network', 0, true], [$failure->getError(), $failure->getCode(), $failure->isRetryable()], 'failure');
        holds(microtime(true) - $began < 0.9, 'fast');
        holds(strpos($failure->getMessage(), $server->url) !== false, 'names the address: ' . $failure->getMessage());
        holds(strpos($failure->getMessage(), 'nothing was sent') !== false, $failure->getMessage());
    },
    'sent: nothing, where the name is none or TLS fails' => function ($make) {
        $server = new Server('good'); // it speaks no TLS
        foreach (['http://' . str_repeat('x', 70), str_replace('http:', 'https:', $server->url)] as $url) {
            $failure = failure(function () use ($make, $url) {
                $make(['timeout_ms' => 3000, 'connect_timeout_ms' => 3000], $url)->publish('a', 1);
            });
            holds(strpos($failure->getMessage(), 'nothing was sent') !== false, $failure->getMessage());
            holds(strpos($failure->getMessage(), 'may have arrived') === false, $failure->getMessage());
        }
        $server->stop();
    },
    'sent: perhaps, where the request was read' => function ($make) {
        foreach (['silent', 'not-http'] as $manner) {
            list(, $failure) = attempt($make, $manner);
            holds(strpos($failure->getMessage(), 'what was sent may have arrived') !== false, $failure->getMessage());
        }
    },
    'connect: 300 ms at most, twice' => function ($make) {
        // A listener with a full backlog neither accepts nor refuses.
        $context = stream_context_create(['socket' => ['backlog' => 0]]);
        $flags = STREAM_SERVER_BIND | STREAM_SERVER_LISTEN;
        $listener = stream_socket_server('tcp://127.0.0.1:0', $errno, $error, $flags, $context);
        $address = stream_socket_get_name($listener, false);
        $fillers = [];
        for ($i = 0; $i < 8; $i++) {
            $fillers[] = @stream_socket_client("tcp://$address", $errno, $error, 1, STREAM_CLIENT_ASYNC_CONNECT);
        }
        $began = microtime(true);
        $failure = failure(function () use ($make, $address) {
            $make([], "http://$address")->publish('a', 1);
        });
        $took = (microtime(true) - $began) * 1000;
        same('timeout', $failure->getError(), $failure->getMessage());
        holds($took > 590 && $took < 900, "the call took $took ms");
    },
    'write: a server that stops reading does not hold the call' => function ($make) {
        $listener = stream_socket_server('tcp://127.0.0.1:0');
        $began = microtime(true);
        $failure = failure(function () use ($make, $listener) {
            $url = 'http://' . stream_socket_get_name($listener, false);
            $make([], $url)->publish('a', str_repeat('x', 30000000));
        });
        $took = (microtime(true) - $began) * 1000;
        same('timeout', $failure->getError(), $failure->getMessage());
        holds($took < 2000, "the call took $took ms");
    },
    'key: not in a message that repeats it, nor in any trace' => function ($make) {
        $secret = 'crl_app_k1_verysecret';
        list(, $failure) = attempt($make, 'echo-key', [], $secret);
        same('unauthorized', $failure->getError(), 'error');
        holds(strpos($failure->getMessage(), '[key] next') !== false, $failure->getMessage());
        foreach (['echo-key', 'cut-once', 'silent', 'redirect', 'html'] as $manner) {
            list(, $failure) = attempt($make, $manner, ['timeout_ms' => 200], $secret);
            $all = $failure === null ? '' : shown($failure);
            holds(strpos($all, 'verysecret') === false, "the key is in the exception of $manner");
        }
    },
    'on_error: silent and log return null' => function ($make) {
        $server = new Server('403');
        $log = tempnam(sys_get_temp_dir(), 'carillon');
        $before = ini_set('error_log', $log);
        same(null, $make(['on_error' => 'silent'], $server->url)->publish('a', 1), 'silent');
        same('', file_get_contents($log), 'nothing logged');
        same(null, $make(['on_error' => 'log'], $server->url)->batch([['channel' => 'a', 'data' => 1]]), 'log');
        $logged = file_get_contents($log);
        ini_set('error_log', (string) $before);
        unlink($log);
        holds(strpos($logged, 'carillon: forbidden: the key may not publish to orders.7 (HTTP 403)') !== false, $logged);
    },
    'defer: after the page, and one silent gateway is waited for once' => function ($make, $transport) {
        $server = new Server('silent');
        $code = 'require ' . var_export(dirname(__DIR__) . '/src/Client.php', true) . ';'
            . '$c = new Carillon\Client("' . $server->url . '", "dev", ["defer" => true, "transport" => "' . $transport . '", "timeout_ms" => 300]);'
            . 'register_shutdown_function(function () { echo "late "; });'
            . '$c->publish("a", 1); $c->publish("a", 2); $c->publish("a", 3);'
            . 'register_shutdown_function(function () { echo "last"; }); echo "page ";';
        $began = microtime(true);
        list($exit, $output, $errors) = php($code);
        $took = microtime(true) - $began;
        same([0, 'page late last'], [$exit, $output], 'the page');
        holds(strpos($errors, 'carillon: timeout') !== false && strpos($errors, '2 more deferred') !== false, $errors);
        holds($took < 2, "the script took $took s");
        same(1, count($server->stop()), 'requests');
    },
    'defer: a worker that never ends sends every hundred' => function ($make) {
        $server = new Server('good');
        $client = $make(['defer' => true], $server->url);
        for ($i = 0; $i < 250; $i++) {
            same(null, $client->publish('a', $i), 'deferred');
        }
        same(['deferred' => 50], array_slice($client->__debugInfo(), 2), 'waiting');
        $client->sendDeferred();
        same(250, count($server->stop()), 'requests');
    },
    'defer: an item of a batch that fails alone is logged' => function ($make) {
        $server = new Server('partly');
        $log = tempnam(sys_get_temp_dir(), 'carillon');
        $before = ini_set('error_log', $log);
        $client = $make(['defer' => true], $server->url);
        $client->batch([['channel' => 'a', 'data' => 1], ['channel' => 'b', 'data' => 2]]);
        $client->sendDeferred();
        ini_set('error_log', (string) $before);
        $logged = file_get_contents($log);
        unlink($log);
        same(1, substr_count($logged, 'carillon: forbidden'), $logged);
    },
    'defer: text that is not UTF-8 fails where it is published' => function ($make) {
        $failure = failure(function () use ($make) {
            $make(['defer' => true])->publish('a', "Gr\xfc\xdfe");
        });
        same('not_utf8', $failure->getError(), 'error');
    },
];
