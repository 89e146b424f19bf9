// Looks at each page at four widths, light and dark: no message in the browser's console, nothing that axe finds, nothing beside the
// window, everything that can be operated reached by the keyboard, and below 100 KB; then without script.
import { asked, end, open, violations } from './browser.mjs';

const widths = [380, 800, 1280, 1600];
const faults = [];
let place = '';

for (const colorScheme of ['light', 'dark']) {
  const page = await open({ colorScheme }, faults, () => place);
  for (const path of asked.paths) {
    for (const width of widths) {
      place = `${path} at ${width} px, ${colorScheme}`;
      await page.setViewportSize({ width, height: 900 });
      const answer = await page.goto(asked.base + path, { waitUntil: 'load' });
      if (answer.status() !== 200) faults.push(`${place}: ${answer.status()}`);
      const bytes = (await answer.body()).length;
      if (bytes > 100 * 1024) faults.push(`${place}: ${bytes} bytes`);
      const scroll = await page.evaluate(() => document.documentElement.scrollWidth);
      if (scroll > width) faults.push(`${place}: ${scroll} px wide`);
      // Once for each scheme and the two widths where the layout differs most: axe takes as long as all else.
      if (width === 380 || width === 1280) {
        for (const found of await violations(page)) faults.push(`${place}: ${found}`);
      }
    }
    place = `${path}, by keyboard`;
    for (const missed of await unreached(page)) faults.push(`${place}: ${missed} is not reached`);
  }
  await page.context().close();
}

const plain = await open({ javaScriptEnabled: false }, faults, () => place);
for (const path of asked.paths) {
  place = `${path} without script`;
  await plain.goto(asked.base + path);
  for (const part of ['h1', 'nav a', 'footer']) {
    if ((await plain.locator(part).count()) === 0) faults.push(`${place}: no ${part}`);
  }
}

// What can be operated and is not reached by Tab, in as many steps as there are such things: a field for a time has several parts.
async function unreached(page) {
  const operable = 'a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex="0"]';
  const count = await page.locator(operable).count();
  const times = await page.locator('input[type^="date"], input[type="month"], input[type="week"], input[type="time"]').count();
  await page.evaluate(() => document.activeElement?.blur());
  for (let step = 0; step <= count + 8 * times; step += 1) {
    await page.keyboard.press('Tab');
    await page.evaluate(() => document.activeElement?.setAttribute('data-reached', ''));
  }
  return page.evaluate((operable) => {
    const radio = (element) => element.type === 'radio';
    const shown = (element) => element.checkVisibility({ visibilityProperty: true, contentVisibilityAuto: true });
    return [...document.querySelectorAll(operable)]
      .filter((element) => shown(element) && !radio(element) && !element.disabled && !element.hasAttribute('data-reached'))
      .map((element) => element.outerHTML.slice(0, 120));
  }, operable);
}

await end(faults);
