<?php

/**
 * The part of the class `Pusher\Pusher` that Laravel's broadcaster calls.
 *
 * Lives here: what signs and sends. Its package is on Packagist only, where no test can rely on getting it from; its
 * requests are those of version 7: Guzzle, `channel` for one and `channels` for many, parameters escaped in the query.
 * Called by: Laravel's own PusherBroadcaster, in the application of the tests.
 * Must not know: who answers.
 */

namespace Pusher;

use GuzzleHttp\Client;

class ApiErrorException extends \Exception
{
}

class Pusher
{
    private Client $client;

    public function __construct(private string $key, private string $secret, private string $appId, array $options = [])
    {
        $scheme = $options['scheme'] ?? (($options['useTLS'] ?? true) ? 'https' : 'http');
        $path = rtrim($options['path'] ?? '', '/');
        $this->client = new Client([
            'base_uri' => "{$scheme}://{$options['host']}:{$options['port']}{$path}/",
            'timeout' => $options['timeout'] ?? 30,
        ]);
    }

    public function trigger($channels, string $event, $data, array $params = []): object
    {
        $channels = (array) $channels;
        $where = count($channels) === 1 ? ['channel' => $channels[0]] : ['channels' => $channels];
        $data = json_encode($data, JSON_THROW_ON_ERROR);

        return $this->post('/events', ['name' => $event, 'data' => $data] + $where + $params);
    }

    public function authorizeChannel(string $channel, string $socketId, ?string $data = null): string
    {
        $signed = $data === null ? "{$socketId}:{$channel}" : "{$socketId}:{$channel}:{$data}";
        $answer = ['auth' => "{$this->key}:{$this->sign($signed)}"];

        return json_encode($data === null ? $answer : $answer + ['channel_data' => $data], JSON_UNESCAPED_SLASHES);
    }

    public function authorizePresenceChannel(string $channel, string $socketId, string $userId, $info = null): string
    {
        $data = ['user_id' => $userId] + ($info ? ['user_info' => $info] : []);

        return $this->authorizeChannel($channel, $socketId, json_encode($data, JSON_THROW_ON_ERROR));
    }

    // As they are called up to Laravel 8.
    public function socket_auth(string $channel, string $socketId): string
    {
        return $this->authorizeChannel($channel, $socketId);
    }

    public function presence_auth(string $channel, string $socketId, string $userId, $info = null): string
    {
        return $this->authorizePresenceChannel($channel, $socketId, $userId, $info);
    }

    private function post(string $tail, array $body): object
    {
        $path = "/apps/{$this->appId}{$tail}";
        $body = json_encode($body, JSON_THROW_ON_ERROR);
        $query = [
            'auth_key' => $this->key,
            'auth_timestamp' => time(),
            'auth_version' => '1.0',
            'body_md5' => md5($body),
        ];
        ksort($query);
        $pairs = implode('&', array_map(fn ($name) => "{$name}={$query[$name]}", array_keys($query)));
        $query['auth_signature'] = $this->sign("POST\n{$path}\n{$pairs}");
        $response = $this->client->post(ltrim($path, '/'), [
            'query' => $query,
            'body' => $body,
            'headers' => ['Content-Type' => 'application/json', 'X-Pusher-Library' => 'pusher-http-php 7.2.7'],
            'http_errors' => false,
        ]);
        if ($response->getStatusCode() !== 200) {
            throw new ApiErrorException((string) $response->getBody(), $response->getStatusCode());
        }

        return json_decode((string) $response->getBody(), false, 512, JSON_THROW_ON_ERROR);
    }

    private function sign(string $text): string
    {
        return hash_hmac('sha256', $text, $this->secret);
    }
}
