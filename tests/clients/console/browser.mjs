// Chromium as the tests use it: what it is told comes as JSON on the standard input, what is found goes as JSON to the standard output.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

export const asked = JSON.parse(readFileSync(0, 'utf8'));

// Quiet: it asks no service of its maker for anything.
const quiet = [
  '--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update',
  '--disable-sync', '--disable-quic', '--no-first-run', '--disable-dev-shm-usage',
];

export const browser = await chromium.launch({ executablePath: asked.browser, args: quiet });

// How long something may take on a machine that does everything else at once, in ms.
export const patience = 60_000;

// Asks the test to make `name` true. It is not answered: the page shows when it is.
export const wish = (name) => console.error(`wish ${name}`);

// A page whose messages are faults: a breach of the content security policy is one of them. `expected` are answers that browsers
// report in a message of their own, and the tests have provoked.
export async function open(options, faults, name, expected = []) {
  const headers = asked.token ? { authorization: `Bearer ${asked.token}` } : {};
  const context = await browser.newContext({ extraHTTPHeaders: headers, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(patience);
  page.on('console', (message) => {
    // What the page of a provider says is not ours.
    if (asked.provider && message.location().url.startsWith(asked.provider)) return;
    if (expected.some((status) => message.text().includes(`status of ${status} `))) return;
    if (['error', 'warning'].includes(message.type())) faults.push(`${name()}: says ${message.text()}`);
  });
  page.on('pageerror', (error) => faults.push(`${name()}: fails with ${error.message}`));
  return page;
}

// What axe finds. It is evaluated, not added as a script, so that the page's own policy holds.
export async function violations(page) {
  await page.evaluate(axe);
  return page.evaluate(async () => {
    const { violations } = await globalThis.axe.run();
    return violations.map(({ id, nodes }) => `${id}: ${nodes[0].html.slice(0, 200)} ${nodes[0].failureSummary}`);
  });
}

export async function end(found) {
  await browser.close();
  console.log(JSON.stringify(found));
}
