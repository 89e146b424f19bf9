// People sign in through their provider: on its own page, and back to the page that they asked for.
import { asked, end, open, patience, violations, wish } from './browser.mjs';

const faults = [];
let place = '';
const expect = (what, holds) => { if (!holds) faults.push(`${place}: ${what}`); };
const session = async (page) => (await page.context().cookies(asked.base)).find(({ name }) => name === 'tollgate-dev')?.value;
const path = (page) => new URL(page.url()).pathname + new URL(page.url()).search;
const isAt = (page, wanted) => page.waitForURL(`${asked.base}${wanted}`, { timeout: patience });

// A browser of its own for each person.
const person = () => open({}, faults, () => place, [400, 401, 403]);

// Through the provider's own page, which is another site.
async function introduce(page, name) {
  await page.getByLabel('Login').waitFor();
  expect(`not at the provider: ${page.url()}`, page.url().startsWith(asked.provider));
  await page.getByLabel('Login').fill(name);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

place = 'ada, at the door';
const ada = await person();
const wanted = '/console/acme/teams/chatbot?by=user';
// A cookie that another could have planted is no session, and becomes none.
await ada.context().addCookies([{ name: 'tollgate-dev', value: 'planted', url: asked.base }]);
await ada.goto(asked.base + wanted);
expect(`not sent to the door: ${ada.url()}`, path(ada).startsWith('/auth/sign-in?'));
for (const found of await violations(ada)) faults.push(`${place}: ${found}`);
await ada.getByRole('link', { name: 'Continue at' }).click();
await introduce(ada, 'ada');
await isAt(ada, wanted);
expect('no session of its own', ![undefined, 'planted'].includes(await session(ada)));
await ada.getByText('ada of Acme').waitFor();
// An administrator.
await ada.goto(`${asked.base}/console/acme/keys`);
expect('an administrator cannot create keys', (await ada.locator('#create').count()) === 1);

// The provider vouches for a minute, and is then asked without a question, while she looks and the others come.
await ada.goto(`${asked.base}/console/acme/`);
await ada.locator('#live-mark').waitFor();
const shown = [];
ada.on('framenavigated', (frame) => shown.push(frame.url()));
const before = await session(ada);

// A viewer of one team: what they may not see is not hinted at, and says so where they ask for it.
place = 'finn';
const finn = await person();
await finn.goto(`${asked.base}/console/acme/reports`);
await finn.getByRole('link', { name: 'Continue at' }).click();
await introduce(finn, 'finn');
await isAt(finn, '/console/acme/reports');
const tabs = await finn.locator('nav a').allInnerTexts();
expect(`sees ${tabs}`, tabs.includes('Reports') && !tabs.includes('Keys') && !tabs.includes('Audit'));
await finn.goto(`${asked.base}/console/acme/keys`);
await finn.getByRole('heading', { name: 'You may not see this' }).waitFor();

// A person that the policy does not know may come as another, although their provider knows them already.
place = 'vera, without a role';
const vera = await person();
await vera.goto(`${asked.base}/console/acme/`);
await vera.getByRole('link', { name: 'Continue at' }).click();
await introduce(vera, 'vera');
await vera.getByText('none of your groups has a role').waitFor();
expect('has a session', (await session(vera)) === undefined);
for (const found of await violations(vera)) faults.push(`${place}: ${found}`);
await vera.getByRole('link', { name: 'Sign in as another' }).click();
await introduce(vera, 'ada');
await vera.getByText('ada of Acme').waitFor();

// A name at the provider that would be markup.
place = 'a hostile name';
const hostile = await person();
await hostile.goto(`${asked.base}/console/acme/`);
await hostile.getByRole('link', { name: 'Continue at' }).click();
await introduce(hostile, asked.hostile);
for (const path of ['/console/acme/', '/console/acme/audit']) {
  await isAt(hostile, '/console/acme/');
  await hostile.goto(asked.base + path);
  await hostile.getByText(asked.hostile).first().waitFor();
  expect(`an element of others at ${path}`, (await hostile.locator('img').count()) === 0);
  await hostile.goto(`${asked.base}/console/acme/`);
}

place = 'mallory, refused by the provider';
const mallory = await person();
await mallory.goto(`${asked.base}/console/acme/`);
await mallory.getByRole('link', { name: 'Continue at' }).click();
await introduce(mallory, 'mallory');
await mallory.getByText('Your provider did not let you in.').waitFor();
for (const found of await violations(mallory)) faults.push(`${place}: ${found}`);
expect('has a session', (await session(mallory)) === undefined);
expect('no way on', await mallory.getByRole('link', { name: 'Continue at' }).isVisible());

// An answer that arrives a second time, by the history of a browser.
place = 'an old answer';
await mallory.goto(`${asked.base}/auth/callback?code=stolen&state=stolen`);
await mallory.getByText('does not count any more').waitFor();

place = 'ada, renewed';
const deadline = Date.now() + 2 * patience;
while ((await session(ada)) === before && Date.now() < deadline) await ada.waitForTimeout(100);
await isAt(ada, '/console/acme/');
await ada.getByText('ada of Acme').waitFor();
expect('the session is not renewed', ![undefined, before].includes(await session(ada)));
expect(`the person was asked: ${shown}`, !shown.some((url) => url.includes('/interaction/') || url.includes('why=')));

place = 'ada, leaving';
await ada.getByRole('button', { name: 'Sign out' }).click();
await ada.getByText('You signed out.').waitFor();
expect('there is still a session', (await session(ada)) === undefined);
await ada.goBack();
await ada.getByRole('heading', { name: 'Sign in' }).waitFor();
// Their provider still knows them.
await ada.getByRole('link', { name: 'Continue at' }).click();
await isAt(ada, '/console/acme/');

// Without the provider there is still a way in.
place = 'without the provider';
wish('silence');
const leave = () => mallory.goto(`${asked.base}/auth/sign-in?with=another`).then(() => true, () => false);
while (await leave()) await mallory.waitForTimeout(100);
const ops = await person();
await ops.goto(`${asked.base}/auth/sign-in?return_to=%2Fconsole%2Facme%2Fkeys`);
await ops.getByText('With a service token instead').click();
await ops.getByLabel('Service token').fill(asked.token_of_ops);
await ops.getByRole('button', { name: 'Sign in with the token' }).click();
await isAt(ops, '/console/acme/keys');

await end(faults);
