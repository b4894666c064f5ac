// Members, users and what clients say to each other, over two nodes.
//
// Lives here: presence channels, client events, sign-in, watchlists.
// Called by: run.mjs.
// Must not know: where the servers are.

import assert from 'node:assert/strict';
import { apps, backend, client, complaints, listen, signIn, unique, until } from './world.mjs';

const person = (id, name) => ({ user_id: id, user_info: { name } });

// The members that were heard to come and go.
const moves = heard => heard
  .filter(([event]) => event.startsWith('pusher:member_'))
  .map(([event, { id, info }]) => [event.slice('pusher:member_'.length), String(id), info ?? null]);

const ids = ({ channel }) => Object.keys(channel.members.members).sort();

export async function membersOfBothNodesSeeEachOther() {
  const name = unique('presence-room');
  const ana = await listen(client({ node: 0, me: person('ana', 'Ana') }), name);
  assert.deepEqual(ana.channel.members.me, { id: 'ana', info: { name: 'Ana' } });
  assert.equal(ana.channel.members.count, 1);

  const ben = await listen(client({ node: 1, me: person('ben', 'Ben') }), name);
  await until('two members', () => ana.channel.members.count === 2 && ben.channel.members.count === 2);
  assert.deepEqual(ben.channel.members.get('ana'), { id: 'ana', info: { name: 'Ana' } });
  // Without anything about him, and with a number for a name.
  const seven = await listen(client({ node: 0, me: { user_id: 7 } }), name);
  await until('three members', () => [ana, ben, seven].every(({ channel }) => channel.members.count === 3));
  for (const listener of [ana, ben, seven]) assert.deepEqual(ids(listener), ['7', 'ana', 'ben']);
  assert.equal(String(seven.channel.members.me.id), '7');

  ben.channel.pusher.disconnect();
  await until('Ben has left', () => ana.channel.members.count === 2 && seven.channel.members.count === 2);
  seven.channel.pusher.unsubscribe(name);
  await until('so has 7', () => ana.channel.members.count === 1);
  const info = { name: 'Ben' };
  assert.deepEqual(moves(ana.heard), [
    ['added', 'ben', info], ['added', '7', null], ['removed', 'ben', info], ['removed', '7', null],
  ]);
}

export async function aUserWithTwoTabsComesAndGoesOnce() {
  const name = unique('presence-tabs');
  const watcher = await listen(client({ node: 0, me: person('cy', 'Cy') }), name);
  const tabs = [];
  for (const node of [0, 1, 1]) tabs.push(await listen(client({ node, me: person('ana', 'Ana') }), name));
  const last = await listen(client({ node: 1, me: person('ben', 'Ben') }), name);
  await until('three users', () => watcher.channel.members.count === 3);
  for (const tab of tabs) tab.channel.pusher.disconnect();
  await until('Ana is gone', () => watcher.channel.members.count === 2 && last.channel.members.count === 2);
  const ana = { name: 'Ana' };
  assert.deepEqual(moves(watcher.heard), [['added', 'ana', ana], ['added', 'ben', { name: 'Ben' }], ['removed', 'ana', ana]]);
  assert.deepEqual(moves(last.heard), [['removed', 'ana', ana]]);
}

export async function whatClientsSayReachesTheOthersOnly() {
  for (const kind of ['private-', 'presence-']) {
    const name = unique(`${kind}chat`);
    const ana = await listen(client({ node: 0, me: person('ana', 'Ana') }), name);
    const ben = await listen(client({ node: 1, me: person('ben', 'Ben') }), name);
    const said = [];
    ben.channel.bind('client-typing', (data, { user_id }) => said.push([data, user_id]));
    const sent = [{ text: 'Grüße' }, 'plain', 5];
    for (const data of sent) assert.ok(ana.channel.trigger('client-typing', data));
    await until(`what Ana says in ${name}`, () => said.length === 3);
    const by = kind === 'presence-' ? 'ana' : undefined;
    assert.deepEqual(said, sent.map(data => [data, by]));
    assert.ok(ben.channel.trigger('client-end', {}));
    const own = () => ana.heard.filter(([event]) => event.startsWith('client-'));
    await until(`Ben's answer in ${name}`, () => own().length > 0);
    assert.deepEqual(own(), [['client-end', {}]]);
  }
}

export async function anApplicationMaySwitchClientEventsOff() {
  const pusher = client({ app: apps.plain });
  const errors = complaints(pusher);
  const { channel } = await listen(pusher, unique('private-quiet'));
  channel.trigger('client-typing', {});
  await until('a refusal', () => errors.length > 0);
  assert.equal(errors[0].code, null);
  assert.equal(errors[0].message,
    'To send client events, you must enable this feature in the Settings page of your dashboard.');
}

export async function aUserIsReachedOnEveryConnection() {
  const [ana, ben] = [unique('ana'), unique('ben')];
  const clients = [[0, ana], [1, ana], [1, ben]].map(([node, id]) => client({ node, user: { id } }));
  const heard = clients.map(() => []);
  for (const [n, pusher] of clients.entries()) {
    await signIn(pusher);
    assert.equal(pusher.user.user_data.id, n === 2 ? ben : ana);
    pusher.user.bind('note', data => heard[n].push(data));
  }
  for (const node of [0, 1]) {
    await backend({ node }).sendToUser(ana, 'note', { node });
    await backend({ node }).sendToUser(ben, 'note', 'for Ben');
  }
  await until(() => `notes: ${JSON.stringify(heard)}`, () => heard.every(notes => notes.length === 2));
  // Nodes have no order among each other.
  for (const notes of heard.slice(0, 2)) assert.deepEqual(notes.map(({ node }) => node).sort(), [0, 1]);
  assert.deepEqual(heard[2], ['for Ben', 'for Ben']);
}

export async function aUserWhoseConnectionsAreTerminatedStaysAway() {
  const [ana, ben] = [unique('ana'), unique('ben')];
  const clients = [[0, ana], [1, ana], [1, ben]].map(([node, id]) => client({ node, user: { id } }));
  const errors = clients.map(complaints);
  for (const pusher of clients) await signIn(pusher);
  const notes = [];
  clients[2].user.bind('note', data => notes.push(data));
  assert.deepEqual(await (await backend({ node: 1 }).terminateUserConnections(ana)).json(), {});
  const [one, other, bens] = clients.map(({ connection }) => connection);
  await until('both are closed', () => one.state === 'disconnected' && other.state === 'disconnected');
  assert.deepEqual(errors.slice(0, 2).map(([first]) => first.code), [4009, 4009]);
  await backend().sendToUser(ben, 'note', 'still here');
  await until('a note', () => notes.length === 1);
  assert.equal(bens.state, 'connected');
  // It is no error when the user has no connection.
  assert.deepEqual(await (await backend().terminateUserConnections(unique('nobody'))).json(), {});
}

export async function whoHasSignedInIsAMemberByThat() {
  const name = unique('presence-signed');
  const id = unique('ana');
  const ben = await listen(client({ node: 0, me: person('ben', 'Ben') }), name);
  const pusher = client({ user: { id, user_info: { name: 'Ana' } } });
  await signIn(pusher);
  const ana = await listen(pusher, name);
  assert.deepEqual(ana.channel.members.me, { id, info: { name: 'Ana' } });
  await until('two members', () => ben.channel.members.count === 2);
  assert.deepEqual(moves(ben.heard), [['added', id, { name: 'Ana' }]]);
}

export async function aWatchlistTellsWhoComesOnlineAndGoes() {
  const app = apps.watched;
  const [ana, ben, cy] = [unique('ana'), unique('ben'), unique('cy')];
  const early = client({ app, node: 0, user: { id: ben } });
  await signIn(early);
  const pusher = client({ app, user: { id: ana, watchlist: [ben, cy] } });
  const seen = [];
  for (const name of ['online', 'offline']) {
    pusher.user.watchlist.bind(name, ({ user_ids }) => user_ids.forEach(id => seen.push(`${id} ${name}`)));
  }
  await signIn(pusher);
  await until(() => `who is there: ${seen}`, () => seen.length === 2);
  assert.deepEqual([...seen].sort(), [`${ben} online`, `${cy} offline`].sort());
  const late = client({ app, node: 0, user: { id: cy } });
  await signIn(late);
  await until(() => `Cy has come: ${seen}`, () => seen.length === 3);
  early.disconnect();
  await until(() => `Ben has gone: ${seen}`, () => seen.length === 4);
  assert.deepEqual(seen.slice(2), [`${cy} online`, `${ben} offline`]);
}
