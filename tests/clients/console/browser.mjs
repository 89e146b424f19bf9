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

// A page whose messages are faults: a breach of the content security policy is one of them.
export async function open(options, faults, name) {
  const headers = asked.token ? { authorization: `Bearer ${asked.token}` } : {};
  const context = await browser.newContext({ extraHTTPHeaders: headers, ...options });
  const page = await context.newPage();
  page.on('console', (message) => {
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
