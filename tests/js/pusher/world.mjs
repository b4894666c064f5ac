// What the scenarios share: backends and clients of an application, each at a node, and waiting.
//
// Lives here: making npm's pusher and pusher-js as an application makes them, hearing channels, patience.
// Called by: the scenarios beside it.
// Must not know: what is tried.

import { randomBytes } from 'node:crypto';
import Backend from 'pusher';
import Pusher from 'pusher-js';

const PATIENCE_MS = 30_000;
const LOOK_AGAIN_MS = 10;

// Nodes with their `public` and `api` listeners, and applications by name with `id`, `key` and `secret`.
export const { nodes, apps } = JSON.parse(process.env.CARILLON);

const encryptionMasterKeyBase64 = randomBytes(32).toString('base64');

// Makes a backend of an application. What it publishes comes in at a node.
export function backend({ node = 0, app = apps.first, ...more } = {}) {
  const [host, port] = nodes[node].api.split(':');
  const { id: appId, key, secret } = app;
  return new Backend({ appId, key, secret, host, port, useTLS: false, encryptionMasterKeyBase64, ...more });
}

// Makes a client at another node than a backend. `me` is who it is in presence channels, `user` whom it signs in as, `as`
// signs for it.
export function client({ node = 1, app = apps.first, me, user, as = backend({ app }), ...more } = {}) {
  const [wsHost, wsPort] = nodes[node].public.split(':');
  const authorize = ({ channelName, socketId }, callback) => {
    const data = channelName.startsWith('presence-') ? me : undefined;
    callback(null, as.authorizeChannel(socketId, channelName, data));
  };
  const authenticate = ({ socketId }, callback) => callback(null, as.authenticateUser(socketId, user));
  return new Pusher(app.key, {
    cluster: '',
    wsHost,
    wsPort,
    forceTLS: false,
    enabledTransports: ['ws'],
    channelAuthorization: { customHandler: authorize },
    userAuthentication: { customHandler: authenticate },
    ...more,
  });
}

// Waits until `look` finds something, and returns it.
export async function until(what, look) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`never came: ${typeof what === 'function' ? what() : what}`);
    await new Promise(resolve => setTimeout(resolve, LOOK_AGAIN_MS));
  }
}

// A name that no other scenario uses.
export const unique = name => `${name}-${randomBytes(6).toString('hex')}`;

// Subscribes and waits until it is done. `heard` grows by the name and the data of whatever comes afterwards.
export async function listen(pusher, name) {
  const heard = [];
  const channel = pusher.subscribe(name);
  channel.bind_global((event, data) => {
    if (event !== 'pusher:subscription_succeeded') heard.push([event, data]);
  });
  await until(() => `a subscription of ${name}: ${JSON.stringify(heard)}`, () => channel.subscribed);
  return { channel, heard };
}

// Waits until as much was heard as is awaited, and a last event, which is sent for that, and nothing else.
export async function heardOnly(assert, listener, expected) {
  const { heard, channel } = listener;
  const end = unique('end');
  await backend().trigger(channel.name, end, '');
  await until(() => `the end of ${channel.name}: ${JSON.stringify(heard)}`, () => heard.at(-1)?.[0] === end);
  assert.deepEqual(heard.slice(0, -1), expected);
}

// Signs in and waits until messages to the user will arrive.
export async function signIn(pusher) {
  pusher.signin();
  await until('a sign-in', () => pusher.user.serverToUserChannel?.subscribed);
}

// Keeps what goes wrong with a connection.
export function complaints(pusher) {
  const all = [];
  pusher.connection.bind('error', ({ error, data }) => all.push(data ?? error.data));
  return all;
}
