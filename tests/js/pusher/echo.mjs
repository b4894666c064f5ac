// laravel-echo listens on one node to what Laravel broadcasts on the other.
//
// Lives here: Echo as applications use it, with each of its two broadcasters; the blocks of docs/laravel.md.
// Called by: run.mjs; where Laravel is, is in the environment.
// Must not know: where the servers are.

import assert from 'node:assert/strict';
import Echo from 'laravel-echo';
import Pusher from 'pusher-js';
import { apps, nodes, unique, until } from './world.mjs';

const { LARAVEL } = process.env;

// Makes an Echo of a user, as the page of docs/laravel.md does.
function echo(broadcaster, user, node = 1) {
  const [wsHost, wsPort] = nodes[node].public.split(':');
  return new Echo({
    broadcaster,
    key: apps.first.key,
    cluster: '',
    wsHost,
    wsPort,
    wssPort: wsPort,
    forceTLS: false,
    enabledTransports: ['ws', 'wss'],
    Pusher,
    authEndpoint: `${LARAVEL}/broadcasting/auth`,
    bearerToken: user,
  });
}

// Asks Laravel, as a page does whose fetch adds the header.
async function ask(path, body, from) {
  const headers = { 'Content-Type': 'application/json', Accept: 'application/json' };
  if (from) headers['X-Socket-ID'] = from.socketId();
  const response = await fetch(`${LARAVEL}${path}`, { method: 'POST', headers, body: JSON.stringify(body ?? {}) });
  assert.equal(response.status, 200, await response.text());
}

const broadcast = (channels, event, payload) => ask('/broadcast', { channels, event, payload });

// Waits until a channel of Echo is joined.
const joined = channel => new Promise((resolve, reject) => {
  channel.subscribed(() => resolve(channel));
  channel.error(error => reject(new Error(JSON.stringify(error))));
});

const withEach = scenario => async () => {
  for (const broadcaster of ['reverb', 'pusher']) await scenario(broadcaster);
};

export const namesOfEventsAreFound = withEach(async broadcaster => {
  const name = unique('news');
  const heard = [];
  const channel = await joined(echo(broadcaster).channel(name));
  channel.listen('NewsPosted', data => heard.push(['class', data]));
  channel.listen('.news.posted', data => heard.push(['dotted', data]));
  channel.listen('.Other\\Space\\Event', data => heard.push(['absolute', data]));
  const all = [];
  channel.listenToAll((event, data) => all.push([event, data]));
  await broadcast([name], 'App\\Events\\NewsPosted', { n: 1, text: 'Grüße/🔔' });
  await broadcast([name], 'news.posted', { n: 2 });
  await broadcast([name, unique('other')], 'Other\\Space\\Event', { n: 3 });
  await until(() => `three events: ${JSON.stringify(heard)}`, () => all.length === 3);
  assert.deepEqual(heard, [['class', { n: 1, text: 'Grüße/🔔' }], ['dotted', { n: 2 }], ['absolute', { n: 3 }]]);
  assert.deepEqual(all.map(([event]) => event), ['NewsPosted', '.news.posted', '.Other\\Space\\Event']);
});

export const whatIsForOthersReachesOthers = withEach(async broadcaster => {
  const order = 'everybody';
  const clients = [echo(broadcaster, 'ana', 1), echo(broadcaster, 'ben', 1), echo(broadcaster, 'cy', 0)];
  const heard = clients.map(() => []);
  for (const [n, client] of clients.entries()) {
    const channel = await joined(client.private(`orders.${order}`));
    channel.listen('OrderShipped', data => heard[n].push(data));
    channel.listen('.end', () => heard[n].push('end'));
  }
  await ask(`/ship/${order}`, {}, clients[0]);
  await broadcast([`private-orders.${order}`], 'end', {});
  await until(() => `the end for all: ${JSON.stringify(heard)}`, () => heard.every(all => all.at(-1) === 'end'));
  assert.deepEqual(heard, [['end'], [{ order }, 'end'], [{ order }, 'end']]);
  for (const client of clients) client.disconnect();
});

export const laravelSaysWhoMayListen = withEach(async broadcaster => {
  const ana = echo(broadcaster, 'ana');
  await joined(ana.private('orders.7'));
  const eve = echo(broadcaster, 'eve');
  const refused = [];
  eve.private('orders.7').error(error => refused.push(error));
  eve.join('room.closed').error(error => refused.push(error));
  await until('two refusals', () => refused.length === 2);
  assert.deepEqual(refused.map(({ status }) => status), [403, 403]);
  assert.equal(eve.connectionStatus(), 'connected');
});

export const membersAreHereJoinAndLeave = withEach(async broadcaster => {
  const name = `room.${unique('of-two')}`;
  const ana = echo(broadcaster, 'ana', 0);
  const seen = [];
  const room = ana.join(name)
    .here(users => seen.push(['here', ...users.map(user => user.name)]))
    .joining(user => seen.push(['joining', user.name]))
    .leaving(user => seen.push(['leaving', user.name]))
    .listenForWhisper('typing', data => seen.push(['typing', data]));
  await until('Ana', () => seen.length === 1);
  const ben = echo(broadcaster, 'ben', 1);
  const bens = [];
  const other = ben.join(name)
    .here(users => bens.push(...users.map(user => user.name).sort()))
    .listenForWhisper('typing', data => bens.push(data));
  await until('Ben', () => seen.length === 2 && bens.length >= 1);
  // What one node knows, the other may be told a moment later.
  await until('both are here', () => other.subscription.members.count === 2);
  other.whisper('typing', { n: 1 });
  await until('a whisper', () => seen.length === 3);
  room.whisper('typing', { n: 2 });
  await until('another', () => bens.at(-1).n === 2);
  ben.leave(name);
  await until('Ben has left', () => seen.length === 4);
  assert.deepEqual(seen, [['here', 'Ana'], ['joining', 'Ben'], ['typing', { n: 1 }], ['leaving', 'Ben']]);
});

export const notificationsReachTheirUser = withEach(async broadcaster => {
  const [ana, ben] = [unique('ana'), unique('ben')];
  const heard = [];
  for (const user of [ana, ben]) {
    const channel = await joined(echo(broadcaster, user).private(`App.Models.User.${user}`));
    channel.notification(note => heard.push([user, note.type, note.text]));
  }
  await ask(`/remind/${ana}`, { text: 'pay' });
  await ask(`/remind/${ben}`, { text: 'rest' });
  await until('two notes', () => heard.length === 2);
  const type = 'App\\Notifications\\Reminder';
  assert.deepEqual(heard, [[ana, type, 'pay'], [ben, type, 'rest']]);
});

// Runs the blocks of the page: Echo, a private channel, a room. The environment has them, and the variables of Vite.
export async function thePageWorksAsItStands() {
  const [setup, orders, rooms] = JSON.parse(process.env.BLOCKS);
  const vite = JSON.parse(process.env.VITE);
  const begin = user => {
    // What a page has and Node.js has not: an origin, and a session.
    class HereEcho extends Echo {
      constructor(options) {
        super({ ...options, authEndpoint: `${LARAVEL}/broadcasting/auth`, bearerToken: user });
      }
    }
    const said = [];
    globalThis.window = {};
    const code = setup.replace(/^import .*$/gm, '').replaceAll('import.meta.env', 'vite');
    new Function('Echo', 'Pusher', 'window', 'vite', code)(HereEcho, Pusher, window, vite);
    new Function('Echo', 'console', orders)(window.Echo, { log: thing => said.push(thing) });
    return { echo: window.Echo, said };
  };
  const enter = ({ echo, said }) => new Function('Echo', 'console', rooms.replace(/^room\.whisper.*$/m, 'return room;'))(
    echo, { log: thing => said.push(thing) });
  const whisper = new Function('room', rooms.split('\n').at(-1));

  const ana = begin('ana');
  const orders7 = ana.echo.connector.channels['private-orders.7'];
  await until('the private channel', () => orders7.subscription.subscribed);
  await ask('/ship/7');
  await until('an order', () => ana.said.length === 1);
  enter(ana);
  await until('a room', () => ana.said.length === 2);
  const ben = begin('ben');
  const room = enter(ben);
  await until('both are there', () => ben.said.length >= 1 && ana.said.length === 3);
  whisper(room);
  await until('a whisper', () => ana.said.length === 4);
  ben.echo.disconnect();
  await until('Ben has left', () => ana.said.length === 5);
  assert.deepEqual(ana.said, ['7', [{ name: 'Ana' }], 'Ben', 'Ana', 'Ben']);
}
