// npm's pusher publishes on one node, pusher-js listens on the other.
//
// Lives here: events of every kind of channel.
// Called by: run.mjs.
// Must not know: where the servers are.

import assert from 'node:assert/strict';
import Backend from 'pusher';
import Pusher from 'pusher-js';
import { apps, backend, client, complaints, heardOnly, listen, unique, until } from './world.mjs';

const KINDS = ['', 'private-', 'presence-', 'private-encrypted-'];
const me = { user_id: 'ana', user_info: { name: 'Ana' } };

export async function everyDataArrives() {
  const listener = await listen(client(), unique('data'));
  const sent = [
    { text: 'Grüße, "Ana"', nested: { list: [1, 2.5, null, true] }, emoji: '🔔', line: 'a\nb\u2028c', path: 'a/b\\c' },
    [], {}, 5, true, null,
    'plain', 'Grüße 🔔', '', ' ', '"quoted"x', '{"broken":', 'x'.repeat(10_240),
  ];
  for (const data of sent) await backend().trigger(listener.channel.name, 'data', data);
  await heardOnly(assert, listener, sent.map(data => ['data', data]));
}

// Texts that are JSON are read by pusher-js.
export async function aStringThatIsJsonArrivesAsItsValue() {
  const listener = await listen(client(), unique('text'));
  for (const text of ['5', '{ "a" : [1,\t2] }', '"a"', 'null']) {
    await backend().trigger(listener.channel.name, 'text', text);
  }
  await heardOnly(assert, listener, [5, { a: [1, 2] }, 'a', null].map(data => ['text', data]));
}

export async function eventsHaveTheNamesTheyWereGiven() {
  const listener = await listen(client(), unique('names'));
  const names = [
    'App\\Events\\OrderShipped', '.order.shipped', 'with space', 'naïve-🔔', '"', 'x'.repeat(200),
    'Illuminate\\Notifications\\Events\\BroadcastNotificationCreated',
  ];
  for (const name of names) await backend().trigger(listener.channel.name, name, { name });
  await heardOnly(assert, listener, names.map(name => [name, { name }]));
}

export async function oneTriggerReachesManyChannels() {
  const pusher = client();
  const names = Array.from({ length: 100 }, (_, n) => unique(`many-${n}`));
  const listeners = await Promise.all(names.slice(0, 5).map(name => listen(pusher, name)));
  const response = await backend().trigger(names, 'all', { n: 1 });
  assert.deepEqual(await response.json(), {});
  for (const listener of listeners) await heardOnly(assert, listener, [['all', { n: 1 }]]);
}

export async function batchesArriveInTheirOrder() {
  const pusher = client();
  const [one, other] = await Promise.all([listen(pusher, unique('one')), listen(pusher, unique('other'))]);
  for (let batch = 0; batch < 10; batch++) {
    const numbers = Array.from({ length: 10 }, (_, n) => batch * 10 + n);
    const name = n => (n % 3 ? one : other).channel.name;
    const response = await backend().triggerBatch(
      numbers.map(n => ({ channel: name(n), name: `event-${n}`, data: { n } })));
    assert.deepEqual(await response.json(), {});
  }
  const all = Array.from({ length: 100 }, (_, n) => [`event-${n}`, { n }]);
  await heardOnly(assert, one, all.filter((_, n) => n % 3));
  await heardOnly(assert, other, all.filter((_, n) => n % 3 === 0));
}

export async function whoSaidItDoesNotHearIt() {
  const clients = [client(), client(), client({ node: 0 })];
  for (const kind of KINDS.slice(0, 2)) {
    const name = unique(`${kind}excluded`);
    const [said, ...others] = await Promise.all(clients.map(pusher => listen(pusher, name)));
    const { socket_id } = clients[0].connection;
    // What one node is told is heard in its order; nodes have none among each other.
    for (const node of [0, 1]) {
      const told = backend({ node });
      await told.trigger(name, `event-${node}`, { node }, { socket_id });
      await told.triggerBatch([{ channel: name, name: `batch-${node}`, data: 'x', socket_id }]);
      await told.trigger(name, `end-${node}`, '');
    }
    const of = ({ heard }, node) => heard.map(([event]) => event).filter(event => event.endsWith(`-${node}`));
    for (const node of [0, 1]) {
      await until(`all of node ${node}`, () => [said, ...others].every(all => of(all, node).includes(`end-${node}`)));
      assert.deepEqual(of(said, node), [`end-${node}`]);
      for (const other of others) {
        assert.deepEqual(of(other, node), [`event-${node}`, `batch-${node}`, `end-${node}`]);
      }
    }
  }
}

export async function privateChannelsAreHeardByThoseWhoMay() {
  const listener = await listen(client(), unique('private-orders'));
  await backend().trigger(listener.channel.name, 'paid', { id: 7 });
  await heardOnly(assert, listener, [['paid', { id: 7 }]]);
}

export async function aWrongSignatureIsToldAndTheConnectionStays() {
  const as = backend({ app: { ...apps.first, secret: 'not the secret of this application' } });
  const pusher = client({ as });
  const errors = complaints(pusher);
  const name = unique('private-forged');
  const refused = [];
  pusher.subscribe(name).bind('pusher:subscription_error', error => refused.push(error));
  await until(() => `a refusal: ${JSON.stringify(errors)}`, () => refused.length > 0 && errors.length > 0);
  assert.deepEqual([refused[0].type, refused[0].status], ['AuthError', 401]);
  assert.equal(errors[0].code, null);
  assert.match(errors[0].message, /^Invalid signature: Expected HMAC SHA256 hex digest of /);
  await heardOnly(assert, await listen(pusher, unique('open')), []);
  assert.equal(pusher.connection.state, 'connected');
}

export async function encryptedChannelsAreReadByClientsOnly() {
  const pusher = client();
  const frames = [];
  pusher.connection.bind('message', ({ event, data }) => frames.push({ event, data }));
  const listener = await listen(pusher, unique('private-encrypted-safe'));
  const sent = [{ secret: 'Grüße' }, 'plain', [1, 2]];
  for (const data of sent) await backend().trigger(listener.channel.name, 'sealed', data);
  await backend().triggerBatch([{ channel: listener.channel.name, name: 'sealed', data: { n: 4 } }]);
  await heardOnly(assert, listener, [...sent, { n: 4 }].map(data => ['sealed', data]));
  const sealed = frames.filter(({ event }) => event === 'sealed');
  assert.equal(sealed.length, 4);
  for (const { data } of sealed) assert.deepEqual(Object.keys(data).sort(), ['ciphertext', 'nonce']);
}

export async function theLastEventOfACacheChannelIsKept() {
  for (const kind of KINDS) {
    const name = unique(`${kind}cache-last`);
    const early = [];
    for (const node of [0, 1]) {
      early.push(await listen(client({ node, me }), name));
      await until(`a miss on ${name}`, () => early[node].heard.length === 1);
      assert.deepEqual(early[node].heard.map(([event]) => event), ['pusher:cache_miss']);
    }
    for (const n of [1, 2, 3]) await backend().trigger(name, 'changed', { n });
    await until(`events on ${name}`, () => early.every(({ heard }) => heard.length === 4));
    for (const { channel } of early) channel.pusher.disconnect();
    for (const node of [0, 1]) {
      const late = await listen(client({ node, me }), name);
      await until(`the last event of ${name} on node ${node}`, () => late.heard.length === 1);
      assert.deepEqual(late.heard, [['changed', { n: 3 }]]);
    }
  }
}

// Waits until a node knows what a cache channel keeps.
const kept = (name, data, node) => until(`${data} in ${name} on node ${node}`, async () => {
  const response = await backend({ node }).get({ path: `/channels/${name}`, params: { info: 'cache' } });
  return (await response.json()).cache?.data === data;
});

export async function aCacheChannelIsFilledBeforeAnybodyListens() {
  const name = unique('cache-early');
  await backend().trigger(name, 'first', { n: 1 });
  await backend().trigger(name, 'second', '');
  for (const node of [0, 1]) {
    await kept(name, '', node);
    const listener = await listen(client({ node }), name);
    await until(`the last event on node ${node}`, () => listener.heard.length === 1);
    assert.deepEqual(listener.heard, [['second', '']]);
  }
}

async function occupied(name) {
  const response = await backend().get({ path: `/channels/${name}` });
  return (await response.json()).occupied;
}

export async function joiningAndLeavingInAnyOrderEndsAsItWasSaidLast() {
  const steps = [
    ['join', 'join'], ['join', 'wait', 'join'], ['join', 'leave'], ['join', 'wait', 'leave'], ['join', 'leave', 'join'],
    ['join', 'wait', 'leave', 'join'], ['join', 'leave', 'join', 'leave'], ['join', 'wait', 'leave', 'leave', 'leave'],
    ['join', 'wait', 'leave', 'join', 'leave', 'join', 'wait', 'leave', 'join'],
  ];
  const pusher = client({ me });
  const errors = complaints(pusher);
  await until('a connection', () => pusher.connection.state === 'connected');
  for (const kind of KINDS) {
    for (const order of steps) {
      const name = unique(`${kind}order`);
      for (const step of order) {
        if (step === 'join') pusher.subscribe(name);
        if (step === 'leave') pusher.unsubscribe(name);
        if (step === 'wait') await until(`${order} of ${name}`, () => pusher.channel(name).subscribed);
      }
      if (order.at(-1) === 'join') {
        const listener = await listen(pusher, name);
        await heardOnly(assert, listener, []);
        await until(`somebody in ${name} after ${order}`, () => occupied(name));
      } else {
        await until(`the end of ${order} of ${name}`, () => !pusher.channel(name));
        await until(`nobody in ${name} after ${order}`, async () => !await occupied(name));
      }
    }
  }
  assert.deepEqual(errors, []);
}

export async function nothingIsHeardAfterLeaving() {
  const pusher = client();
  const [left, stayed] = [await listen(pusher, unique('left')), await listen(pusher, unique('stayed'))];
  pusher.unsubscribe(left.channel.name);
  // What a connection says is done in its order.
  await listen(pusher, unique('later'));
  await backend().trigger([left.channel.name, stayed.channel.name], 'late', 1);
  await heardOnly(assert, stayed, [['late', 1]]);
  assert.deepEqual(left.heard, []);
}

export async function aKeyThatNobodyHasIsRefusedForGood() {
  const pusher = client({ app: { ...apps.first, key: 'nobody-has-this-key' } });
  const errors = complaints(pusher);
  await until(() => `an end: ${pusher.connection.state}`, () => pusher.connection.state === 'disconnected');
  assert.equal(errors[0].code, 4001);
  assert.match(errors[0].message, /nobody-has-this-key/);
}

export async function subscribersAreToldHowManyTheyAre() {
  const app = apps.counted;
  const name = unique('counted');
  const { channel: one, heard } = await listen(client({ app, node: 0 }), name);
  await until('one', () => one.subscriptionCount === 1);
  const { channel: other } = await listen(client({ app, node: 1 }), name);
  await until('two on both nodes', () => one.subscriptionCount === 2 && other.subscriptionCount === 2);
  other.pusher.unsubscribe(name);
  await until('one again', () => one.subscriptionCount === 1);
  assert.ok(heard.every(([event]) => event === 'pusher:subscription_count'), JSON.stringify(heard));
}

// Runs the blocks of docs/pusher.md, which the environment has: a client and a backend.
export async function thePageWorksAsItStands() {
  const [listens, publishes] = JSON.parse(process.env.BLOCKS).map(block => block.replace(/^import .*$/gm, ''));
  const said = [];
  const run = new Function('Pusher', 'console', `${listens}; return pusher;`);
  const pusher = run(Pusher, { log: thing => said.push(thing) });
  await until('a subscription', () => pusher.channel('news').subscribed);
  await new Function('Pusher', `return (async () => { ${publishes} })()`)(Backend);
  await until('a headline', () => said.length > 0);
  assert.deepEqual(said, ['It rings']);
}
