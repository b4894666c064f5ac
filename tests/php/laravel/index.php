<?php

/**
 * A Laravel application that broadcasts.
 *
 * Lives here: what composer and `laravel new` would make, around Debian's packages; what docs/laravel.md adds is laid beside it.
 * Called by: PHP's own web server, in tests/tests/pusher_laravel.rs.
 * Must not know: who broadcasts.
 */

require 'Illuminate/autoload.php';
require 'GuzzleHttp/autoload.php';
require getenv('PUSHER_CLASS');
spl_autoload_register(function (string $class) {
    $file = __DIR__.'/'.lcfirst(strtr($class, '\\', '/')).'.php';
    if (is_file($file)) {
        require $file;
    }
});

use App\Models\User;
use Illuminate\Auth\Middleware\Authenticate;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\Auth;
use Illuminate\Support\Facades\Broadcast;
use Illuminate\Support\Facades\Route;

$app = new Illuminate\Foundation\Application(__DIR__);
$app->singleton(Illuminate\Contracts\Http\Kernel::class, Illuminate\Foundation\Http\Kernel::class);
$app->singleton(Illuminate\Contracts\Debug\ExceptionHandler::class, Illuminate\Foundation\Exceptions\Handler::class);
$app->booted(function () use ($app) {
    // Whoever has a token is the user of that name.
    Auth::viaRequest('bearer', fn (Request $request) => $request->bearerToken() ? User::named($request->bearerToken()) : null);
    $app['router']->aliasMiddleware('auth', Authenticate::class);
    Broadcast::routes(['middleware' => ['auth:api']]);
    require __DIR__.'/routes/channels.php';
    require __DIR__.'/routes/web.php';
    require __DIR__.'/routes/page.php';
});

$kernel = $app->make(Illuminate\Contracts\Http\Kernel::class);
$response = $kernel->handle($request = Request::capture());
$response->send();
$kernel->terminate($request, $response);
