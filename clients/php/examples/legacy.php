<?php
// An order page as many shops have it. Run it beside a development gateway:
//
//   php -S 127.0.0.1:8080 legacy.php
//
// then open http://127.0.0.1:8080 in two windows and save a status in one of them.

require_once dirname(__FILE__) . '/../src/Client.php';

$api = getenv('CARILLON_API') ? getenv('CARILLON_API') : 'http://127.0.0.1:8001';
$ws = getenv('CARILLON_WS') ? getenv('CARILLON_WS') : 'ws://127.0.0.1:8000';
$key = getenv('CARILLON_KEY') ? getenv('CARILLON_KEY') : 'dev';

$order = 7;
$states = array('paid', 'packed', 'shipped', 'delivered');
$status = 'unknown'; // a real shop reads it from its database
$message = '';

if (isset($_POST['status']) && in_array($_POST['status'], $states, true)) {
    $status = $_POST['status'];
    // ... here the shop updates its database, as ever ...

    // A shop must go on selling when the gateway is away: the failure is logged, and the page says so.
    $carillon = new Carillon\Client($api, $key, array('on_error' => 'log'));
    $data = array('id' => $order, 'status' => $status);
    $sent = $carillon->publish("orders.$order", $data, array('event' => 'status'));
    $message = $sent ? 'Saved and told everybody: ' . $status : 'Saved, but nobody could be told: ' . $status;
}

header('Content-Type: text/html; charset=UTF-8');
?>
<!DOCTYPE html>
<html>
<head><title>Order <?php echo $order; ?></title></head>
<body>
<h1>Order <?php echo $order; ?></h1>
<p>Status: <b id="status"><?php echo $status; ?></b> <small id="link"></small></p>
<p id="message"><?php echo htmlspecialchars($message, ENT_QUOTES, 'UTF-8'); ?></p>
<form method="post" action="">
  <select name="status">
<?php foreach ($states as $state) { ?>
    <option<?php echo $state == $status ? ' selected' : ''; ?>><?php echo $state; ?></option>
<?php } ?>
  </select>
  <input type="submit" value="Save">
</form>
<script>
var url = <?php echo json_encode($ws . '/v1/ws?channel=orders.' . $order, JSON_HEX_TAG | JSON_HEX_AMP); ?>;

function listen() {
  var socket = new WebSocket(url);
  socket.onopen = function () { show('link', ''); };
  socket.onmessage = function (event) {
    var frame = JSON.parse(event.data);
    if (frame.type == 'message') { show('status', frame.data.status); }
  };
  socket.onclose = function (event) {
    if (event.code >= 4000 && event.code < 4100) { return show('link', '(not allowed: ' + event.code + ')'); }
    show('link', '(connecting)');
    setTimeout(listen, 1000 + Math.random() * 2000);
  };
}

function show(id, text) { document.getElementById(id).textContent = text; }
listen();
</script>
</body>
</html>
