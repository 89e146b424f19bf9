// A thousand teams with ten thousand keys: each page stays small and quick, and all that there is can be found.
import { asked, end, open, patience, violations } from './browser.mjs';

const faults = [];
let place = '';
const page = await open({}, faults, () => place);
const expect = (what, holds) => { if (!holds) faults.push(`${place}: ${what}`); };

async function go(path) {
  place = path;
  const answer = await page.goto(`${asked.base}/console/acme${path}`);
  const bytes = (await answer.body()).length;
  expect(`${answer.status()}, ${bytes} bytes`, answer.status() === 200 && bytes <= 100 * 1024);
}
const names = () => page.locator('tbody th[scope="row"] a').allInnerTexts();

for (const path of asked.paths) {
  await go(path);
  // Those with the long lists: axe takes as long as all else.
  if (!['/', '/teams', '/keys'].includes(path)) continue;
  for (const found of await violations(page)) faults.push(`${path}: ${found}`);
}

// Keys, page by page: each once, in order.
await go('/keys');
const seen = await names();
for (let turn = 0; turn < 3; turn += 1) {
  await page.locator('a[rel="next"]').click();
  await page.locator('a[rel="first"]').waitFor();
  await page.waitForFunction((last) => !document.querySelector('tbody').innerText.includes(last), seen.at(-1));
  seen.push(...(await names()));
}
expect(`${seen.length} keys, ${new Set(seen).size} of them different`, seen.length === 200 && new Set(seen).size === 200);
expect('not in order', seen.every((name, at) => at === 0 || seen[at - 1] < name));

// By a part of the name, by team, by state; a created one as well as those that the policy declares.
await page.locator('#q').fill('0777-prod-');
await page.getByRole('button', { name: 'Show', exact: true }).click();
await page.waitForURL('**/keys?*q=0777-prod-*');
const found = await names();
expect(`finds ${found}`, found.length === 11 && found.includes('team-0777-prod-created') && found.includes('team-0777-prod-k3'));
await page.getByRole('link', { name: 'team-0777-prod-created', exact: true }).click();
await page.getByRole('heading', { name: 'team-0777-prod-created' }).waitFor();
await go('/keys');
await page.locator('#team').fill('team-0999');
await page.getByRole('button', { name: 'Show', exact: true }).click();
await page.waitForURL('**/keys?*team=team-0999*');
expect('other teams', (await names()).every((name) => name.startsWith('team-0999-')) && (await names()).length === 10);
await go('/keys?q=no-such-key');
expect('no word for none', await page.getByText('No key is so.').isVisible());
await go('/keys');
await page.locator('#create-name').fill('team-0500-prod-new');
await page.locator('#create-team').fill('team-0500');
await page.getByRole('button', { name: 'Create', exact: true }).click();
await page.locator('dialog code').waitFor();

// Teams.
await go('/teams');
const first = await names();
expect(`${first.length} teams`, first.length > 10 && first.length <= 100);
await page.locator('a[rel="next"]').click();
await page.waitForFunction((name) => !document.querySelector('tbody').innerText.includes(name), first[0], { timeout: patience });
expect('the same teams', (await names()).every((name) => !first.includes(name)));
await go('/teams?q=0777');
await page.getByRole('link', { name: 'team-0777', exact: true }).click();
await page.getByRole('heading', { name: 'team-0777' }).waitFor();

await end(faults);
