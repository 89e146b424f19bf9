// A person at the console: signs in, sees a page keep itself up to date, makes a key, pauses a team, loses their role, and signs out.
import { asked, end, open, patience, wish } from './browser.mjs';

const faults = [];
let place = 'at the door';
const page = await open({}, faults, () => place);
const expect = (what, holds) => { if (!holds) faults.push(`${place}: ${what}`); };
const go = (path) => page.goto(`${asked.base}${path}`);
// What is told by the server, within the patience of the tests.
const shown = (locator) => locator.first().waitFor({ state: 'visible', timeout: patience });

// A browser without a session is sent to the door, and back to where it was.
await go('/console/acme/teams/support');
expect('not sent to the door', new URL(page.url()).pathname === '/auth/sign-in');
await page.getByLabel('Service token').fill('tgs_of_no_one');
await page.getByRole('button', { name: 'Sign in with the token' }).click();
expect('no fault is told', (await page.locator('.fault').count()) === 1);
// The refusal is an answer of 401 or 403, which the browser reports as a message of its own.
faults.length = 0;
await page.getByLabel('Service token').fill(asked.secret);
await page.getByRole('button', { name: 'Sign in with the token' }).click();
expect(`not where it was: ${page.url()}`, new URL(page.url()).pathname === '/console/acme/teams/support');
const cookies = await page.context().cookies();
expect('no session that scripts cannot read', cookies.some(({ name, httpOnly }) => name === 'tollgate-dev' && httpOnly));

place = 'overview';
await go('/console/acme/');
await shown(page.locator('#live-mark'));
const before = await page.locator('#live-answer').innerText();
wish('spend');
await page.waitForFunction((before) => document.getElementById('live-answer').innerText !== before, before, { timeout: patience });

// What callers say is taken up by the script of an open page, and is text there as well.
place = 'decisions';
await go('/console/acme/decisions');
wish('ask');
await shown(page.locator('#decisions tbody bdi', { hasText: asked.hostile }));
expect('an element of others', (await page.locator('img').count()) === 0);
await page.locator('#decisions tbody th a').first().click();
await shown(page.locator('.explain'));
await shown(page.locator('.explain').getByText(asked.hostile));
expect('an element of others in the explanation', (await page.locator('img').count()) === 0);

place = 'keys';
await go('/console/acme/keys');
await page.locator('#create-name').fill('support-prod-browser');
await page.locator('#create-team').selectOption('support');
await page.getByRole('button', { name: 'Create', exact: true }).click();
await shown(page.locator('dialog'));
const secret = await page.locator('dialog code').innerText();
expect(`no secret: ${secret}`, secret.startsWith('tgk_'));
expect('the dialog is not modal', await page.locator('dialog').evaluate((dialog) => dialog.matches(':modal')));
expect('no button that copies', (await page.getByRole('button', { name: 'Copy' }).count()) === 1);
await page.keyboard.press('Escape');
expect('Escape loses the secret', await page.locator('dialog').isVisible());
await page.getByRole('link', { name: 'I have stored it' }).click();
expect('the secret is shown again', !(await page.content()).includes(secret));

place = 'pauses';
await go('/console/acme/pauses');
await page.locator('#pause-kind').selectOption('team');
await page.locator('#pause-name').fill('spare');
await page.locator('#pause-reason').fill('<b>leaked</b>? see INC-7');
await page.getByRole('button', { name: /^Pause/ }).click();
await shown(page.getByText('<b>leaked</b>? see INC-7'));
expect('the tab counts no pause', (await page.locator('nav .count').innerText()) === '1');

// A page that is looked at while the policy takes its reader's role away.
place = 'a role that ends';
await go('/console/acme/');
await shown(page.locator('#live-mark'));
wish('withdraw');
await page.waitForURL('**/auth/sign-in**', { timeout: patience });
faults.length = 0;

place = 'sign-out';
await go('/auth/sign-in');
await page.getByLabel('Service token').fill(asked.other);
await page.getByRole('button', { name: 'Sign in with the token' }).click();
await go('/console/acme/alerts');
await page.getByRole('button', { name: 'Sign out' }).click();
await go('/console/acme/alerts');
expect('still signed in', new URL(page.url()).pathname === '/auth/sign-in');

await end(faults);
