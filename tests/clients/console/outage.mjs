// The store stops and comes back, and the policy changes, while people look.
import { asked, end, open, patience, violations, wish } from './browser.mjs';

const faults = [];
let place = '';
const tell = () => place;
const expect = (what, holds) => { if (!holds) faults.push(`${place}: ${what}`); };
const at = (path) => `${asked.base}/console/acme${path}`;
const visitor = () => open({}, faults, tell, [401, 503]);
const reads = (page, selector, text) => page.waitForFunction(
  ([selector, text]) => document.querySelector(selector)?.innerText.includes(text), [selector, text], { timeout: patience },
);

place = 'before';
const [overview, decisions, changing, other] = [await visitor(), await visitor(), await visitor(), await visitor()];
for (const page of [overview, decisions, changing, other]) {
  await page.goto(`${asked.base}/auth/sign-in`);
  await page.getByLabel('Service token').fill(asked.secret);
  await page.getByRole('button', { name: 'Sign in with the token' }).click();
  await page.waitForURL(at('/'));
}
await overview.goto(at('/'));
await reads(overview, '#live-mark', 'live');
await decisions.goto(at('/decisions'));
await reads(decisions, '#tally', 'last minute');
await changing.goto(at('/pauses'));
await changing.locator('#pause-name').fill('research');
await changing.locator('#pause-reason').fill('INC-7');
const spent = await overview.locator('#live-answer').innerText();

place = 'the store stops';
wish('freeze');
// Both pages that are open say so by themselves, and keep what they know.
await reads(overview, '#live-mark', 'the store does not answer');
expect('what was known is gone', (await overview.locator('#live-answer').innerText()) === spent);
await reads(decisions, '#tally', 'Not live: trying again');
// Every other page answers within the store's deadline and some, and says what is wrong and what to do.
for (const path of asked.paths) {
  place = `${path} without the store`;
  const began = Date.now();
  const answer = await other.goto(at(path));
  expect(`takes ${Date.now() - began} ms`, Date.now() - began < 20_000);
  const text = await other.locator('main').innerText();
  const helps = text.includes('The store does not answer') && text.includes('Load the page again');
  expect(`${answer.status()}: ${text}`, answer.status() === 503 && helps);
  expect('no way to other pages', (await other.locator('nav a').count()) > 5);
}
for (const found of await violations(other)) faults.push(`${place}: ${found}`);
// What a policy says can be checked all the same.
place = 'a proposal without the store';
await other.goto(at('/policy/proposal'));
await other.locator('#text').fill('[organization]\nid = "acme"\n');
await other.getByRole('button', { name: 'Check it' }).click();
await other.locator('#findings').waitFor();
// A change is refused in words, and what was typed stays.
place = 'a change without the store';
await changing.getByRole('button', { name: 'Pause', exact: true }).click();
await changing.locator('.banner-over').first().waitFor();
expect('what was typed is lost', (await changing.locator('#pause-reason').inputValue()) === 'INC-7');
expect('it does not say why', (await changing.locator('main').innerText()).includes('store'));

place = 'the store is back';
wish('thaw');
await overview.waitForFunction(() => document.getElementById('live-mark').innerText === 'live', undefined, { timeout: patience });
await reads(decisions, '#tally', 'last minute');
wish('spend');
await overview.waitForFunction((spent) => document.getElementById('live-answer').innerText !== spent, spent, { timeout: patience });
// Decisions as they are made, again.
await decisions.locator('tbody tr').first().waitFor({ timeout: patience });

place = 'another policy';
const revision = await overview.locator('footer code').innerText();
const team = overview.locator('#live-teams');
expect('knows the team already', !(await team.innerText()).includes('newcomers'));
wish('reload');
await overview.waitForFunction(
  (revision) => document.querySelector('footer code').innerText !== revision, revision, { timeout: patience },
);
await reads(overview, '#live-teams', 'newcomers');
await reads(overview, '#live-mark', 'live');
await reads(decisions, '#tally', 'last minute');

place = 'a session that ends';
wish('withdraw');
await Promise.all([overview, decisions].map((page) => page.waitForURL('**/auth/sign-in**', { timeout: patience })));

await end(faults);
