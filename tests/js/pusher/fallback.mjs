// pusher-js without WebSockets: streams and polls, through a proxy that sends every request to the next node.
//
// Lives here: what must hold whatever the transport is.
// Called by: run.mjs; the transport is in the environment.
// Must not know: where the servers are.

import assert from 'node:assert/strict';
import { apps, backend, client, complaints, heardOnly, listen, nodes, signIn, unique, until } from './world.mjs';

function fallback(more = {}) {
  const [httpHost, httpPort] = nodes[0].public.split(':');
  return client({ ...more, enabledTransports: [process.env.TRANSPORT], httpHost, httpPort });
}

export async function everyKindOfChannelIsHeard() {
  const me = { user_id: 'ana', user_info: { name: 'Ana' } };
  const pusher = fallback({ me });
  const errors = complaints(pusher);
  for (const kind of ['', 'private-', 'presence-', 'private-encrypted-', 'cache-']) {
    const name = unique(`${kind}fallback`);
    if (kind === 'cache-') await backend().trigger(name, 'kept', { n: 0 });
    const listener = await listen(pusher, name);
    await backend().trigger(name, 'said', { text: 'Grüße "🔔"' });
    const kept = kind === 'cache-' ? [['kept', { n: 0 }]] : [];
    await heardOnly(assert, listener, [...kept, ['said', { text: 'Grüße "🔔"' }]]);
  }
  assert.equal(pusher.connection.connection.transport.name, process.env.TRANSPORT);
  assert.deepEqual(errors, []);
}

// A stream is opened anew after 256 Ki characters, a poll after every answer.
export async function nothingIsLostBetweenTwoRequests() {
  const listener = await listen(fallback(), unique('many'));
  // Characters of one to four bytes: the length in bytes is not the length that the client counts. All of it together
  // is less than may wait for a client.
  const filler = 'xä€🔔'.repeat(400);
  const sent = [];
  for (let batch = 0; batch < 20; batch++) {
    const items = Array.from({ length: 10 }, (_, n) => ({ n: batch * 10 + n, filler }));
    await backend().triggerBatch(items.map(data => ({ channel: listener.channel.name, name: 'n', data })));
    sent.push(...items.map(data => ['n', data]));
  }
  await heardOnly(assert, listener, sent);
}

export async function clientsTalkToEachOther() {
  const name = unique('presence-talk');
  const person = id => ({ user_id: id, user_info: { name: id } });
  const ana = await listen(fallback({ me: person('ana') }), name);
  const ben = await listen(client({ me: person('ben') }), name);
  await until('both are there', () => ana.channel.members.count === 2 && ben.channel.members.count === 2);
  for (let n = 0; n < 5; n++) {
    ana.channel.trigger('client-n', { n });
    await until(`${n} at Ben's`, () => ben.heard.some(([event, data]) => event === 'client-n' && data.n === n));
    ben.channel.trigger('client-n', { n: -n });
    await until(`${-n} at Ana's`, () => ana.heard.some(([event, data]) => event === 'client-n' && data.n === -n));
  }
  ana.channel.pusher.disconnect();
  await until('Ana has left', () => ben.channel.members.count === 1);
}

export async function aUserSignsInAndIsTerminated() {
  const id = unique('ana');
  const pusher = fallback({ user: { id } });
  const errors = complaints(pusher);
  await signIn(pusher);
  const notes = [];
  pusher.user.bind('note', data => notes.push(data));
  await backend().sendToUser(id, 'note', 1);
  await until('a note', () => notes.length === 1);
  await backend().terminateUserConnections(id);
  await until('the end', () => pusher.connection.state === 'disconnected');
  assert.equal(errors[0].code, 4009);
}

export async function anUnknownKeyIsRefused() {
  const pusher = fallback({ app: { ...apps.first, key: 'nobody-has-this-key' } });
  const errors = complaints(pusher);
  await until('an end', () => pusher.connection.state === 'disconnected');
  assert.equal(errors[0].code, 4001);
}

// The node that has the session is killed when this says that it listens.
export async function aClientComesBackWhenItsNodeDies() {
  const pusher = fallback();
  const { heard } = await listen(pusher, 'killed');
  const before = pusher.connection.socket_id;
  process.stdout.write('listening\n');
  await until('another connection', () => pusher.connection.socket_id && pusher.connection.socket_id !== before);
  await until('a message', () => heard.some(([event]) => event === 'after'));
}
