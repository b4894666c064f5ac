<?php
require __DIR__ . '/../../src/Client.php';

$customer = 'customer-42'; // your session knows who asks; answer 403 to who may not
$carillon = new Carillon\Client('http://127.0.0.1:8001', getenv('CARILLON_KEY'), [
    'token_secret' => getenv('CARILLON_SECRET'),
]);
header('Cache-Control: no-store');
echo $carillon->token($customer, 3600, ['channels' => ['orders.7']]);
