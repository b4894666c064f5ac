<?php
/**
 * Fails when a file uses what PHP 7.2 does not know. Newer PHPs parse it without a word, so `php -l` cannot tell.
 *
 * It knows the additions of 7.3 to 8.4 by their tokens and names. It is no parser of 7.2: where a pattern is too
 * greedy, write the code differently. The tokens come from the PHP that runs it, 8.0 or later. Needs ext-tokenizer.
 */

/** Functions, classes and constants that came after 7.2. Allowed in a file that asks `function_exists` for them. */
const NEWER = [
    'hrtime', 'is_countable', 'array_key_first', 'array_key_last', 'str_contains', 'str_starts_with', 'str_ends_with',
    'array_is_list', 'array_find', 'array_any', 'array_all', 'get_debug_type', 'get_mangled_object_vars', 'fdiv',
    'mb_str_split', 'mb_str_pad', 'mb_trim', 'get_resource_id', 'password_algos', 'json_validate', 'net_get_interfaces',
    'enum_exists', 'fsync', 'fdatasync', 'ini_parse_quantity', 'memory_reset_peak_usage', 'iterator_apply_all',
    'JSON_THROW_ON_ERROR', 'JsonException', 'Stringable', 'WeakMap', 'WeakReference', 'ValueError', 'UnitEnum',
    'UnhandledMatchError', 'PhpToken', 'Fiber', 'CompileError', 'CURLOPT_PROTOCOLS_STR', 'Override',
];

/** What is new about `$source`: [line, what] each. */
function newer($source)
{
    $tokens = [];
    $line = 1;
    foreach (token_get_all($source, TOKEN_PARSE) as $token) {
        $line = is_array($token) ? $token[2] : $line;
        $name = is_array($token) ? token_name($token[0]) : $token;
        if (!in_array($name, ['T_WHITESPACE', 'T_COMMENT', 'T_DOC_COMMENT'], true)) {
            $tokens[] = [$name, is_array($token) ? $token[1] : $token, $line];
        }
    }
    $found = [];
    $open = []; // what each open bracket belongs to
    foreach ($tokens as $at => list($name, $text, $line)) {
        $before = $at > 0 ? $tokens[$at - 1] : ['', '', 0];
        $after = isset($tokens[$at + 1]) ? $tokens[$at + 1] : ['', '', 0];
        $inside = $open ? end($open) : '';
        foreach (token_faults($name, $text, $before, $after, $inside, $source, $line) as $what) {
            $found[] = [$line, $what];
        }
        if (in_array($text, ['(', '[', '{', '${', '#['], true) || $name === 'T_CURLY_OPEN') {
            $open[] = $text === '(' ? bracket($tokens, $at) : $text;
        } elseif (in_array($text, [')', ']', '}'], true)) {
            array_pop($open);
        }
    }
    return array_merge($found, type_faults($tokens));
}

/** Says whether the bracket at `$at` opens parameters, arguments or something else. */
function bracket($tokens, $at)
{
    $before = $tokens[$at - 1];
    $earlier = $at > 1 ? $tokens[$at - 2][0] : '';
    if (in_array($before[0], ['T_FUNCTION', 'T_FN'], true) || $earlier === 'T_FUNCTION' || $before[1] === '&') {
        return 'parameters';
    }
    if ($before[0] === 'T_USE') {
        return 'parameters';
    }
    $callable = ['T_STRING', 'T_VARIABLE', 'T_NAME_QUALIFIED', 'T_NAME_FULLY_QUALIFIED', 'T_STATIC', 'T_ISSET', 'T_UNSET', 'T_CLASS'];
    return in_array($before[0], $callable, true) || in_array($before[1], [')', ']', '}'], true) ? 'arguments' : '(';
}

/** What one token and its neighbours tell. */
function token_faults($name, $text, $before, $after, $inside, $source, $line)
{
    $faults = [];
    $new = [
        'T_COALESCE_EQUAL' => '??= (7.4)', 'T_FN' => 'fn (7.4)', 'T_MATCH' => 'match (8.0)', 'T_ENUM' => 'enum (8.1)',
        'T_NULLSAFE_OBJECT_OPERATOR' => '?-> (8.0)', 'T_READONLY' => 'readonly (8.1)',
        'T_PUBLIC_SET' => 'public(set) (8.4)', 'T_PROTECTED_SET' => 'protected(set) (8.4)', 'T_PRIVATE_SET' => 'private(set) (8.4)',
    ];
    if (isset($new[$name])) {
        $faults[] = $new[$name];
    }
    if ($name === 'T_ATTRIBUTE') {
        // To 7.2 a comment up to the end of the line: it must have the line to itself.
        if (preg_match('/^\s*#\[[^\]\n]*\]\s*$/D', explode("\n", $source)[$line - 1]) !== 1) {
            $faults[] = 'an attribute that shares its line (a comment before 8.0)';
        }
    }
    if (in_array($name, ['T_LNUMBER', 'T_DNUMBER'], true) && strpbrk($text, '_oO') !== false) {
        $faults[] = 'digits with _ or 0o (7.4, 8.1)';
    }
    if ($text === ',' && $after[1] === ')' && in_array($inside, ['parameters', 'arguments'], true)) {
        $faults[] = "a comma after the last of the $inside (7.3, 8.0)";
    }
    if ($name === 'T_STRING' && $after[1] === ':' && $inside === 'arguments' && in_array($before[1], ['(', ','], true)) {
        $faults[] = 'a named argument (8.0)';
    }
    if ($name === 'T_ELLIPSIS' && in_array($before[1], ['[', ','], true) && $inside === '[') {
        $faults[] = '... in an array (7.4)';
    }
    if ($name === 'T_ELLIPSIS' && $before[1] === '(' && $after[1] === ')') {
        $faults[] = 'f(...) (8.1)';
    }
    if ($name === 'T_THROW' && !in_array($before[1], [';', '{', '}', ':', ')', 'else'], true) && $before[0] !== 'T_OPEN_TAG') {
        $faults[] = 'throw within an expression (8.0)';
    }
    if ($name === 'T_END_HEREDOC' && $text !== ltrim($text)) {
        $faults[] = 'an indented end of a heredoc (7.3)';
    }
    $asks = strpos($source, "function_exists('$text')") !== false;
    if (in_array($name, ['T_STRING', 'T_NAME_FULLY_QUALIFIED'], true) && in_array(ltrim($text, '\\'), NEWER, true) && !$asks) {
        $own = in_array($before[0], ['T_OBJECT_OPERATOR', 'T_DOUBLE_COLON', 'T_FUNCTION', 'T_CONST'], true);
        if (!$own) {
            $faults[] = "$text (after 7.2)";
        }
    }
    return $faults;
}

/** What the types of properties, parameters and results tell. */
function type_faults($tokens)
{
    $text = '';
    $lines = [];
    foreach ($tokens as list($name, $word, $line)) {
        // One word a token; names and strings made alike, so that patterns see structure only.
        $names = ['T_STRING', 'T_NAME_QUALIFIED', 'T_NAME_FULLY_QUALIFIED', 'T_ARRAY', 'T_CALLABLE'];
        $kind = in_array($name, $names, true) ? 'N' . strtolower($word) : (strpos($name, 'T_') === 0 ? $name : $word);
        $lines[strlen($text)] = $line;
        $text .= "$kind ";
    }
    $visible = '(?:T_PUBLIC|T_PROTECTED|T_PRIVATE|T_VAR)';
    $ampersand = '(?:&|T_AMPERSAND_\w+)';
    $patterns = [
        "~$visible (?:T_STATIC )?(?:\\? )?N\\S+ (?:(?:\\||$ampersand) N\\S+ )*T_VARIABLE~" => 'a typed property (7.4)',
        "~[(,] $visible (?:\\S+ ){0,4}?T_VARIABLE~" => 'a promoted parameter (8.0)',
        '~(?:(?<!T_CATCH )\(|[,:]) (?:\? )?N\S+ \| N\S+ (?:\| N\S+ )*(?:T_ELLIPSIS )?(?:T_VARIABLE [,)=]|[{;])~' => 'a union type (8.0)',
        '~T_FUNCTION (?:\S+ ){0,2}?\( [^{;]*?\) (?:T_USE \([^)]*\) )?: (?:\? )?(?:T_STATIC|N(?:mixed|never|null|false|true)) [{;]~' => 'static, mixed, never, null, false or true as a result (8.0)',
        '~[(,] N(?:mixed|null|false|true) T_VARIABLE~' => 'mixed, null, false or true as a parameter (8.0)',
        '~T_CATCH \( N\S+ (?:\| N\S+ )*\)~' => 'catch without a variable (8.0)',
        '~T_VARIABLE T_DOUBLE_COLON Nclass ~' => '::class of an object (8.0)',
        "~(?:T_LIST \\(|(?<=[=;{}] |T_OPEN_TAG )\\[|T_AS \\[)(?: [^\\]\\)=]*?)? $ampersand T_VARIABLE [^;{]*?[\\])] = ~" => 'a reference in a destructuring (7.3)',
        '~= T_NEW N\S+ \([^()]*\) [,)] (?:[^;{]* )?\{~' => 'new as a default (8.1)',
        '~T_CONST N\S+ N\S+ =~' => 'a typed constant (8.3)',
    ];
    $found = [];
    foreach ($patterns as $pattern => $what) {
        if (preg_match_all($pattern, $text, $matches, PREG_OFFSET_CAPTURE)) {
            foreach ($matches[0] as $match) {
                $found[] = [line_at($lines, $match[1]), $what];
            }
        }
    }
    return $found;
}

function line_at($lines, $offset)
{
    while (!isset($lines[$offset])) {
        $offset--;
    }
    return $lines[$offset];
}

if (PHP_VERSION_ID < 80000 || !function_exists('token_get_all')) {
    fwrite(STDERR, "syntax72.php needs PHP 8.0 or later with ext-tokenizer\n");
    exit(2);
}

// The check itself: each of these must be found, so that a pattern that rots is noticed.
$samples = [
    '$a ??= 1;', '$f = fn($x) => $x;', 'echo match(1) { 1 => 2 };', '$a?->b;', 'class A { public int $x; }',
    'class A { private ?Foo $x = null; }', 'class A { public static array $x; }', 'function f(int|string $x) {}',
    'function f(): int|false { }', 'f(name: 1);', 'function f($a, $b,) {}', 'f(1, 2,);', '$f = function () use ($a,) {};',
    '$x = [...$y];', '$g = f(...);', '$x = $y ?? throw new E();', 'try { } catch (E) { }', '$n = 1_000;',
    "\$t = <<<X\n  a\n  X;", 'str_contains("a", "b");', 'json_decode("1", true, 5, JSON_THROW_ON_ERROR);',
    'class A { function __construct(private $x) {} }', 'function f(): static {}', 'function f(): mixed { }',
    'echo $a::class;', 'function f(#[A] $x) {}', 'enum A { case B; }', 'class A { public readonly int $x; }',
    '[&$a] = $b;', 'list($c, &$a) = $b;', '$t = hrtime(true);', 'function f($x = new A()) { }', 'echo $x->m(1,);',
];
$missed = array_filter($samples, function ($sample) {
    return newer("<?php\n$sample\n") === [];
});
$innocent = '$a = $b ? f($c) : g(1); switch ($x) { case FOO: break; } $y = [1, 2,]; f($a | B, $c & $d); g($x ? A : B);'
    . 'function h(?int $a, &$b, ...$c): ?string { static $d; return $a; } try { } catch (A | B $e) { } list(, $q) = $z;'
    . 'class K { const X = 1; public static function m(array $p = []): array { if ($p) throw $p; return [$p, &$q]; } }'
    . 'foreach ($a as list($b, $c)) { } $k = static function () use (&$a) { }; label: f(...$args); f(A::B, 2);';
$wrong = newer("<?php\n$innocent\n");

$files = array_slice($argv, 1) ?: glob(dirname(__DIR__) . '/{src,examples,tests}/*.php', GLOB_BRACE);
$faults = 0;
foreach ($missed as $sample) {
    echo "syntax72.php itself: does not see what is new in: $sample\n";
}
foreach ($wrong as list(, $what)) {
    echo "syntax72.php itself: takes 7.2 syntax for $what\n";
}
foreach ($files as $file) {
    foreach (newer(file_get_contents($file)) as list($line, $what)) {
        echo "$file:$line: $what: PHP 7.2 cannot read it\n";
        $faults++;
    }
}
echo count($files), " files, $faults faults\n";
exit($faults + count($missed) + count($wrong) === 0 && $files ? 0 : 1);
