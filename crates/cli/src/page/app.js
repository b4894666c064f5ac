// The page for trying it.
//
// Lives here: the document; the only module that touches it.
// Called by: index.html.
// Must not know: how the protocol works.

import { commands } from './commands.js';
import { Connection, unnameable } from './connection.js';
import { Feed } from './feed.js';
import { fault, publish } from './publish.js';
import { latency } from './words.js';

const MESSAGES_MAX = 100;
const FRAMES_MAX = 200;
// Of a text that is longer, so much is shown.
const SHOWN_MAX = 4000;
const COPIED_MS = 2000;
// So many channels a link may ask for.
const LINKED_MAX = 100;

const at = id => document.getElementById(id);

// Makes an element. Texts are only ever texts.
function make(tag, className, ...inside) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...inside);
  return element;
}

function tell(element, words) {
  element.textContent = words;
  element.hidden = !words;
}

const shown = text =>
  text.length > SHOWN_MAX ? `${text.slice(0, SHOWN_MAX)}… and ${text.length - SHOWN_MAX} more characters` : text;

const clock = moment => `${moment.toLocaleTimeString('en-GB')}.${String(moment.getMilliseconds()).padStart(3, '0')}`;

const here = await fetch('/page/here.json').then(answer => answer.json());
document.title = `Carillon ${location.host}`;
at('here').textContent = `${here.version} · node ${location.host} · broker ${here.broker}`;

// Messages.

// By position: those that arrived, and the clicks whose messages have not. A message may come before the answer that
// says which position it has.
const arrivals = new Map();
const clicks = new Map();

function remember(map, key, value) {
  map.set(key, value);
  if (map.size > MESSAGES_MAX) map.delete(map.keys().next().value);
}

// The members stand in a known order, and quotes in texts are escaped: this is the data as it came.
const dataOf = text => text.slice(text.indexOf(',"data":') + 8, text.lastIndexOf(',"time":'));

const messages = new Feed(at('messages'), MESSAGES_MAX, item => {
  if (item.notice) return make('li', 'notice', item.notice);
  item.shown = make('span', 'latency', latency(item));
  const event = item.event === undefined ? '' : make('span', 'event', item.event);
  const line = make('div', 'line', make('span', 'channel', item.channel), event, item.shown);
  line.append(make('time', 'soft', clock(item.moment)));
  return make('li', '', line, make('pre', '', shown(item.data)));
});

function arrive(frame, text) {
  const arrived = performance.now();
  const moment = new Date();
  const key = `${frame.channel} ${frame.id}`;
  const { channel, event, time } = frame;
  const item = { channel, event, time, arrived, moment, now: moment.getTime(), data: dataOf(text) };
  item.clicked = clicks.get(key);
  if (frame.id) remember(arrivals, key, item);
  at('nothing').hidden = true;
  messages.add(item);
}

// Learns at which position a click's message stands.
function matched(channel, id, clicked) {
  const key = `${channel} ${id}`;
  const item = arrivals.get(key);
  if (!item) return remember(clicks, key, clicked);
  item.clicked = clicked;
  if (item.shown) item.shown.textContent = latency(item);
}

// Frames.

const frames = new Feed(at('frames'), FRAMES_MAX, ({ direction, text, moment }) => {
  const arrow = make('span', 'arrow', direction === 'sent' ? '↑' : '↓', make('span', 'unseen', ` ${direction} `));
  return make('li', direction, arrow, make('time', 'soft', clock(moment)), make('code', '', shown(text)));
});

// Connection and channels.

const CHIP = { waiting: 'not yet listening', listening: 'listening', refused: 'refused' };
let channels = [];
let away = false;
let drawing = 0;

const connection = new Connection(`ws://${location.host}`, {
  state(name, words) {
    at('state').dataset.state = name;
    // What has not changed is not read out again.
    if (at('state').textContent !== words) at('state').textContent = words;
    at('connect').textContent = { waiting: 'Connect now', stopped: 'Connect' }[name] ?? 'Disconnect';
    if (name === 'connected' && away) messages.add({ notice: 'Connected again.' });
    away = name !== 'connected' && (away || name !== 'connecting');
  },
  frame: (direction, text) => frames.add({ direction, text, moment: new Date() }),
  message: arrive,
  lost: channel => messages.add({ notice: `Messages of ${channel} were lost and cannot be brought back.` }),
  missed: (channel, count) => messages.add({
    notice: count
      ? `${channel}: ${count} that ${count === 1 ? 'was' : 'were'} published in between.`
      : `${channel}: what was published in between cannot be had any more.`,
  }),
  // Many may change at once: they are drawn once.
  channels: all => { drawing ||= requestAnimationFrame(() => draw(all)); },
});

function draw(all) {
  drawing = 0;
  const refusals = [...all].filter(([, { state }]) => state === 'refused');
  channels = [...all.keys()].filter(name => all.get(name).state !== 'refused');
  const focused = [...at('channels').querySelectorAll('button')].indexOf(document.activeElement);
  at('channels').replaceChildren(...[...all].map(([name, { state }]) => chip(name, state)));
  at('channels').children[focused]?.lastChild.focus();
  tell(at('refused'), refusals.map(([name, { why }]) => `${shown(name)} is refused: ${why}.`).join(' '));
  at('known').replaceChildren(...channels.map(name => Object.assign(make('option', ''), { value: name })));
  follow();
  try {
    history.replaceState(null, '', `#${new URLSearchParams(channels.map(name => ['channel', name]))}`);
  } catch {
    // Browsers let a page do this only so often. The link is then an older one.
  }
}

function chip(name, state) {
  const leave = make('button', '', '×');
  leave.type = 'button';
  leave.setAttribute('aria-label', `Stop listening to ${name}`);
  leave.onclick = () => {
    connection.leave(name);
    at('more').focus();
  };
  const item = make('li', state, make('span', 'channel', shown(name)), make('span', 'unseen', ` ${CHIP[state]} `), leave);
  item.title = CHIP[state];
  return item;
}

at('connect').onclick = () => {
  if (['waiting', 'stopped'].includes(at('state').dataset.state)) connection.connect();
  else connection.disconnect();
};

at('listen').onsubmit = event => {
  event.preventDefault();
  const name = at('more').value.trim();
  if (name) connection.join(name);
  at('more').value = '';
};

// Publishing.

const form = () => ({ channel: at('channel').value.trim(), event: at('event').value, data: at('data').value });

at('publish').onsubmit = async event => {
  event.preventDefault();
  const clicked = performance.now();
  const message = form();
  follow();
  if (at('fault').textContent) return at('data').focus();
  const { taken, id, words } = await publish(here, message);
  if (id) matched(message.channel, id, clicked);
  const deaf = taken && !connection.has(message.channel) ? ' This page does not listen to that channel.' : '';
  at('outcome').classList.toggle('trouble', !taken);
  at('outcome').textContent = words + deaf;
};

at('data').onkeydown = event => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) at('publish').requestSubmit();
};

// Commands.

const blocks = new Map();

function block(key, title) {
  const code = make('code', '');
  const button = make('button', '', 'Copy');
  button.type = 'button';
  button.setAttribute('aria-label', `Copy: ${title}`);
  button.onclick = () => copy(button, code, title);
  const article = make('article', '', make('div', 'line', make('h3', '', title), button), make('pre', '', code));
  article.id = `command-${key}`;
  at('commands').append(article);
  return { code, button };
}

async function copy(button, code, title) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = 'Copied';
    at('copied').textContent = `${title}: copied`;
  } catch {
    getSelection().selectAllChildren(code);
    button.textContent = 'Press Ctrl+C';
    at('copied').textContent = 'The browser does not let the page copy: it is selected, press Ctrl+C';
  }
  setTimeout(() => { button.textContent = 'Copy'; }, COPIED_MS);
}

// Brings what depends on the form up to date.
function follow() {
  const wrong = fault(at('data').value);
  tell(at('fault'), wrong);
  at('data').toggleAttribute('aria-invalid', Boolean(wrong));
  at('commands').inert = Boolean(wrong);
  if (wrong) return;
  for (const [key, title, text] of commands(here, location.host, channels, form())) {
    if (!blocks.has(key)) blocks.set(key, block(key, title));
    blocks.get(key).code.textContent = text;
  }
}

at('publish').oninput = follow;

const linked = new URLSearchParams(location.hash.slice(1)).getAll('channel').slice(0, LINKED_MAX);
const wanted = linked.filter(name => !unnameable(name));
for (const channel of wanted.length ? wanted : ['news']) connection.join(channel);
connection.connect();
