// Each kind of change, twice: by the keyboard alone, and with a pointer where pages have no script.
import { asked, end, open, patience } from './browser.mjs';

const faults = [];
let place = '';
const exactly = (name) => ({ name, exact: true });

// The keyboard alone. What Tab does not reach cannot be used.
const keyboard = (page) => {
  const reach = async (target) => {
    await target.waitFor();
    for (let step = 0; step < 300; step += 1) {
      const { there, seen } = await target.evaluate((element) => ({
        there: element === document.activeElement, seen: element.matches(':focus-visible') && getComputedStyle(element).outlineStyle !== 'none',
      }));
      if (there && !seen) faults.push(`${place}: no mark of the focus`);
      if (there) return;
      await page.keyboard.press('Tab');
    }
    throw new Error(`${place}: Tab does not reach ${target}`);
  };
  return {
    fill: async (target, text) => {
      await reach(target);
      await page.keyboard.press('Control+A');
      await page.keyboard.insertText(text);
    },
    // A letter at a time, as a list of choices is searched.
    choose: async (target, words) => { await reach(target); await page.keyboard.type(words); },
    press: async (target) => { await reach(target); await page.keyboard.press('Enter'); },
  };
};

const pointer = () => ({
  fill: (target, text) => target.fill(text),
  choose: (target, words) => target.selectOption({ label: words }),
  press: (target) => target.click(),
});

for (const hand of ['keyboard', 'pointer']) {
  const javaScriptEnabled = hand === 'keyboard';
  const page = await open({ javaScriptEnabled }, faults, () => `${place}, ${hand}`, [400]);
  const { fill, choose, press } = hand === 'keyboard' ? keyboard(page) : pointer();
  const expect = (what, holds) => { if (!holds) faults.push(`${place}, ${hand}: ${what}`); };
  const go = (path) => page.goto(`${asked.base}/console/acme${path}`);
  const button = (name) => page.getByRole('button', exactly(name));
  const told = (text) => page.getByText(text).first().waitFor({ timeout: patience });
  const name = `support-prod-${hand}`;

  place = 'signing in';
  await go('/keys');
  await fill(page.getByLabel('Service token'), asked.secret);
  await press(button('Sign in with the token'));
  await page.waitForURL('**/console/acme/keys');

  place = 'creating a key';
  await fill(page.locator('#create-name'), name);
  await choose(page.locator('#create-team'), 'support');
  await fill(page.locator('#create-requests_per_minute'), 'many');
  await press(button('Create'));
  const field = page.locator('#create-requests_per_minute');
  await page.locator('#create-requests_per_minute[aria-invalid="true"]').waitFor();
  expect('what was typed is lost', (await field.inputValue()) === 'many');
  expect('what was chosen is lost', (await page.locator('#create-team').inputValue()) === 'support');
  await fill(field, '20');
  await press(button('Check only'));
  await told('This can be created.');
  await press(button('Create'));
  await page.locator('dialog code').waitFor();
  const first = await page.locator('dialog code').innerText();
  expect('no secret', first.startsWith('tgk_'));
  await press(page.getByRole('link', { name: 'I have stored it' }));
  await page.waitForURL(`**/keys/${name}?team=support`);
  expect('the secret is still there', !(await page.content()).includes(first));

  place = 'changing a key';
  await fill(page.locator('#change-requests_per_minute'), '10');
  await press(button('Save'));
  await page.waitForURL('**done=changed**');
  expect('not changed', (await page.locator('#change-requests_per_minute').inputValue()) === '10');

  place = 'rotating a key';
  await press(button('Rotate'));
  await page.locator('dialog code').waitFor();
  expect('not another secret', (await page.locator('dialog code').innerText()) !== first);
  await press(page.getByRole('link', { name: 'I have stored it' }));
  await page.locator('dialog').waitFor({ state: 'detached' });

  place = 'pausing';
  await go('/pauses');
  await choose(page.locator('#pause-kind'), 'key');
  await fill(page.locator('#pause-name'), name);
  await fill(page.locator('#pause-reason'), 'INC-7');
  await press(button('Pause'));
  await told('It is paused.');

  place = 'resuming';
  await fill(page.getByLabel(`Why key ${name} is resumed`), 'it is over');
  await press(button(`Resume key ${name}`));
  await told('It is resumed.');

  place = 'revoking a key';
  await go(`/keys/${name}?team=support`);
  await press(page.getByRole('link', { name: 'Revoke…' }));
  await press(button(`Revoke ${name}`));
  await page.waitForURL(`**/keys/${name}?**`);
  await page.locator('.badge', { hasText: 'revoked' }).waitFor();

  place = 'proposing a policy';
  await go('/policy/proposal');
  await fill(page.locator('#text'), asked.proposal);
  await press(button('Check it'));
  await page.locator('#findings').waitFor();
  await page.locator('#changes').waitFor();
  expect('what was pasted is lost', (await page.locator('#text').inputValue()).trim() === asked.proposal.trim());

  place = 'signing out';
  await press(button('Sign out'));
  await told('You signed out.');
  await page.context().close();
}

await end(faults);
