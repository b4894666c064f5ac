// Webhooks as npm's pusher reads them, from two nodes.
//
// Lives here: a server that believes what the library believes, and clients who give it something to hear.
// Called by: run.mjs; where the server must listen is in the environment.
// Must not know: where the nodes are.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { backend, client, listen, unique, until } from './world.mjs';

// Starts the server. What comes is kept as it was said of each channel.
async function server() {
  const said = {};
  const refused = [];
  const answers = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const webhook = backend().webhook({ headers: request.headers, rawBody: Buffer.concat(chunks).toString() });
    if (webhook.isValid()) {
      assert.ok(Math.abs(webhook.getTime() - Date.now()) < 600_000, `${webhook.getTime()}`);
      for (const { channel, ...event } of webhook.getEvents()) (said[channel] ??= []).push(event);
    } else {
      refused.push(request.headers);
    }
    response.writeHead(webhook.isValid() ? 204 : 401).end();
  });
  const [host, port] = process.env.WEBHOOK.split(':');
  await new Promise(resolve => answers.listen(Number(port), host, resolve));
  return { said, refused };
}

const sorted = events => events.map(event => JSON.stringify(event)).sort();

export async function everythingIsToldOnce() {
  const { said, refused } = await server();
  const person = id => ({ user_id: id, user_info: { name: id } });
  const [open, room, cache] = [unique('open'), unique('presence-room'), unique('cache-empty')];
  const ana = client({ node: 0, me: person('ana') });
  const tab = client({ node: 1, me: person('ana') });
  const ben = client({ node: 1, me: person('ben') });
  for (const pusher of [ana, tab, ben]) await listen(pusher, room);
  const { channel } = await listen(ana, open);
  await listen(ben, open);
  await listen(ben, cache);
  ana.channel(room).trigger('client-said', { n: 1 });
  const tells = (name, event) => until(() => `${event} of ${name}: ${JSON.stringify(said)}`,
    () => said[name]?.some(told => told.name === event));
  await tells(room, 'client_event');
  await tells(cache, 'cache_miss');
  // Nodes that have only just started know each other a moment later, and tell then what is still so.
  for (const name of [open, room, cache]) await tells(name, 'channel_occupied');
  await until('both members', () => said[room].filter(({ name }) => name === 'member_added').length === 2);
  await until('both are counted', () => channel.subscriptionCount === 2);
  const { socket_id } = ana.connection;
  for (const pusher of [ana, tab, ben]) pusher.disconnect();
  for (const name of [open, room, cache]) await tells(name, 'channel_vacated');

  const event = (name, more) => ({ name, ...more });
  const uncounted = name => said[name].filter(told => told.name !== 'subscription_count');
  assert.deepEqual(sorted(uncounted(room)), sorted([
    event('channel_occupied'), event('member_added', { user_id: 'ana' }), event('member_added', { user_id: 'ben' }),
    event('client_event', { event: 'client-said', data: '{"n":1}', socket_id, user_id: 'ana' }),
    event('member_removed', { user_id: 'ana' }), event('member_removed', { user_id: 'ben' }), event('channel_vacated'),
  ]));
  assert.equal(said[room].at(-1).name, 'channel_vacated');
  assert.deepEqual(uncounted(open), [event('channel_occupied'), event('channel_vacated')]);
  const counts = said[open].filter(({ name }) => name === 'subscription_count').map(told => told.subscription_count);
  assert.ok(counts.every(count => count <= 2) && counts.at(-1) === 0, JSON.stringify(said[open]));
  assert.deepEqual(sorted(uncounted(cache)),
    sorted([event('channel_occupied'), event('cache_miss'), event('channel_vacated')]));
  assert.deepEqual(refused, []);
}
