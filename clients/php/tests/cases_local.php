<?php
/** Cases that send nothing: arguments, encoding, tokens. */

/** Returns the claims of an HS256 token whose signature is good; null otherwise. Written apart from the client. */
function verified($token, $secret)
{
    list($head, $body, $signature) = explode('.', $token);
    $mac = hash_hmac('sha256', "$head.$body", $secret, true);
    $text = str_replace(['+', '/', '='], ['-', '_', ''], base64_encode($mac));
    return hash_equals($text, $signature) ? json_decode(base64_decode(strtr($body, '-_', '+/')), true) : null;
}

/** The case: the first call fails with bad_argument and says this; the constructor does not throw. */
function misused($said, $url, $key, $options)
{
    return function () use ($said, $url, $key, $options) {
        $client = new Carillon\Client($url, $key, $options);
        foreach (['publish', 'token'] as $method) {
            $failure = failure(function () use ($client, $method) {
                $method === 'publish' ? $client->publish('a', 1) : $client->token('7', 60);
            });
            same('bad_argument', $failure->getError(), 'error');
            holds(strpos($failure->getMessage(), $said) !== false, $failure->getMessage());
        }
    };
}

$good = 'http://127.0.0.1:8001';

return [
    'arguments: url without scheme' => misused('the url has no http://', '127.0.0.1:8001', 'dev', []),
    'arguments: url with a password' => misused('the url holds more', 'http://a:b@127.0.0.1', 'dev', []),
    'arguments: key with a line break' => misused('the key holds spaces', $good, "dev\n", []),
    'arguments: no key' => misused('the key is empty', $good, false, []),
    'arguments: unknown option' => misused('unknown option on_eror; known are on_error', $good, 'dev', ['on_eror' => 'log']),
    'arguments: seconds for milliseconds' => misused('timeout_ms is a whole number', $good, 'dev', ['timeout_ms' => 0.5]),
    'arguments: a short secret' => misused('token_secret is a string of at least 32', $good, 'dev', ['token_secret' => 'x']),
    'arguments: on_error' => misused('the option on_error is', $good, 'dev', ['on_error' => 'ignore']),
    'arguments: options that are none' => misused('the options are an array', $good, 'dev', 'log'),
    'arguments: unknown option of publish' => function ($make) {
        $failure = failure(function () use ($make) {
            $make()->publish('a', 1, ['idempotency' => 'x']);
        });
        holds(strpos($failure->getMessage(), 'unknown option idempotency') !== false, $failure->getMessage());
    },
    'arguments: one item for a batch' => function ($make) {
        $failure = failure(function () use ($make) {
            $make()->batch(['channel' => 'a', 'data' => 1]);
        });
        holds(strpos($failure->getMessage(), 'batch takes a list of items') !== false, $failure->getMessage());
    },
    'dump: shows neither key nor secret' => function () {
        $secret = 'a-very-secret-secret-of-32-bytes!';
        $client = new Carillon\Client('http://127.0.0.1:8001', 'crl_app_k1_hidden', ['token_secret' => $secret]);
        ob_start();
        var_dump($client);
        $dump = ob_get_clean() . print_r($client, true);
        holds(strpos($dump, 'hidden') === false && strpos($dump, 'secret-secret') === false, $dump);
    },
    'UTF-8: Latin-1 is named, with its place and the remedy' => function ($make) {
        foreach (['data.customer.0.name' => [['customer' => [['name' => "M\xfcller"]]], []],
            'event' => [1, ['event' => "verschl\xfcsselt"]], 'data.(a key)' => [["stra\xdfe" => 1], []]] as $place => $publication) {
            $failure = failure(function () use ($make, $publication) {
                $make()->publish('a', $publication[0], $publication[1]);
            });
            same(['not_utf8', false], [$failure->getError(), $failure->isRetryable()], 'failure');
            holds(strpos($failure->getMessage(), "at $place is not UTF-8") !== false, $failure->getMessage());
            holds(strpos($failure->getMessage(), 'mb_convert_encoding') !== false, $failure->getMessage());
            holds(preg_match('//u', $failure->getMessage()) === 1, 'the message itself is UTF-8');
        }
    },
    'UTF-8: on_error applies' => function ($make) {
        same(null, $make(['on_error' => 'silent'])->publish('a', "M\xfcller"), 'result');
    },
    'JSON: what cannot be written' => function ($make) {
        $failure = failure(function () use ($make) {
            $make()->publish('a', NAN);
        });
        same('bad_argument', $failure->getError(), 'error');
    },
    'token: the check itself agrees with known vectors' => function () {
        // The token that jwt.io shows, and the one of RFC 7515, appendix A.1.
        $known = 'eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c';
        same('1234567890', verified($known, 'your-256-bit-secret')['sub'], 'jwt.io');
        $rfc = 'eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk';
        $secret = base64_decode(strtr('AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow', '-_', '+/'));
        same('joe', verified($rfc, $secret)['iss'], 'RFC 7515');
        same(null, verified($known . 'x', 'your-256-bit-secret'), 'a wrong signature');
    },
    'token: signed, with sub, exp and channels' => function ($make) {
        $secret = '0123456789abcdef0123456789abcdef';
        $client = $make(['token_secret' => $secret]);
        for ($ttl = 1; $ttl < 200; $ttl++) { // many lengths and bytes, so that padding and +/ occur
            $token = $client->token("user-$ttl-ü?>", $ttl, ['channels' => ['x' => 'orders.7', 'y' => 'news.*'], 'name' => str_repeat('é', $ttl)]);
            holds(preg_match('/^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{43}$/D', $token) === 1, "shape: $token");
            holds(strpos($token, 'eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.') === 0, 'header, as in the vector of jwt.io');
            $claims = verified($token, $secret);
            same("user-$ttl-ü?>", $claims['sub'], 'sub');
            holds(abs($claims['exp'] - time() - $ttl) <= 1, 'exp');
            same(['orders.7', 'news.*'], $claims['channels'], 'channels');
        }
        same(null, verified($client->token('7', 60), 'another'), 'another secret');
    },
    'token: the secret may end as its file does, and in no other way' => function ($make) {
        $secret = str_repeat('s', 32);
        foreach (["\n", "\r\n", "\n\n"] as $end) {
            $token = $make(['token_secret' => $secret . $end])->token('7', 60);
            same('7', verified($token, $secret)['sub'], 'without line breaks');
        }
        same('7', verified($make(['token_secret' => "$secret \n"])->token('7', 60), "$secret ")['sub'], 'with its space');
    },
    'token: claims cannot replace sub and exp' => function ($make) {
        $secret = str_repeat('s', 32);
        $token = $make(['token_secret' => $secret])->token(7, 60, ['sub' => 'admin', 'exp' => 9999999999]);
        $claims = verified($token, $secret);
        same('7', $claims['sub'], 'sub');
        holds($claims['exp'] < time() + 61, 'exp');
    },
    'token: misuse throws whatever on_error says' => function ($make) {
        $with = $make(['token_secret' => str_repeat('s', 32), 'on_error' => 'silent']);
        foreach ([[$make(), '7', 60], [$with, '', 60], [$with, '7', 0], [$with, '7', '60'], [$with, "\xfc", 60]] as $call) {
            failure(function () use ($call) {
                $call[0]->token($call[1], $call[2]);
            });
        }
    },
];
