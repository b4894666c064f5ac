<?php
/** What the cases are written with: checks, and children that are started and ended. No library. */

/** A check that failed. */
class Failed extends Exception
{
}

function same($expected, $found, $what)
{
    if ($expected !== $found) {
        throw new Failed("$what: expected " . var_export($expected, true) . ', found ' . var_export($found, true));
    }
}

function holds($condition, $what)
{
    if (!$condition) {
        throw new Failed($what);
    }
}

/** Runs `$call` and returns the Carillon\Exception it must throw. */
function failure(callable $call)
{
    try {
        $call();
    } catch (Carillon\Exception $failure) {
        return $failure;
    }
    throw new Failed('the call succeeded and should have failed');
}

/** Returns everything that an exception shows of the client: message, and the arguments of the client's functions. */
function shown(Carillon\Exception $failure)
{
    $text = $failure->getMessage();
    foreach ($failure->getTrace() as $frame) {
        $ours = isset($frame['class']) && strpos($frame['class'], 'Carillon\\') === 0;
        $text .= $ours && isset($frame['args']) ? print_r($frame['args'], true) : '';
    }
    return $text;
}

/** The misbehaving server of server.php, in a process of its own. */
class Server
{
    public $url;
    public $port;
    private $process;
    private $pipes;

    public function __construct($manner)
    {
        $command = 'exec ' . escapeshellarg(PHP_BINARY) . ' -n ' . escapeshellarg(__DIR__ . '/server.php');
        $streams = [['pipe', 'r'], ['pipe', 'w'], STDERR];
        $this->process = proc_open($command . ' ' . escapeshellarg($manner), $streams, $this->pipes);
        $this->port = (int) fgets($this->pipes[1]);
        holds($this->port > 0, 'the server of the case did not start');
        $this->url = "http://127.0.0.1:$this->port";
    }

    /** Ends the server and returns the requests it read: connection, head, body. */
    public function stop()
    {
        fclose($this->pipes[0]);
        $lines = array_filter(explode("\n", stream_get_contents($this->pipes[1])));
        proc_close($this->process);
        $this->process = null;
        return array_map(function ($line) {
            return json_decode($line, true);
        }, array_values($lines));
    }

    public function __destruct()
    {
        if ($this->process !== null) {
            $this->stop();
        }
    }
}

/** Runs a piece of PHP in a process of its own, with this PHP's extensions: [exit code, output, errors]. */
function php($code, $environment = [])
{
    $options = extension_loaded('curl') ? '' : ' -n';
    $command = 'exec ' . escapeshellarg(PHP_BINARY) . "$options -d display_errors=stderr -r " . escapeshellarg($code);
    $environment += getenv();
    $process = proc_open($command, [['file', '/dev/null', 'r'], ['pipe', 'w'], ['pipe', 'w']], $pipes, null, $environment);
    $output = stream_get_contents($pipes[1]);
    $errors = stream_get_contents($pipes[2]);
    return [proc_close($process), $output, $errors];
}
