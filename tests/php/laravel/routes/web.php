<?php

use App\Events\OrderShipped;
use App\Models\User;
use App\Notifications\Reminder;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\Broadcast;
use Illuminate\Support\Facades\Log;
use Illuminate\Support\Facades\Route;

Route::get('/', fn () => 'open');

Route::post('/ship/{order}', function (string $order) {
    broadcast(new OrderShipped($order))->toOthers();
});

Route::post('/remind/{user}', function (string $user, Request $request) {
    User::named($user)->notify(new Reminder($request->input('text')));
});

// Any channels and events, as Laravel's broadcaster sends them.
Route::post('/broadcast', function (Request $request) {
    Broadcast::connection()->broadcast($request->input('channels'), $request->input('event'), $request->input('payload'));
});
