<?php
/**
 * A small TCP server that misbehaves on purpose. `php server.php <manner>` prints its port, then serves until its
 * stdin is closed. Then it prints every request it read, each as one line of JSON: connection, head, body.
 *
 * Manners: see `answer`.
 */

const GOOD = '{"results":[{"channel":"orders.7","id":"k3f9-1042","stored":true,"duplicate":false}]}';
const PROBLEM = '{"title":"Unavailable","detail":"the broker is away","code":4353,"error":"unavailable","retryable":true}';
const FORBIDDEN = '{"title":"Forbidden","detail":"the key may not publish to orders.7","code":4303,"error":"forbidden","retryable":false}';
const DISABLED = '{"title":"Not enabled","detail":"not in this version","code":4309,"error":"not_enabled","retryable":false}';

function http($status, $body, $headers = [])
{
    $type = $status === 200 ? 'application/json' : 'application/problem+json';
    $head = array_merge(["HTTP/1.1 $status Any", "Content-Type: $type", 'Content-Length: ' . strlen($body)], $headers);
    return implode("\r\n", $head) . "\r\n\r\n" . $body;
}

/** Returns what to answer to the `$nth` request (from 1); null = never answer; "" = close without an answer. */
function answer($manner, $nth)
{
    $first = $nth === 1;
    switch ($manner) {
        case 'good':
            return http(200, GOOD);
        case '503-once':
            return $first ? http(503, PROBLEM) : http(200, GOOD);
        case '503-always':
            return http(503, PROBLEM);
        case '503-in-5s':
            return http(503, PROBLEM, ['Retry-After: 5']);
        case '503-in-100ms':
            $soon = str_replace('}', ',"retry_after_ms":100}', PROBLEM);
            return $first ? http(503, $soon, ['Retry-After: 1']) : http(200, GOOD);
        case '429-now':
            return $first ? http(429, PROBLEM, ['Retry-After: 0']) : http(200, GOOD);
        case '429-in-1s':
            return $first ? http(429, PROBLEM, ['retry-after: 1']) : http(200, GOOD);
        case '501':
            return http(501, DISABLED);
        case '403':
            return http(403, FORBIDDEN);
        case 'cut-once':
            return $first ? '' : http(200, GOOD);
        case 'truncated-once':
            return $first ? "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"resu" : http(200, GOOD);
        case 'redirect':
            return http(302, '', ['Location: http://127.0.0.1:1/elsewhere']);
        case 'silent':
            return null;
        case 'html':
            return http(200, '<html>It works!</html>');
        case 'html-502':
            return http(502, '<html>Bad gateway</html>');
        case 'not-http':
            return "220 mail.example ESMTP\r\n\r\n";
        case 'endless':
            return "HTTP/1.1 200 OK\r\n\r\n" . str_repeat('x', 2000000);
        case 'chunked':
            $parts = str_split(GOOD, 30);
            $text = '';
            foreach ($parts as $part) {
                $text .= dechex(strlen($part)) . ";ext=1\r\n$part\r\n";
            }
            return "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n$text" . "0\r\n\r\n";
        case 'partly':
            return http(200, '{"results":[{"channel":"a","id":"k-1","stored":true,"duplicate":false},'
                . '{"channel":"b","error":' . FORBIDDEN . '}]}');
        case 'echo-key':
            return http(401, '{"code":4301,"error":"unauthorized","retryable":false,"detail":"no such key: crl_app_k1_verysecret\r\nnext"}');
        default:
            return http(500, "no manner $manner");
    }
}

/** Reads one request; null when the peer is gone. */
function request($connection)
{
    $text = '';
    while (($end = strpos($text, "\r\n\r\n")) === false || strlen($text) < $end + 4 + $length) {
        $part = fread($connection, 65536);
        if ($part === false || $part === '') {
            return null;
        }
        $text .= $part;
        $length = preg_match('~content-length: *(\d+)~i', $text, $found) ? (int) $found[1] : 0;
    }
    return [substr($text, 0, $end), substr($text, $end + 4)];
}

$manner = $argv[1];
$server = stream_socket_server('tcp://127.0.0.1:0', $errno, $error);
if ($server === false) {
    fwrite(STDERR, "cannot listen: $error\n");
    exit(1);
}
echo substr(strrchr(stream_socket_get_name($server, false), ':'), 1), "\n";

$open = [];
$connections = 0;
$requests = [];
while (true) {
    $ready = array_merge([STDIN, $server], array_column($open, 1));
    $none = [];
    if (!stream_select($ready, $none, $none, 60) || in_array(STDIN, $ready, true)) {
        break;
    }
    if (in_array($server, $ready, true)) {
        $open[] = [++$connections, stream_socket_accept($server)];
    }
    foreach ($open as $place => list($number, $connection)) {
        if (!in_array($connection, $ready, true)) {
            continue;
        }
        $request = request($connection);
        $answer = '';
        if ($request !== null) {
            $requests[] = ['connection' => $number, 'head' => $request[0], 'body' => $request[1]];
            $answer = answer($manner, count($requests));
            fwrite($connection, (string) $answer);
        }
        $stays = $request !== null && ($answer === null || preg_match('~content-length: (?!500)~i', $answer));
        if (!$stays || stripos($request[0], 'connection: close') !== false && $answer !== null) {
            fclose($connection);
            unset($open[$place]);
        }
    }
}
foreach ($requests as $request) {
    echo json_encode($request), "\n";
}
