// A client in Node.js that only listens, and says what it hears.
//
// Lives here: three libraries for the same stream; each line out is one thing that was heard.
// Called by: tests/tests/eventsource.rs, with the library and the URL.
// Must not know: what is tested.

const [, , library, url] = process.argv;
const tell = thing => process.stdout.write(`${JSON.stringify(thing)}\n`);

async function eventSource(name) {
  const loaded = await import(name);
  const EventSource = loaded.EventSource ?? loaded.default;
  const source = new EventSource(url);
  source.onopen = () => tell({ open: true });
  const raw = new URL(url).searchParams.get('format') === 'raw';
  source.onmessage = ({ data, lastEventId }) => tell({ message: raw ? data : JSON.parse(data), id: lastEventId });
  source.addEventListener('control', ({ data, lastEventId }) => tell({ control: JSON.parse(data), id: lastEventId }));
  source.onerror = () => tell({ error: true, closed: source.readyState === 2 });
}

// Lines of JSON, as a page reads them without any library.
async function lines() {
  const response = await fetch(url);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const parts = (rest + value).split('\n');
    rest = parts.pop();
    for (const line of parts) tell({ line: JSON.parse(line) });
  }
  tell({ end: true });
}

await (library === 'fetch' ? lines() : eventSource(library));
