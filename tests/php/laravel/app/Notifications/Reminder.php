<?php

namespace App\Notifications;

use Illuminate\Notifications\Messages\BroadcastMessage;
use Illuminate\Notifications\Notification;

class Reminder extends Notification
{
    public function __construct(private string $text)
    {
    }

    public function via($user): array
    {
        return ['broadcast'];
    }

    public function toBroadcast($user): BroadcastMessage
    {
        return new BroadcastMessage(['text' => $this->text]);
    }
}
