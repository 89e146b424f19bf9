// Looks at each page at four widths, light and dark: no message in the browser's console, nothing that axe finds, nothing beside the
// window, everything that can be operated reached by the keyboard, and below 100 KB; then enlarged, on paper, and without script.
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
      // Pages have no picture, no frame and no code of their own: one that is there was written by others.
      const foreign = await page.locator('img, iframe, object, embed, base, script:not([src]), [style], [onerror]').count();
      if (foreign > 0) faults.push(`${place}: ${foreign} elements of others`);
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

// At 200 %: half as many pixels of CSS, each twice as large. Nothing is cut off.
const enlarged = await open({ viewport: { width: 640, height: 450 }, deviceScaleFactor: 2 }, faults, () => place);
for (const path of asked.paths) {
  place = `${path} at 200 %`;
  await enlarged.goto(asked.base + path);
  for (const cut of await beyond(enlarged, 640)) faults.push(`${place}: cut off: ${cut}`);
}

// On paper of A4 within its margins: all of it, and nothing that can only be operated.
const paper = await open({ viewport: { width: 688, height: 972 }, colorScheme: 'dark' }, faults, () => place);
await paper.emulateMedia({ media: 'print' });
for (const path of asked.paths) {
  place = `${path} on paper`;
  await paper.goto(asked.base + path);
  for (const cut of await beyond(paper, 688)) faults.push(`${place}: cut off: ${cut}`);
  for (const part of ['nav', 'footer', 'main form', 'button', '#live-mark']) {
    const shown = await paper.locator(part).evaluateAll((all) => all.filter((element) => element.checkVisibility()).length);
    if (shown > 0) faults.push(`${place}: ${shown} of ${part}`);
  }
  // White paper, dark ink, whatever the screen has.
  const ink = await paper.evaluate(() => getComputedStyle(document.body).color);
  if (ink !== 'rgb(26, 27, 29)') faults.push(`${place}: ink of ${ink}`);
}

const plain = await open({ javaScriptEnabled: false }, faults, () => place);
for (const path of asked.paths) {
  place = `${path} without script`;
  await plain.goto(asked.base + path);
  for (const part of ['h1', 'nav a', 'footer']) {
    if ((await plain.locator(part).count()) === 0) faults.push(`${place}: no ${part}`);
  }
}

// What stands outside of the window, or is cut off at the edge of what holds it, and cannot be scrolled to.
function beyond(page, width) {
  return page.evaluate((width) => {
    const shown = (element) => element.checkVisibility() && !element.closest('.visually-hidden, .skip, svg, thead');
    const cut = (element) => {
      const { overflowX } = getComputedStyle(element);
      const hides = ['hidden', 'clip'].includes(overflowX) && element.scrollWidth > element.clientWidth + 1;
      const scrolls = element.closest('.table, .code, textarea') && getComputedStyle(element.closest('.table, .code, textarea')).overflowX !== 'visible';
      return hides || (!scrolls && element.getBoundingClientRect().right > width + 1);
    };
    return [...document.querySelectorAll('body *')].filter((element) => shown(element) && cut(element))
      .slice(0, 3).map((element) => element.outerHTML.slice(0, 120));
  }, width);
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
