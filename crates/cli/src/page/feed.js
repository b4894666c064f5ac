// A list of the newest things.
//
// Lives here: the bound, and drawing a burst at once.
// Called by: app.js.
// Must not know: what the things are.

// Pause between two drawings.
const DRAW_MS = 30;

export class Feed {
  #list;
  #max;
  #draw;
  #waiting = [];

  // `draw` makes the list item of a thing.
  constructor(list, max, draw) {
    this.#list = list;
    this.#max = max;
    this.#draw = draw;
  }

  add(thing) {
    if (this.#waiting.length === 0) setTimeout(() => this.#show(), DRAW_MS);
    this.#waiting.push(thing);
    if (this.#waiting.length > this.#max) this.#waiting.shift();
  }

  #show() {
    const things = this.#waiting.reverse();
    // First of all: what cannot be drawn is not to stand in the way of what comes after it.
    this.#waiting = [];
    this.#list.prepend(...things.map(this.#draw));
    while (this.#list.children.length > this.#max) this.#list.lastChild.remove();
  }
}
