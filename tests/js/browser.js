// A browser that is driven by lines of JSON.
//
// Lives here: one Chromium; each line in is one thing to do, each line out its outcome.
// Called by: tests/src/browser.rs, with the path of Chromium.
// Must not know: what is tested.

const readline = require('node:readline');
const { chromium } = require('playwright-core');

const PATIENCE_MS = 30_000;
const ARGUMENTS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
  // A website whose owner lets its name lead to this machine.
  '--host-resolver-rules=MAP website.example 127.0.0.1',
];

const pages = [];

const actions = {
  // Opens a page in a profile of its own, and keeps what goes wrong in it.
  async open(browser, { url, options }) {
    const context = await browser.newContext(options);
    context.setDefaultTimeout(PATIENCE_MS);
    await context.grantPermissions(['clipboard-read', 'clipboard-write']);
    const page = await context.newPage();
    const complaints = [];
    page.on('console', message => {
      if (['error', 'warning'].includes(message.type())) complaints.push(message.text());
    });
    page.on('pageerror', error => complaints.push(String(error)));
    page.on('dialog', dialog => {
      complaints.push(`a dialog: ${dialog.message()}`);
      dialog.dismiss();
    });
    const number = pages.push({ page, context, complaints }) - 1;
    await page.goto(url);
    return number;
  },
  // Calls a method of an element, such as click, fill, press, textContent.
  element: (browser, { page, selector, method, args }) => pages[page].page.locator(selector)[method](...args),
  // Waits for an element that shows a text.
  until: (browser, { page, selector, text }) =>
    pages[page].page.locator(selector, { hasText: text }).first().waitFor(),
  press: (browser, { page, key }) => pages[page].page.keyboard.press(key),
  evaluate: (browser, { page, code }) => pages[page].page.evaluate(code),
  complaints: (browser, { page }) => pages[page].complaints,
  close: (browser, { page }) => pages[page].context.close(),
};

async function main() {
  const browser = await chromium.launch({ executablePath: process.argv[2], args: ARGUMENTS, timeout: PATIENCE_MS });
  const lines = readline.createInterface({ input: process.stdin });
  lines.on('line', async line => {
    const { id, action, ...rest } = JSON.parse(line);
    let outcome;
    try {
      outcome = { value: await actions[action](browser, rest) ?? null };
    } catch (error) {
      outcome = { error: String(error) };
    }
    process.stdout.write(`${JSON.stringify({ id, ...outcome })}\n`);
  });
  // Whoever drives it is gone, however it went.
  lines.on('close', async () => {
    await browser.close();
    process.exit();
  });
}

main();
