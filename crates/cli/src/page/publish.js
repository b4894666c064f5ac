// Publishing, as an application does it: over HTTP, with an API key.
//
// Lives here: checking the data, the request, what its answer means.
// Called by: app.js.
// Must not know: the document.

import { refused } from './words.js';

// How long an answer may take. The gateway's own deadline is a second.
const PATIENCE_MS = 10_000;

// The deepest nesting that the API takes.
const DEPTH_MAX = 100;

// Level by level: calls within calls would come to the end of the stack.
function isTooDeep(value) {
  const inner = values => values.filter(each => typeof each === 'object' && each !== null);
  let level = inner([value]);
  for (let depth = 1; depth <= DEPTH_MAX; depth++) level = inner(level.flatMap(Object.values));
  return level.length > 0;
}

// Returns what is wrong with a text that should be JSON, or nothing.
export function fault(text) {
  if (!text.trim()) return 'The data is empty. Write null for none.';
  try {
    return isTooDeep(JSON.parse(text)) ? `The data is nested deeper than ${DEPTH_MAX} levels.` : '';
  } catch (error) {
    const hint = /^\s*[{["\d-]/.test(text) ? '' : ' A string needs double quotes: "hello".';
    return `This is not JSON: ${error.message}.${hint}`;
  }
}

// Returns the body of the request. The data stays as it was written: read as a number, one of 20 digits would lose
// some.
export function body({ channel, event, data }) {
  const named = event ? `,"event":${JSON.stringify(event)}` : '';
  return `{"channel":${JSON.stringify(channel)}${named},"data":${data.trim()}}`;
}

// Publishes, and returns the position of the message and what to say.
export async function publish(here, message) {
  let answer;
  try {
    answer = await fetch(`${here.api}/v1/publish`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${here.key}`, 'Content-Type': 'application/json' },
      body: body(message),
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
  } catch {
    return { words: `The publish API at ${here.api} does not answer. It is unknown whether it was published.` };
  }
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) return { words: refused(answer.status, said) };
  const { id, stored } = said.results[0];
  return { taken: true, id, words: stored ? `Published, stored as ${id}.` : 'Published.' };
}
