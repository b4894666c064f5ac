<?php

namespace App\Models;

use Illuminate\Auth\GenericUser;
use Illuminate\Notifications\Notifiable;

/** A user without a database. */
class User extends GenericUser
{
    use Notifiable;

    public static function named(string $id): self
    {
        return new self(['id' => $id, 'name' => ucfirst($id)]);
    }

    public function getKey(): string
    {
        return $this->id;
    }

    public function mayRead(string $order): bool
    {
        return $this->id === 'ana' || $order === 'everybody';
    }

    public function mayEnter(string $room): bool
    {
        return $room !== 'closed';
    }
}
