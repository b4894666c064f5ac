<?php
/** Cases against the real gateway. */

/** A channel of this run only. */
function channel($name)
{
    static $run;
    $run = $run ?: bin2hex(random_bytes(4));
    return "phptest.$run.$name";
}

return [
    'publish: one channel' => function ($make) {
        $results = $make()->publish(channel('one'), ['id' => 7, 'status' => 'shipped'], ['event' => 'shipped']);
        same(1, count($results), 'results');
        same(channel('one'), $results[0]['channel'], 'channel');
        holds(is_bool($results[0]['stored']), 'stored is a boolean');
        same(false, $results[0]['duplicate'], 'duplicate');
    },
    'publish: several channels, in order' => function ($make) {
        $results = $make()->publish(['x' => channel('b'), 'y' => channel('a')], 'text');
        same([channel('b'), channel('a')], array_column($results, 'channel'), 'channels');
    },
    'publish: every kind of data' => function ($make) {
        $client = $make();
        foreach ([null, true, 0, 1.0, '', "quote \" line\nbreak", 'Grüße 🎉', [], ['a' => ['b' => [1, 2]]], new stdClass()] as $data) {
            same(1, count($client->publish(channel('kinds'), $data)), 'results for ' . json_encode($data));
        }
    },
    'publish: the same id is stored once' => function ($make) {
        $client = $make();
        $id = bin2hex(random_bytes(8));
        $first = $client->publish(channel('once'), 1, ['id' => $id]);
        $second = $client->publish(channel('once'), 1, ['id' => $id]);
        if ($first[0]['stored']) {
            same(true, $second[0]['duplicate'], 'duplicate');
            same($first[0]['id'], $second[0]['id'], 'position');
        }
    },
    'publish: exclude a connection' => function ($make) {
        same(1, count($make()->publish(channel('exclude'), 1, ['exclude' => '0123456789abc'])), 'results');
    },
    'publish: 60 KiB of data' => function ($make) {
        same(1, count($make()->publish(channel('large'), str_repeat('x', 60 * 1024))), 'results');
    },
    'publish: too large is refused by the gateway' => function ($make) {
        $failure = failure(function () use ($make) {
            $make()->publish(channel('large'), str_repeat('x', 3 * 1024 * 1024));
        });
        // A gateway that stops reading may cut the connection before its answer is read.
        holds(in_array($failure->getError(), ['too_large', 'network'], true), 'error: ' . $failure->getMessage());
    },
    'publish: a bad channel name is refused with a reason' => function ($make) {
        $failure = failure(function () use ($make) {
            $make()->publish('has spaces and *', 1);
        });
        same('bad_request', $failure->getError(), 'error');
        same(4300, $failure->getCode(), 'code');
        same(false, $failure->isRetryable(), 'retryable');
        holds(strlen($failure->getMessage()) > 30, 'a reason: ' . $failure->getMessage());
    },
    'publish: a wrong key is refused' => function ($make, $transport) {
        $secret = 'crl_app_wrong_0123456789abcdefghijklmnopqrstuv';
        $failure = failure(function () use ($make, $secret) {
            $make([], null, $secret)->publish(channel('one'), 1);
        });
        same('unauthorized', $failure->getError(), 'error');
        same(4301, $failure->getCode(), 'code');
        holds(strpos(shown($failure), $secret) === false, 'the key is nowhere in the exception');
    },
    'publishToUser: one result' => function ($make) {
        $results = $make()->publishToUser('php-test-user', ['unread' => 3]);
        same(['php-test-user'], array_column($results, 'user'), 'users');
    },
    'batch: a bad item fails alone' => function ($make) {
        $results = $make()->batch([
            ['channel' => channel('batch'), 'data' => 1],
            ['channel' => 'not good*', 'data' => 2],
            ['user' => 'php-test-user', 'data' => 3, 'event' => 'last'],
        ]);
        same(3, count($results), 'results');
        holds(!isset($results[0]['error']) && !isset($results[2]['error']), 'good items: ' . json_encode($results));
        same('bad_request', $results[1]['error']['error'], 'the bad item');
    },
    'keep-alive: a hundred publications' => function ($make) {
        $client = $make();
        for ($i = 0; $i < 100; $i++) {
            $client->publish(channel('many'), $i);
        }
    },
    'defer: sent when the script ends' => function ($make, $transport) {
        $id = bin2hex(random_bytes(8));
        $code = 'require ' . var_export(dirname(__DIR__) . '/src/Client.php', true) . ';'
            . '$c = new Carillon\Client(getenv("CARILLON_API"), getenv("CARILLON_KEY"), ["defer" => true, "transport" => "' . $transport . '"]);'
            . 'var_dump($c->publish("' . channel('defer') . '", 1, ["id" => "' . $id . '"]));';
        same([0, "NULL\n", ''], php($code), 'the script');
        $again = $make()->publish(channel('defer'), 1, ['id' => $id]);
        if ($again[0]['stored']) {
            same(true, $again[0]['duplicate'], 'the deferred publication was there before');
        }
    },
    'example: the legacy page publishes what is posted' => function () {
        $posted = function ($status) {
            return php('$_POST = ["status" => ' . var_export($status, true) . '];'
                . 'require ' . var_export(dirname(__DIR__) . '/examples/legacy.php', true) . ';');
        };
        list($code, $output, $errors) = $posted('shipped');
        same([0, ''], [$code, $errors], 'the page');
        holds(strpos($output, 'Saved and told everybody') !== false, "the page: $output");
        foreach (['<b>shipped</b>', ['shipped']] as $hostile) {
            list($code, $output, $errors) = $posted($hostile);
            same([0, ''], [$code, $errors], 'the page');
            holds(strpos($output, 'Saved') === false, 'what is no status is neither saved nor shown');
            holds(strpos($output, '<b>shipped') === false, 'what is no status is neither saved nor shown');
        }
    },
];
