<?php
/**
 * The client's tests: `CARILLON_API=http://127.0.0.1:8001 CARILLON_KEY=dev php tests/run.php`.
 *
 * Cases that publish need a running gateway, whose addresses come from the environment; there is no way to leave
 * them out. Cases about failures start a server of their own. With ext-curl every case runs twice, once on each
 * transport; without it (`php -n`) on streams. An argument runs only the cases whose name contains it.
 */

error_reporting(E_ALL);
require __DIR__ . '/../src/Client.php';
require __DIR__ . '/harness.php';

$api = getenv('CARILLON_API');
$key = getenv('CARILLON_KEY');
if (!$api || !$key) {
    fwrite(STDERR, "set CARILLON_API (http://127.0.0.1:8001) and CARILLON_KEY (dev) to those of a running gateway\n");
    exit(2);
}
// Warnings are failures, also those that the client silences without a handler of its own.
set_error_handler(function ($level, $message, $file, $line) {
    throw new ErrorException($message, 0, $level, $file, $line);
});

$cases = (require __DIR__ . '/cases_gateway.php') + (require __DIR__ . '/cases_failure.php')
    + (require __DIR__ . '/cases_local.php');
$transports = function_exists('curl_init') ? ['curl', 'stream'] : ['stream'];
$passed = 0;
$failed = 0;
foreach ($transports as $transport) {
    foreach ($cases as $name => $case) {
        if (isset($argv[1]) && strpos($name, $argv[1]) === false) {
            continue;
        }
        $make = function ($options = [], $url = null, $with = null) use ($api, $key, $transport) {
            $url = $url === null ? $api : $url;
            return new Carillon\Client($url, $with === null ? $key : $with, $options + ['transport' => $transport]);
        };
        try {
            $case($make, $transport);
            $passed++;
        } catch (Throwable $problem) {
            $failed++;
            $place = $problem instanceof Failed ? '' : ' at ' . $problem->getFile() . ':' . $problem->getLine();
            echo "FAILED [$transport] $name: ", get_class($problem), ': ', $problem->getMessage(), $place, "\n";
        }
    }
}
echo "$passed passed, $failed failed\n";
exit($failed === 0 && $passed > 0 ? 0 : 1);
