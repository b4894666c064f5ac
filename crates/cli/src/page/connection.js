// One client of the gateway.
//
// Lives here: connecting, joining channels, noticing silence, coming back by the rules of the protocol.
// Called by: app.js.
// Must not know: the document.

import { closed } from './words.js';

// Waits after a connection that broke off, before and after doubling.
const RETRY_MS = 250;
const RETRY_MAX_MS = 5000;

// The gateway pings after so much silence (`ping` of its welcome); when even that does not come, nobody is there.
const PONG_MS = 10_000;

const NAME_MAX_BYTES = 200;

// Returns why a text cannot be a channel's name, or nothing. The gateway refuses more; these it would refuse by hanging
// up, or a terminal would obey them in a copied command.
export function unnameable(text) {
  const bytes = new TextEncoder().encode(text).length;
  if (bytes > NAME_MAX_BYTES) return `a channel name has at most ${NAME_MAX_BYTES} bytes, this one has ${bytes}`;
  return /[\p{Cc}\p{Cs}]/u.test(text) ? 'a channel name cannot contain control characters' : '';
}

const TEXTS = ['type', 'channel', 'id', 'event', 'message', 'position', 'reason'];
const NUMBERS = ['ref', 'ping', 'time', 'retry_after_ms', 'replayed'];

// Returns a frame of the protocol, or nothing where it is none: whoever answers here need not be a gateway.
function read(text) {
  try {
    const frame = JSON.parse(text);
    const are = (type, names) => names.every(name => [type, 'undefined'].includes(typeof frame[name]));
    return are('string', TEXTS) && are('number', NUMBERS) ? frame : undefined;
  } catch {
    return undefined;
  }
}

export class Connection {
  #url;
  #on;
  #socket = null;
  #channels = new Map();
  #asked = new Map();
  #goodbye = null;
  #failures = 0;
  // Why the last connection ended.
  #why = '';
  #silence = 0;
  #silenceMs = 0;
  #retry = 0;
  #reference = 0;

  // `on` has: state(name, words), frame(direction, text), message(frame, text), lost(channel), channels(map), and
  // missed(channel, count): what was missed follows, or cannot be had when there is no count.
  constructor(url, on) {
    this.#url = url;
    this.#on = on;
  }

  connect() {
    this.#forget();
    this.#on.state('connecting', this.#why ? `${this.#why} Connecting again…` : 'Connecting…');
    const socket = this.#socket = new WebSocket(`${this.#url}/v1/ws?heartbeat=1`);
    // A socket that was given up may still speak.
    const mine = act => event => { if (socket === this.#socket) act(event); };
    socket.onmessage = mine(event => this.#hear(event.data));
    socket.onclose = mine(event => this.#end(event.code, this.#silenceMs > 0));
    this.#listen(PONG_MS);
  }

  disconnect() {
    this.#forget();
    this.#why = '';
    this.#pause();
    this.#on.state('stopped', 'Disconnected. Messages that are published now are not shown here.');
  }

  join(channel) {
    if (this.#channels.has(channel)) return;
    const why = unnameable(channel);
    // `since`: the last place in the channel that is known here; what follows it is asked for.
    this.#channels.set(channel, { state: why ? 'refused' : 'waiting', why, since: undefined });
    if (!why) this.#subscribe(channel);
    this.#on.channels(this.#channels);
  }

  leave(channel) {
    const { state } = this.#channels.get(channel) ?? {};
    this.#channels.delete(channel);
    if (state !== 'refused') this.#say({ type: 'unsubscribe', channel });
    this.#on.channels(this.#channels);
  }

  has(channel) {
    return this.#channels.has(channel);
  }

  #say(frame) {
    if (!this.#silenceMs) return false;
    const text = JSON.stringify(frame);
    this.#socket.send(text);
    this.#on.frame('sent', text);
    return true;
  }

  // One frame a channel: a name that is refused then stands in nobody's way.
  #subscribe(channel) {
    const ref = this.#reference + 1;
    if (!this.#say({ type: 'subscribe', channel, ref, since: this.#channels.get(channel)?.since })) return;
    this.#reference = ref;
    this.#asked.set(ref, channel);
  }

  #hear(text) {
    this.#on.frame('received', text);
    const frame = read(text);
    if (!frame) return;
    if (frame.type === 'welcome') this.#welcome(frame);
    this.#listen(this.#silenceMs || PONG_MS);
    if (frame.type === 'message') this.#reach(frame.channel, frame.id);
    else if (frame.type === 'subscribed' || frame.type === 'gap') this.#reach(frame.channel, frame.position);
    if (frame.type === 'message') this.#on.message(frame, text);
    else if (frame.type === 'subscribed') this.#join(frame);
    else if (frame.type === 'unsubscribed' && frame.code) this.#set(frame, 'refused', frame.message);
    else if (frame.type === 'error') this.#set(frame, 'refused', frame.message);
    else if (frame.type === 'gap') this.#on.lost(frame.channel);
    else if (frame.type === 'ping') this.#say({ type: 'ping' });
    else if (frame.type === 'goodbye') this.#goodbye = frame;
  }

  #reach(channel, since) {
    const known = this.#channels.get(channel);
    if (known && since) this.#channels.set(channel, { ...known, since });
  }

  #join(frame) {
    this.#set(frame, 'listening', '');
    if (frame.recovered === false) this.#on.missed(frame.channel);
    else if (frame.replayed > 0) this.#on.missed(frame.channel, frame.replayed);
  }

  #welcome(frame) {
    this.#silenceMs = frame.ping * 1000 + PONG_MS;
    this.#failures = 0;
    this.#why = '';
    this.#on.state('connected', 'Connected');
    for (const [channel, { state }] of this.#channels) if (state !== 'refused') this.#subscribe(channel);
  }

  #set(frame, state, why) {
    const channel = this.#asked.get(frame.ref) ?? frame.channel;
    this.#asked.delete(frame.ref);
    // It may have been left while the answer was on its way.
    if (!this.#channels.has(channel)) return;
    this.#channels.set(channel, { ...this.#channels.get(channel), state, why });
    this.#on.channels(this.#channels);
  }

  // A name that was refused would be refused again.
  #pause() {
    for (const [channel, known] of this.#channels) {
      if (known.state !== 'refused') this.#channels.set(channel, { ...known, state: 'waiting', why: '' });
    }
    this.#on.channels(this.#channels);
  }

  #end(code, wasOpen) {
    const told = this.#goodbye?.retry_after_ms;
    this.#why = closed(code, wasOpen);
    this.#forget();
    this.#pause();
    const wait = this.#wait(code, told);
    if (wait === null) return this.#on.state('stopped', `${this.#why} It asks not to come back.`);
    this.#on.state('waiting', `${this.#why} Connecting again${wait < 1000 ? '' : ` in ${Math.round(wait / 1000)} s`}…`);
    this.#retry = setTimeout(() => this.connect(), wait);
  }

  // The protocol's close codes: 4000 to 4099 do not come back, 4100 to 4199 after a second at least, 4200 to 4299 at
  // once, within the time that was told, so that not everybody comes at the same moment.
  #wait(code, told) {
    if (code >= 4000 && code < 4100) return null;
    if (code >= 4100 && code < 4200) return Math.max(1000, told ?? 0) + Math.random() * 1000;
    if (code >= 4200 && code < 4300) return Math.random() * (told ?? 1000);
    const most = Math.min(RETRY_MAX_MS, RETRY_MS * 2 ** this.#failures++);
    return most * (0.5 + Math.random() / 2);
  }

  #listen(patience) {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#end(0, this.#silenceMs > 0), patience);
  }

  // Gives the socket up, and everything that belonged to it.
  #forget() {
    clearTimeout(this.#retry);
    clearTimeout(this.#silence);
    const socket = this.#socket;
    this.#socket = this.#goodbye = null;
    this.#silenceMs = 0;
    this.#asked.clear();
    socket?.close();
  }
}
