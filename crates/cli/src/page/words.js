// What codes and refusals mean, for people.
//
// Lives here: sentences.
// Called by: connection.js, publish.js.
// Must not know: when they are said.

const CLOSED = {
  0: 'The gateway has been silent for too long.',
  1000: 'The gateway closed the connection.',
  1001: 'The gateway is going away.',
  1006: 'The connection broke off.',
  1009: 'A frame was too large.',
  1011: 'The gateway had a fault.',
  4001: 'The token was refused.',
  4003: 'Nothing that this page asked for is allowed.',
  4009: 'This page broke the rules of the protocol.',
  4100: 'The node holds as many connections as it may.',
  4101: 'This page read more slowly than its channels speak.',
  4102: 'The token has expired.',
  4200: 'The node is going away.',
  4201: 'The node is stopping and says goodbye.',
  4202: 'This page did not answer a ping.',
  4203: 'The connection was as old as one may be.',
};

// Says why a connection ended, with its close code where the other side sent one.
export function closed(code, wasOpen) {
  if (code <= 1006 && !wasOpen) return 'The gateway does not answer.';
  const words = CLOSED[code] ?? 'The connection was closed.';
  return code > 1006 || code === 1000 ? `${words.slice(0, -1)} (${code}).` : words;
}

// Says why a publish was refused: `problem` is the gateway's answer (RFC 9457).
export function refused(status, problem) {
  const why = problem.detail ?? 'the answer is not the gateway’s';
  const again = problem.error === 'unavailable' ? ' It is unknown whether it was published.' : '';
  return `Refused (${status} ${problem.error ?? ''}): ${why}.${again}`;
}

// Says how long a message took, and from when: the click where this page sent it, else the gateway's time stamp.
export function latency({ clicked, arrived, time, now }) {
  if (clicked !== undefined) return `${(arrived - clicked).toFixed(1)} ms from click`;
  return now < time ? 'clocks differ' : `${now - time} ms from gateway`;
}
