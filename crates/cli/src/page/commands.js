// The same from a shell, from PHP, from another page.
//
// Lives here: how each language writes a text, and the commands.
// Called by: app.js.
// Must not know: the document.

import { body } from './publish.js';

// What a terminal obeys, also in quotes. The gateway takes it in no name, and JSON can do without.
const harmless = text => text.replaceAll('\t', ' ')
  .replaceAll(/[^\P{Cc}\n]/gu, key => `\\u${key.charCodeAt(0).toString(16).padStart(4, '0')}`);

// POSIX shells: nothing has a meaning in single quotes but the quote itself.
const shell = text => `'${harmless(text).replaceAll("'", String.raw`'\''`)}'`;

// Words that mean themselves stay bare.
const word = text => (/^[\w.,:\/-]+$/.test(text) ? text : shell(text));

const phpText = text => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;

// Whether PHP can write what JavaScript has read. Where it cannot, it reads the JSON itself.
const isPlain = value =>
  typeof value === 'number' ? Number.isSafeInteger(value) || (Number.isFinite(value) && !Number.isInteger(value))
    : typeof value !== 'object' || value === null || Object.values(value).every(isPlain);

function php(value) {
  if (typeof value === 'string') return phpText(value);
  if (typeof value !== 'object' || value === null) return String(value);
  if (Array.isArray(value)) return `[${value.map(php).join(', ')}]`;
  const members = Object.entries(value);
  const array = `[${members.map(([name, member]) => `${phpText(name)} => ${php(member)}`).join(', ')}]`;
  // PHP would take these for lists.
  return members.length === 0 || '0' in value ? `(object) ${array}` : array;
}

// Returns a name, a language and a text for each way to do what the form says.
export function commands(here, host, channels, message) {
  const { channel, event, data } = message;
  const value = JSON.parse(data);
  const literal = isPlain(value) ? php(value) : `json_decode(${phpText(data.trim())})`;
  const listening = channels.length ? channels : [channel];
  const query = new URLSearchParams(listening.map(name => ['channel', name]));
  const url = JSON.stringify(`ws://${host}/v1/ws?${query}`);
  const api = here.api === 'http://127.0.0.1:8001' ? '' : ` --api ${word(here.api)}`;
  const node = host === '127.0.0.1:8000' ? '' : ` --url ${word(`ws://${host}`)}`;
  const program = word(here.program);
  const flags = `${api}${event ? ` --event=${word(event)}` : ''}`;
  const options = event ? `, ['event' => ${phpText(event)}]` : '';
  return [
    ['php', 'Publish from PHP', `<?php
require 'clients/php/src/Client.php'; // from the root of the checkout

$carillon = new Carillon\\Client('${here.api}', '${here.key}');
$carillon->publish(${phpText(channel)}, ${literal}${options});`],
    ['curl', 'Publish with curl', `curl ${word(`${here.api}/v1/publish`)} \\
  -H 'Authorization: Bearer ${here.key}' \\
  -H 'Content-Type: application/json' \\
  -d ${shell(body(message))}`],
    ['publish', 'Publish from a shell', `${program} publish${flags} -- ${word(channel)} ${shell(data.trim())}`],
    ['js', 'Listen in a browser', `const socket = new WebSocket(${url});
socket.onmessage = event => {
  const message = JSON.parse(event.data);
  if (message.type === 'message') console.log(message.channel, message.data);
};`],
    ['tail', 'Listen in a shell', `${program} tail${node} -- ${listening.map(word).join(' ')}`],
  ];
}
