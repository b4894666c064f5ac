<?php
/**
 * Carillon's client for PHP: publishes through the gateway and signs tokens for visitors.
 *
 * One file on purpose: copy it into an application and `require` it. PHP 7.2 or later with ext-json; ext-curl is
 * used where present, plain sockets otherwise.
 */

namespace Carillon;

/**
 * Why a call failed.
 *
 * `getCode()` is the gateway's number (4303), or the HTTP status of an answer that is not the gateway's, or 0 when
 * there was no answer. `getError()` is what a program decides by: the gateway's name ("forbidden"), or one of
 * "network", "timeout", "redirect", "bad_answer", "bad_argument", "not_utf8".
 */
class Exception extends \RuntimeException
{
    /** @var string */
    private $error;
    /** @var bool */
    private $retryable;

    public function __construct($message, $code, $error, $retryable)
    {
        parent::__construct($message, $code);
        $this->error = $error;
        $this->retryable = $retryable;
    }

    /** Returns the error's name. */
    public function getError()
    {
        return $this->error;
    }

    /** Says whether the same call, with the same id, may succeed later without a change. */
    public function isRetryable()
    {
        return $this->retryable;
    }
}

/**
 * One gateway, one key.
 *
 * Options of the constructor:
 * - `on_error`: "throw" (default), "log" (to PHP's error log; the call returns null) or "silent" (null as well)
 * - `defer`: true sends after the visitor has the page; see README
 * - `connect_timeout_ms` (300) and `timeout_ms` (1000, for the whole call with its retry)
 * - `transport`: "auto" (default), "curl" or "stream"
 * - `token_secret`: what `token` signs with; line breaks at its end are left out, as the gateway does with its file
 */
class Client
{
    const VERSION = '0.1.0';

    /** No answer of the gateway comes near this; anything longer is not the gateway. */
    const ANSWER_MAX_BYTES = 1048576;

    /** So many wait for the end of the page; one more sends those that wait. Bounds a worker that never ends. */
    const DEFERRED_MAX = 100;

    /** How long sending what was deferred may hold the PHP process. */
    const DEFERRED_MAX_MS = 5000;

    /** A second attempt with less time than this would only fail again. */
    const ATTEMPT_MIN_MS = 50;

    /** The gateway takes no shorter secret for HS256 (RFC 7518, section 3.2). */
    const SECRET_MIN_BYTES = 32;

    private $url = '';
    private $key = '';
    private $options = [
        'on_error' => 'throw',
        'defer' => false,
        'connect_timeout_ms' => 300,
        'timeout_ms' => 1000,
        'transport' => 'auto',
        'token_secret' => '',
    ];
    /** What is wrong with the constructor's arguments, or null. */
    private $fault;
    /** PHP's first warning during an exchange: the only place where it tells why TLS failed. */
    private $warning = '';
    /** Calls that wait for the end of the page: [path, body]. */
    private $deferred = [];

    /** The process's one curl handle: it keeps connections open between calls, of all clients. */
    private static $curl;
    private static $curlOwner = 0;

    /**
     * Takes the address of the gateway's API listener ("http://127.0.0.1:8001") and an API key.
     *
     * Never throws: an exception from here would carry the key in its stack trace. What is wrong with the arguments
     * is said by the first call. For the same reason the key is an argument of no other function in this file.
     * The attributes hide both from traces in PHP 8.2 and later; older versions read them as comments.
     */
    public function __construct(
        $url,
        #[\SensitiveParameter]
        $key,
        #[\SensitiveParameter]
        $options = []
    ) {
        $this->key = is_string($key) ? $key : '';
        $this->url = is_string($url) ? rtrim($url, '/') : '';
        if (is_array($options)) {
            $this->options = $options + $this->options;
            if (is_string($this->options['token_secret'])) {
                $this->options['token_secret'] = rtrim($this->options['token_secret'], "\r\n");
            }
            $this->fault = $this->findFault(array_keys($options));
        } else {
            $this->fault = 'the options are an array';
        }
    }

    /**
     * Publishes to one channel (a string) or several (an array of strings).
     *
     * `$options`: `event` (a name), `id` (an idempotency key; made up when absent), `exclude` (connection ids that
     * shall not receive it: one or an array).
     *
     * @return array|null one result a channel: `channel`, `id`, `stored`, `duplicate`; null when deferred or failed
     * @throws Exception when it failed on any channel and `on_error` is "throw"
     */
    public function publish($channels, $data, array $options = [])
    {
        $target = is_array($channels) ? ['channels' => array_values($channels)] : ['channel' => $channels];
        return $this->guard(function () use ($target, $data, $options) {
            $item = $this->complete($target + ['data' => $data] + $options, ['channel', 'channels']);
            return $this->send('/v1/publish', $item);
        });
    }

    /**
     * Publishes to all connections of one user, on whatever channels they are. Options as in `publish`.
     *
     * @return array|null one result, as in `publish` with `user` in the place of `channel`
     * @throws Exception when it failed and `on_error` is "throw"
     */
    public function publishToUser($user, $data, array $options = [])
    {
        return $this->guard(function () use ($user, $data, $options) {
            $item = $this->complete(['user' => (string) $user, 'data' => $data] + $options, ['user']);
            return $this->send('/v1/publish', $item);
        });
    }

    /**
     * Publishes up to 100 items in one call. An item: `channel` or `user` (one), `data`, and the options of `publish`.
     *
     * @return array|null one result an item, in order, as in `publish`; an item that failed has instead an `error`
     *                    (an array with `code`, `error`, `detail`, `retryable`), and fails alone
     * @throws Exception when the call as a whole failed and `on_error` is "throw"
     */
    public function batch(array $items)
    {
        return $this->guard(function () use ($items) {
            $batch = [];
            foreach ($items as $number => $item) {
                if (!is_array($item)) {
                    throw self::badArgument(is_string($number)
                        ? 'batch takes a list of items: batch([["channel" => ..., "data" => ...], ...])'
                        : "item $number of the batch is not an array");
                }
                $batch[] = $this->complete($item, ['channel', 'channels', 'user']);
            }
            return $this->send('/v1/batch', $batch);
        });
    }

    /**
     * Signs a token (HS256) that says who a visitor is, for `$ttl` seconds.
     *
     * `$claims`: `channels`, the patterns the visitor may subscribe to (["orders.7", "news.*"]), and whatever else
     * the application wants to find in it. `on_error` does not apply: without a token there is nothing to return.
     *
     * @return string
     * @throws Exception
     */
    public function token($user, $ttl, array $claims = [])
    {
        if ($this->fault !== null) {
            throw self::badArgument($this->fault);
        }
        if ($this->options['token_secret'] === '') {
            throw self::badArgument('to sign tokens, give the option token_secret: the gateway\'s secret');
        }
        if ((string) $user === '') {
            throw self::badArgument('the user of a token is empty');
        }
        if (!is_int($ttl) || $ttl < 1) {
            throw self::badArgument('the ttl of a token is a whole number of seconds, at least 1');
        }
        if (isset($claims['channels'])) {
            $claims['channels'] = array_values((array) $claims['channels']);
        }
        $claims = ['sub' => (string) $user, 'exp' => time() + $ttl] + $claims;
        $signed = self::base64url('{"alg":"HS256","typ":"JWT"}') . '.' . self::base64url(self::json($claims));
        return $signed . '.' . self::base64url(hash_hmac('sha256', $signed, $this->options['token_secret'], true));
    }

    /** Sends what was deferred, now. Failures are logged, or not, by `on_error`; they are never thrown. */
    public function sendDeferred()
    {
        $ends = self::now() + self::DEFERRED_MAX_MS;
        $calls = $this->deferred;
        $this->deferred = [];
        foreach ($calls as $number => $call) {
            try {
                foreach ($this->call($call[0], $call[1], $ends) as $result) {
                    if (isset($result['error'])) { // an item of a batch
                        $this->report(self::refusal((array) $result['error'], 200));
                    }
                }
            } catch (Exception $failure) {
                $this->report($failure);
                $unsent = count($calls) - $number - 1;
                // Others would wait for the same gateway, and hold a PHP process meanwhile.
                if (in_array($failure->getError(), ['network', 'timeout'], true) && $unsent > 0) {
                    $this->report(new Exception("$unsent more deferred calls were not sent", 0, 'network', true));
                    return;
                }
            }
        }
    }

    /** What var_dump and print_r show: never the key or the secret. */
    public function __debugInfo()
    {
        return ['url' => $this->url, 'fault' => $this->fault, 'deferred' => count($this->deferred)];
    }

    // ---- What is sent

    /** Returns what is wrong with the constructor's arguments, or null. */
    private function findFault(array $given)
    {
        $known = ['on_error', 'defer', 'connect_timeout_ms', 'timeout_ms', 'transport', 'token_secret'];
        $unknown = array_diff($given, $known);
        $parts = parse_url($this->url);
        if (!isset($parts['scheme'], $parts['host']) || !in_array($parts['scheme'], ['http', 'https'], true)) {
            return 'the url has no http:// or https:// and host; it is the API listener, such as http://127.0.0.1:8001';
        }
        if (isset($parts['user']) || isset($parts['query']) || preg_match('/[^\x21-\x7e]/', $this->url)) {
            return 'the url holds more than scheme, host, port and path';
        }
        if ($this->key === '') {
            return 'the key is empty; when it comes from a variable of the environment, is that set?';
        }
        if (!preg_match('/^[\x21-\x7e]+$/D', $this->key)) {
            return 'the key holds spaces or line breaks; when it comes from a file, trim it';
        }
        if ($unknown) {
            return 'unknown option ' . implode(', ', $unknown) . '; known are ' . implode(', ', $known);
        }
        foreach (['connect_timeout_ms', 'timeout_ms'] as $name) {
            if (!is_int($this->options[$name]) || $this->options[$name] < 1) {
                return "the option $name is a whole number of milliseconds, at least 1";
            }
        }
        if (!in_array($this->options['transport'], ['auto', 'curl', 'stream'], true)) {
            return 'the option transport is "auto", "curl" or "stream"';
        }
        if ($this->options['transport'] === 'curl' && !function_exists('curl_init')) {
            return 'the option transport is "curl", but this PHP has no ext-curl';
        }
        $secret = $this->options['token_secret'];
        if (!is_string($secret) || ($secret !== '' && strlen($secret) < self::SECRET_MIN_BYTES)) {
            return 'the option token_secret is a string of at least ' . self::SECRET_MIN_BYTES . ' bytes';
        }
        if (!in_array($this->options['on_error'], ['throw', 'log', 'silent'], true)) {
            return 'the option on_error is "throw", "log" or "silent"';
        }
        return null;
    }

    /** Checks a publication's members and gives it an id if it has none, so that a retry stores it once. */
    private function complete(array $item, array $targets)
    {
        foreach (array_keys($item) as $name) {
            if (!in_array($name, array_merge($targets, ['data', 'event', 'id', 'exclude']), true)) {
                throw self::badArgument("unknown option $name; known are event, id, exclude");
            }
        }
        if (!isset($item['id'])) {
            $item['id'] = bin2hex(random_bytes(16));
        }
        if (isset($item['exclude'])) {
            $item['exclude'] = array_values((array) $item['exclude']);
        }
        foreach ($item as $name => $value) {
            if ($value === null && $name !== 'data') {
                unset($item[$name]);
            }
        }
        return $item;
    }

    /** Runs one call and treats its failure as `on_error` says. */
    private function guard(callable $work)
    {
        try {
            if ($this->fault !== null) {
                throw self::badArgument($this->fault);
            }
            return $work();
        } catch (Exception $failure) {
            if (!in_array($this->options['on_error'], ['log', 'silent'], true)) {
                throw $failure;
            }
            $this->report($failure);
            return null;
        }
    }

    private function report(Exception $failure)
    {
        if ($this->options['on_error'] !== 'silent') {
            error_log($failure->getMessage());
        }
    }

    /** Sends a call now, or puts it off. What cannot be encoded fails here in either case, where the caller is. */
    private function send($path, array $content)
    {
        $body = self::json($content);
        if (!$this->options['defer']) {
            return $this->call($path, $body, INF);
        }
        if (!$this->deferred) {
            // Twice, so that it runs after every function that the application registered itself.
            register_shutdown_function(function () {
                register_shutdown_function(function () {
                    $this->afterResponse();
                });
            });
        }
        $this->deferred[] = [$path, $body];
        if (count($this->deferred) >= self::DEFERRED_MAX) {
            $this->sendDeferred();
        }
        return null;
    }

    private function afterResponse()
    {
        if (!$this->deferred) {
            return;
        }
        if (function_exists('fastcgi_finish_request')) {
            // The visitor's next request would wait for the session's lock otherwise.
            if (function_exists('session_status') && session_status() === PHP_SESSION_ACTIVE) {
                session_write_close();
            }
            fastcgi_finish_request();
        }
        $this->sendDeferred();
    }

    private static function json(array $content)
    {
        $flags = JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_PRESERVE_ZERO_FRACTION;
        $text = json_encode($content, $flags);
        if ($text !== false) {
            return $text;
        }
        if (json_last_error() === JSON_ERROR_UTF8) {
            $place = self::findNotUtf8($content, '');
            throw new Exception(
                'carillon: not_utf8: ' . ($place === '' ? 'a text' : "the text at $place") . ' is not UTF-8, probably'
                . ' Latin-1. Convert it with mb_convert_encoding($text, "UTF-8", "Windows-1252"), or have the database'
                . ' deliver UTF-8 (mysqli_set_charset($link, "utf8mb4"))',
                0,
                'not_utf8',
                false
            );
        }
        throw self::badArgument('the data cannot be written as JSON: ' . json_last_error_msg());
    }

    /** Returns where in `$content` the first text stands that is not UTF-8, as "data.customer.name", or "". */
    private static function findNotUtf8(array $content, $path)
    {
        foreach ($content as $name => $value) {
            if (preg_match('//u', (string) $name) !== 1) {
                return ($path === '' ? '' : "$path.") . '(a key)';
            }
            $here = $path === '' ? (string) $name : "$path.$name";
            if (is_string($value) && preg_match('//u', $value) !== 1) {
                return $here;
            }
            if (is_object($value) && !$value instanceof \JsonSerializable) {
                $value = get_object_vars($value);
            }
            $found = is_array($value) ? self::findNotUtf8($value, $here) : '';
            if ($found !== '') {
                return $found;
            }
        }
        return '';
    }

    private static function base64url($bytes)
    {
        return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
    }

    private static function badArgument($message)
    {
        return new Exception("carillon: bad_argument: $message", 0, 'bad_argument', false);
    }

    // ---- The call

    /** One call with at most one retry, over after `timeout_ms` or at `$ends`, whichever comes first. */
    private function call($path, $body, $ends)
    {
        $ends = min($ends, self::now() + $this->options['timeout_ms']);
        $answer = $this->exchange($path, $body, $ends);
        $problem = json_decode($answer['body'], true);
        $problem = is_array($problem) ? $problem : [];
        if (self::mayRetry($answer['status'], $problem)) {
            if (isset($problem['retry_after_ms']) && is_int($problem['retry_after_ms'])) {
                $pause = max(0, $problem['retry_after_ms']); // the header has whole seconds only
            } elseif ($answer['retry_after_ms'] !== null) {
                $pause = $answer['retry_after_ms'];
            } else {
                $pause = mt_rand(20, 60); // not the same for every process
            }
            if (self::now() + $pause + self::ATTEMPT_MIN_MS < $ends) {
                usleep((int) ($pause * 1000));
                $sentBefore = $answer['sent'];
                $answer = $this->exchange($path, $body, $ends);
                $answer['sent'] = $answer['sent'] || $sentBefore;
            }
        }
        $results = $this->understand($answer);
        foreach ($path === '/v1/publish' ? $results : [] as $result) {
            // Some channels may have it: published is only what all have.
            if (isset($result['error'])) {
                throw self::refusal((array) $result['error'], $answer['status']);
            }
        }
        return $results;
    }

    /** Says whether to try again: after no answer, 429 or 5xx, unless the gateway says that it is final. */
    private static function mayRetry($status, array $problem)
    {
        if ($status === 0 || $status === 429) {
            return true;
        }
        return $status >= 500 && !(isset($problem['retryable']) && $problem['retryable'] === false);
    }

    /** Returns the results of a good answer and throws everything else. */
    private function understand(array $answer)
    {
        $status = $answer['status'];
        if ($status === 0) {
            $outcome = $answer['sent']
                ? 'what was sent may have arrived, and a retry with the same id is safe'
                : 'nothing was sent';
            throw new Exception(
                "carillon: {$answer['failure']}: no answer from $this->url ({$answer['body']}); $outcome",
                0,
                $answer['failure'],
                true
            );
        }
        $content = json_decode($answer['body'], true);
        if ($status >= 200 && $status < 300 && isset($content['results']) && is_array($content['results'])) {
            return $content['results'];
        }
        if ($status >= 400 && isset($content['error'])) {
            throw self::refusal($content, $status);
        }
        $error = $status >= 300 && $status < 400 ? 'redirect' : 'bad_answer';
        $text = $error === 'redirect'
            ? 'the server redirects, which is not followed, for it would carry the key elsewhere'
            : 'the answer is not the gateway\'s';
        throw new Exception(
            "carillon: $error: $text (HTTP $status); check that $this->url is the gateway's API listener",
            $status,
            $error,
            $status === 429 || $status >= 500
        );
    }

    /** Makes the exception of a refusal as the gateway writes it: `code`, `error`, `retryable`, `detail`. */
    private static function refusal(array $said, $status)
    {
        $said += ['code' => $status, 'error' => 'bad_answer', 'detail' => '', 'retryable' => false];
        $error = self::printable($said['error']);
        $text = "carillon: $error: " . self::printable($said['detail']) . " (HTTP $status)";
        return new Exception($text, (int) $said['code'], $error, $said['retryable'] === true);
    }

    /** Makes a text from the network fit for a log line: no line breaks, not long. */
    private static function printable($text)
    {
        return substr(preg_replace('/[\x00-\x1f\x7f]+/', ' ', is_string($text) ? $text : ''), 0, 500);
    }

    // ---- The wire

    /**
     * Sends one request. Always returns: `status` (0 = no answer), `body`, `retry_after_ms` (or null), `failure`,
     * `sent` (false when nothing of the request can have reached the server).
     *
     * PHP's warnings are caught here, because an error handler that turns them into exceptions would put the request,
     * and so the key, into a stack trace.
     */
    private function exchange($path, $body, $ends)
    {
        $curl = $this->options['transport'] !== 'stream' && function_exists('curl_init');
        $this->warning = '';
        set_error_handler(function ($level, $message) {
            $this->warning = $this->warning === '' ? $message : $this->warning;
            return true;
        });
        try {
            $answer = $curl ? $this->exchangeByCurl($path, $body, $ends) : $this->exchangeByStream($path, $body, $ends);
        } finally {
            restore_error_handler();
        }
        // Whoever answered may have repeated the key. A short one is a development key, and also an ordinary word.
        if (strlen($this->key) >= 16) {
            $answer['body'] = str_replace($this->key, '[key]', $answer['body']);
        }
        return $answer;
    }

    private function headers()
    {
        return [
            'Authorization: Bearer ' . $this->key,
            'Content-Type: application/json',
            'Accept: application/json',
            'User-Agent: carillon-php/' . self::VERSION,
        ];
    }

    private function exchangeByCurl($path, $body, $ends)
    {
        // After a fork the handle's connections are the parent's.
        if (self::$curl === null || self::$curlOwner !== getmypid()) {
            self::$curl = curl_init();
            self::$curlOwner = getmypid();
        }
        $curl = self::$curl;
        $retryAfter = null;
        $text = '';
        curl_reset($curl);
        curl_setopt_array($curl, [
            CURLOPT_URL => $this->url . $path,
            CURLOPT_POST => true,
            CURLOPT_POSTFIELDS => $body,
            // An empty Expect: curl would otherwise ask before it sends a large body, and wait.
            CURLOPT_HTTPHEADER => array_merge($this->headers(), ['Expect:']),
            CURLOPT_HTTP_VERSION => CURL_HTTP_VERSION_1_1,
            CURLOPT_FOLLOWLOCATION => false,
            CURLOPT_PROTOCOLS => CURLPROTO_HTTP | CURLPROTO_HTTPS,
            // The gateway is a neighbour; a proxy from the environment would only see the key.
            CURLOPT_PROXY => '',
            CURLOPT_NOSIGNAL => true,
            CURLOPT_CONNECTTIMEOUT_MS => $this->options['connect_timeout_ms'],
            CURLOPT_TIMEOUT_MS => max(1, (int) ($ends - self::now())),
            CURLOPT_HEADERFUNCTION => function ($curl, $line) use (&$retryAfter) {
                if (stripos($line, 'retry-after:') === 0) {
                    $retryAfter = trim(substr($line, 12));
                }
                return strlen($line);
            },
            CURLOPT_WRITEFUNCTION => function ($curl, $part) use (&$text) {
                $text .= $part;
                return strlen($text) > self::ANSWER_MAX_BYTES ? 0 : strlen($part);
            },
        ]);
        $good = curl_exec($curl);
        $status = (int) curl_getinfo($curl, CURLINFO_HTTP_CODE);
        if ($good === false || $status === 0) {
            $late = curl_errno($curl) === CURLE_OPERATION_TIMEDOUT;
            // Nothing of the request is written before the connection stands, TLS included.
            $sent = curl_getinfo($curl, CURLINFO_REQUEST_SIZE) > 0;
            return self::noAnswer($late ? 'timeout' : 'network', curl_error($curl), $sent);
        }
        return self::answer($status, $text, $retryAfter);
    }

    private function exchangeByStream($path, $body, $ends)
    {
        $parts = parse_url($this->url);
        $secure = $parts['scheme'] === 'https';
        $port = isset($parts['port']) ? $parts['port'] : ($secure ? 443 : 80);
        $address = ($secure ? 'ssl' : 'tcp') . "://{$parts['host']}:$port";
        $context = stream_context_create([
            'socket' => ['tcp_nodelay' => true],
            'ssl' => ['peer_name' => trim($parts['host'], '[]')],
        ]);
        $patience = max(1, min($this->options['connect_timeout_ms'], $ends - self::now())) / 1000;
        $stream = stream_socket_client($address, $errno, $error, $patience, STREAM_CLIENT_CONNECT, $context);
        if ($stream === false) {
            $late = stripos((string) $error, 'timed out') !== false;
            return self::noAnswer($late ? 'timeout' : 'network', self::printable($error ?: $this->warning), false);
        }
        $prefix = isset($parts['path']) ? $parts['path'] : '';
        $head = array_merge(["POST $prefix$path HTTP/1.1", "Host: {$parts['host']}:$port"], $this->headers());
        $head = array_merge($head, ['Content-Length: ' . strlen($body), 'Connection: close']);
        // A server that refuses early answers before it has read everything: read in any case.
        self::write($stream, implode("\r\n", $head) . "\r\n\r\n" . $body, $secure, $ends);
        $answer = self::readAnswer($stream, $ends);
        fclose($stream);
        return $answer;
    }

    private static function write($stream, $text, $secure, $ends)
    {
        // PHP itself ends a blocked write in time on TLS, but not on plain TCP.
        stream_set_blocking($stream, $secure);
        for ($sent = 0; $sent < strlen($text) && ($left = $ends - self::now()) > 0; $sent += $written) {
            list($seconds, $micros) = self::split($left);
            stream_set_timeout($stream, $seconds, $micros);
            $none = [];
            $ready = [$stream];
            if (!$secure && !stream_select($none, $ready, $none, $seconds, $micros)) {
                break;
            }
            $written = (int) fwrite($stream, substr($text, $sent, 65536));
            if ($written === 0) {
                break;
            }
        }
        stream_set_blocking($stream, true);
    }

    /** Splits milliseconds into seconds and microseconds, as PHP's stream functions want them. */
    private static function split($ms)
    {
        $micros = (int) max(1, $ms * 1000);
        return [intdiv($micros, 1000000), $micros % 1000000];
    }

    private static function readAnswer($stream, $ends)
    {
        $text = '';
        while (($left = $ends - self::now()) > 0) {
            list($seconds, $micros) = self::split($left);
            stream_set_timeout($stream, $seconds, $micros);
            $part = fread($stream, 65536);
            $ended = ($part === false || $part === '') && feof($stream);
            $text .= (string) $part;
            $answer = self::parse($text, $ended);
            if ($answer !== null) {
                return $answer;
            }
            if ($ended || strlen($text) > self::ANSWER_MAX_BYTES) {
                return self::noAnswer('network', $ended ? 'the connection was closed' : 'the answer is too long');
            }
        }
        return self::noAnswer('timeout', 'the time is up');
    }

    /** Reads an HTTP/1 answer; null while it is incomplete. `$ended`: nothing more will come. */
    private static function parse($text, $ended)
    {
        do {
            $end = strpos($text, "\r\n\r\n");
            if ($end === false) {
                return null;
            }
            $head = substr($text, 0, $end + 2);
            $text = (string) substr($text, $end + 4);
            if (!preg_match('~^HTTP/1\.[01] ([1-5]\d\d)[ \r]~', $head, $found)) {
                return self::noAnswer('network', 'the answer is not HTTP');
            }
            $status = (int) $found[1];
        } while ($status < 200);

        $retryAfter = preg_match('~\r\nretry-after:[ \t]*([^\r]*)~i', $head, $found) ? trim($found[1]) : null;
        if (preg_match('~\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r~i', $head)) {
            $text = self::joinChunks($text);
        } elseif (preg_match('~\r\ncontent-length:[ \t]*(\d+)[ \t]*\r~i', $head, $found)) {
            $text = strlen($text) < (int) $found[1] ? null : (string) substr($text, 0, (int) $found[1]);
        } elseif (!$ended && $status !== 204) {
            $text = null;
        }
        return $text === null ? null : self::answer($status, $text, $retryAfter);
    }

    /** Returns the body of a chunked answer; null while it is incomplete. */
    private static function joinChunks($text)
    {
        $body = '';
        for ($at = 0; preg_match('~\G([0-9a-f]{1,8})[^\r\n]*\r\n~i', $text, $found, 0, $at); $at += $size + 2) {
            $size = (int) hexdec($found[1]);
            if ($size === 0) {
                return $body;
            }
            $at += strlen($found[0]);
            if (strlen($text) < $at + $size + 2) {
                return null;
            }
            $body .= substr($text, $at, $size);
        }
        return null;
    }

    private static function answer($status, $body, $retryAfter)
    {
        $wait = null;
        if ($retryAfter !== null && preg_match('/^\d{1,6}$/D', $retryAfter)) {
            $wait = 1000 * (int) $retryAfter;
        } elseif ($retryAfter !== null && ($date = strtotime($retryAfter)) !== false) {
            $wait = 1000 * max(0, $date - time());
        }
        return ['status' => $status, 'body' => $body, 'retry_after_ms' => $wait, 'failure' => null, 'sent' => true];
    }

    private static function noAnswer($failure, $text, $sent = true)
    {
        return ['status' => 0, 'body' => $text, 'retry_after_ms' => null, 'failure' => $failure, 'sent' => $sent];
    }

    /** Milliseconds on a clock that is not set back, where PHP has one. */
    private static function now()
    {
        return function_exists('hrtime') ? hrtime(true) / 1e6 : microtime(true) * 1000;
    }
}
