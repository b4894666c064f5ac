// What backends ask and are answered, through npm's pusher.
//
// Lives here: answers to the key, limits at both sides, refusals.
// Called by: run.mjs.
// Must not know: where the servers are.

import assert from 'node:assert/strict';
import { isDeepStrictEqual } from 'node:util';
import Backend from 'pusher';
import { apps, backend, client, heardOnly, listen, nodes, signIn, unique, until } from './world.mjs';

// Reads an answer that says yes: exactly 200, and an object.
async function good(response) {
  const { status, headers } = await response;
  assert.equal(status, 200);
  assert.match(headers.get('content-type'), /^application\/json/);
  const body = await (await response).json();
  assert.ok(body && typeof body === 'object' && !Array.isArray(body), JSON.stringify(body));
  return body;
}

const read = (path, params, node = 1) => good(backend({ node }).get({ path, params }));
// Asks until the answer is as awaited: what nodes count together is as of a second ago, and without those that are slow.
async function answers(ask, expected) {
  let answer;
  const awaited = JSON.stringify(expected);
  await until(() => `${awaited}, but ${JSON.stringify(answer)}`, async () => isDeepStrictEqual(answer = await ask(), expected));
}

const shows = (path, params, node, expected) => answers(() => read(path, params, node), expected);

const post = (path, body, more) => good(backend(more).post({ path, body }));
const trigger = (channels, more) => post('/events', { name: 'x', data: 'x', channels, ...more });

async function refused(what, request, expected, says = /./) {
  try {
    const response = await request;
    assert.fail(`${what} is answered with ${response.status}: ${await response.text()}`);
  } catch (error) {
    if (!(error instanceof Backend.RequestError)) throw error;
    assert.equal(error.status, expected, `${what}: ${error.body}`);
    assert.match(error.body, says, what);
  }
}

const member = id => ({ user_id: id, user_info: { name: id } });

export async function channelsAreThoseThatSomebodyHears() {
  const prefix = unique('asked');
  const [open, closed, room] = [`${prefix}-open`, `private-${prefix}`, `presence-${prefix}`];
  assert.deepEqual(await read('/channels', { filter_by_prefix: prefix }), { channels: {} });
  const ana = client({ node: 0, me: member('ana') });
  const ben = client({ node: 1, me: member('ben') });
  for (const name of [open, closed, room]) await listen(ana, name);
  await listen(ben, open);
  await listen(ben, room);
  const both = { info: 'user_count,subscription_count' };
  const counts = { user_count: 2, subscription_count: 2 };
  for (const node of [0, 1]) {
    await shows('/channels', { filter_by_prefix: prefix }, node, { channels: { [open]: {} } });
    const rooms = { filter_by_prefix: `presence-${prefix}` };
    await shows('/channels', rooms, node, { channels: { [room]: {} } });
    await shows('/channels', { ...rooms, ...both }, node, { channels: { [room]: counts } });
    await shows(`/channels/${room}`, {}, node, { occupied: true });
    await shows(`/channels/${room}`, both, node, { occupied: true, ...counts });
    await shows(`/channels/${open}`, { info: 'subscription_count' }, node, { occupied: true, subscription_count: 2 });
    const channels = await until('all three', async () => {
      const { channels } = await read('/channels', {}, node);
      return [open, closed, room].every(name => name in channels) && channels;
    });
    for (const name of [open, closed, room]) assert.deepEqual(channels[name], {});
    assert.ok(Object.keys(channels).every(name => !name.startsWith('#') && !name.startsWith('$')));
    const { users } = await read(`/channels/${room}/users`, {}, node);
    assert.deepEqual(users.map(({ id }) => id).sort(), ['ana', 'ben']);
  }
  ana.disconnect();
  ben.disconnect();
  await until('nobody', async () => !(await read(`/channels/${open}`)).occupied);
  await until('no member', async () => (await read(`/channels/${room}/users`)).users.length === 0);
}

export async function whatNobodyHearsIsAnsweredToo() {
  const both = { info: 'user_count,subscription_count' };
  assert.deepEqual(await read(`/channels/${unique('empty')}`), { occupied: false });
  assert.deepEqual(await read(`/channels/${unique('presence-empty')}/users`), { users: [] });
  const empty = await read(`/channels/${unique('presence-empty')}`, both);
  assert.deepEqual({ user_count: 0, subscription_count: 0, ...empty }, { occupied: false, user_count: 0, subscription_count: 0 });
  assert.deepEqual(await read('/channels', { filter_by_prefix: unique('presence-empty'), ...both }), { channels: {} });
}

export async function usersAreCountedOfPresenceChannelsOnly() {
  const asking = backend();
  await refused('users', asking.get({ path: '/channels/public/users' }), 400);
  await refused('users', asking.get({ path: '/channels/private-x/users' }), 400);
  const params = { info: 'user_count' };
  await refused('a count', asking.get({ path: '/channels/public', params }), 400);
  await refused('counts', asking.get({ path: '/channels', params }), 400);
  await refused('counts', asking.get({ path: '/channels', params: { ...params, filter_by_prefix: 'private-' } }), 400);
}

export async function aTriggerIsAnsweredWithWhatWasAskedFor() {
  const [open, room] = [unique('open'), unique('presence-room')];
  await listen(client({ me: member('ana') }), open);
  assert.deepEqual(await good(backend().trigger(open, 'x', 'x')), {});
  assert.deepEqual(await trigger([open, room]), {});
  const both = { info: 'user_count,subscription_count' };
  await answers(() => trigger([open, room], both), {
    channels: { [open]: { subscription_count: 1 }, [room]: { user_count: 0, subscription_count: 0 } },
  });
  await answers(() => trigger([open], { info: 'subscription_count' }), { channels: { [open]: { subscription_count: 1 } } });
  await listen(client({ me: member('ana') }), room);
  await listen(client({ node: 0, me: member('ana') }), room);
  const tabs = { channels: { [room]: { user_count: 1, subscription_count: 2 } } };
  await answers(() => good(backend().trigger(room, 'x', 'x', both)), tabs);
}

export async function aBatchIsAnsweredWithWhatWasAskedFor() {
  const [open, room] = [unique('open'), unique('presence-room')];
  await listen(client(), open);
  const item = (channel, more) => ({ channel, name: 'x', data: { n: 1 }, ...more });
  assert.deepEqual(await good(backend().triggerBatch([item(open), item(room)])), {});
  const asked = [
    item(open, { info: 'subscription_count' }), item(open), item(room, { info: 'user_count,subscription_count' }),
  ];
  await answers(() => good(backend().triggerBatch(structuredClone(asked))), {
    batch: [{ subscription_count: 1 }, {}, { user_count: 0, subscription_count: 0 }],
  });
}

export async function limitsAreMetOnBothSides() {
  const listener = await listen(client(), unique('limits'));
  const name = listener.channel.name;
  const event = data => ({ channel: name, name: 'x', data });
  const batch = (count, data = 'x') => ({ path: '/batch_events', body: { batch: Array(count).fill(event(data)) } });
  const sent = body => ({ path: '/events', body: { ...event('x'), ...body } });
  const names = count => Array.from({ length: count }, (_, n) => `${name}-${n}`);
  // Bytes of UTF-8 are counted, not characters.
  const [most, more] = ['é'.repeat(5_120), `${'é'.repeat(5_120)}x`];
  const long = unique('long').padEnd(164, '-');
  for (const request of [
    batch(10), batch(2, most), sent({ data: most }), sent({ channel: undefined, channels: names(100) }),
    sent({ channel: long }), sent({ name: 'n'.repeat(200) }), sent({ channel: '#server-to-user-ana' }),
  ]) assert.deepEqual(await good(backend().post(request)), {});

  await refused('11 events', backend().post(batch(11)), 400, /Batch too large/);
  await refused('much data', backend().post(sent({ data: more })), 413);
  await refused('much data in a batch', backend().post(batch(2, more)), 413, /content of this event/);
  const some = { path: '/batch_events', body: { batch: [event('x'), event(more)] } };
  await refused('one of a batch', backend().post(some), 413);
  await refused('101 channels', backend().post(sent({ channel: undefined, channels: names(101) })), 400);
  await refused('165 characters', backend().post(sent({ channel: `${long}-` })), 400);
  await refused('a long event', backend().post(sent({ name: 'n'.repeat(201) })), 400);
  // What is refused is not published, not even in part: 10 and 2 of batches, 1 of much data, 1 of a long name.
  await until('what was not refused', () => listener.heard.length >= 14);
  await heardOnly(assert, listener, listener.heard.slice(0, 14));
}

export async function whatIsNoEventIsRefused() {
  const name = unique('wrong');
  const event = { channel: name, name: 'x', data: 'x' };
  for (const [what, body] of Object.entries({
    'no name': { name: undefined }, 'an empty name': { name: '' }, 'a number as name': { name: 5 },
    'no channel': { channel: undefined }, 'an empty channel': { channel: '' }, 'no channels': { channel: undefined, channels: [] },
    'a space in a channel': { channel: 'a b' }, 'a reserved channel': { channel: '$user:ana' }, 'a hash': { channel: '#ana' },
    'a slash': { channel: 'a/b' }, 'a letter with a mark': { channel: 'é' }, 'a number as channel': { channel: 5 },
    'no data': { data: undefined }, 'an event of the protocol': { name: 'pusher:error' },
    'an internal event': { name: 'pusher_internal:member_added' }, 'a socket id without a dot': { socket_id: '1234' },
    'a socket id in letters': { socket_id: 'a.b' }, 'one bad channel of two': { channel: undefined, channels: [name, 'a b'] },
  })) {
    await refused(what, backend().post({ path: '/events', body: { ...event, ...body } }), 400);
    if (!body.channels) await refused(`${what} in a batch`, backend().post({ path: '/batch_events', body: { batch: [event, { ...event, ...body }] } }), 400);
  }
  for (const body of [{}, { batch: {} }, { batch: [5] }, []]) {
    await refused(`a batch like ${JSON.stringify(body)}`, backend().post({ path: '/batch_events', body }), 400);
  }
  // Nobody has this id: that is no mistake.
  assert.deepEqual(await post('/events', { ...event, socket_id: '1.1' }), {});
}

export async function channelsThatAreNamedTwiceHearOnce() {
  const listener = await listen(client(), unique('twice'));
  const { name } = listener.channel;
  assert.deepEqual(await trigger([name, name, name], { name: 'once' }), {});
  await heardOnly(assert, listener, [['once', 'x']]);
}

export async function whoCannotSignIsRefused() {
  const wrong = change => backend({ app: { ...apps.first, ...change } });
  for (const [what, other, says] of [
    ['a wrong secret', wrong({ secret: 'wrong' }), /^Invalid signature/],
    ['a wrong key', wrong({ key: 'wrong' }), /./],
    ['the key of another application', wrong({ key: apps.plain.key, secret: apps.plain.secret }), /./],
  ]) {
    await refused(what, other.trigger('x', 'x', 'x'), 401, says);
    await refused(what, other.triggerBatch([{ channel: 'x', name: 'x', data: 'x' }]), 401, says);
    await refused(what, other.get({ path: '/channels' }), 401, says);
    await refused(what, other.terminateUserConnections('ana'), 401, says);
  }
  const nowhere = wrong({ id: 'nowhere' }).get({ path: '/channels' });
  const status = await nowhere.then(({ status }) => status, error => error.status);
  assert.ok([401, 404].includes(status), `an unknown application: ${status}`);
}

// Asks with a clock that is wrong by some seconds. Only an answer of the very second that was signed counts.
async function withClock(skew, ask) {
  const now = Date.now;
  const second = () => Math.floor(now() / 1000);
  for (;;) {
    const began = second();
    Date.now = () => now() + skew * 1000;
    const asked = ask();
    Date.now = now;
    const answer = await asked.then(({ status }) => ({ status }), ({ status, body }) => ({ status, body }));
    if (second() === began) return answer;
  }
}

export async function clocksMayDifferByLessThanTenMinutes() {
  for (const skew of [-599, 0, 599]) {
    const { status, body } = await withClock(skew, () => backend().get({ path: '/channels/x' }));
    assert.equal(status, 200, `${skew} s: ${body}`);
  }
  for (const skew of [-601, -600, 600, 601, -86_400]) {
    const { status, body } = await withClock(skew, () => backend().trigger('x', 'x', 'x'));
    assert.equal(status, 401, `${skew} s: ${body}`);
    assert.match(body, /^Timestamp expired: Given timestamp \(.*\) not within 600s of server time/);
  }
}

export async function usersAreReachedAndTerminated() {
  const id = unique('ana');
  const pusher = client({ user: { id } });
  await signIn(pusher);
  const notes = [];
  pusher.user.bind('note', data => notes.push(data));
  assert.deepEqual(await good(backend().sendToUser(id, 'note', { n: 1 })), {});
  await until('a note', () => notes.length === 1);
  assert.deepEqual(notes, [{ n: 1 }]);
  assert.deepEqual(await good(backend().terminateUserConnections(id)), {});
  await until('the end', () => pusher.connection.state === 'disconnected');
  assert.deepEqual(await good(backend().terminateUserConnections(id)), {});
}

export async function aBackendMadeFromAnAddressIsTheSame() {
  const { id, key, secret } = apps.first;
  const made = Backend.forURL(`http://${key}:${secret}@${nodes[0].api}/apps/${id}`);
  const listener = await listen(client(), unique('address'));
  assert.deepEqual(await good(made.trigger(listener.channel.name, 'x', { n: 1 })), {});
  await heardOnly(assert, listener, [['x', { n: 1 }]]);
}

export async function theLastEventOfACacheChannelIsShown() {
  const name = unique('cache-shown');
  const info = { info: 'cache' };
  assert.deepEqual(await read(`/channels/${name}`, info), { occupied: false, cache: null });
  await trigger([name], { data: '{"n":1}' });
  const answer = await until('what is kept', async () => {
    const answer = await read(`/channels/${name}`, info);
    return answer.cache && answer;
  });
  const { ttl } = answer.cache;
  assert.deepEqual(answer, { occupied: false, cache: { data: '{"n":1}', ttl } });
  assert.ok(Number.isInteger(ttl) && ttl > 0 && ttl <= 1800, `${ttl}`);
}

export async function whatIsNotHereIsNotFound() {
  const asking = backend();
  for (const path of ['/nothing', '/channels/x/stats', '/channels/x/events', '/channels/x/users/ana']) {
    await refused(path, asking.get({ path }), 404);
  }
}
