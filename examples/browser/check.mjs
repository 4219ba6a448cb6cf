// Opens the page in headless Chromium and compares what it says with what PyTorch said: node check.mjs DIR, where DIR
// is what prepare.py wrote. CHROMIUM names the browser, if it is not found.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { serve } from "./server.mjs";

const BROWSERS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"];

const folder = process.argv[2];
const expected = JSON.parse(readFileSync(join(folder, "expected.json"), "utf-8"));
const executablePath = process.env.CHROMIUM ?? BROWSERS.find(existsSync);
const { server, url } = await serve(folder);
const asRoot = process.getuid?.() === 0;
const browser = await chromium.launch({ executablePath, args: [...QUIET, ...(asRoot ? ["--no-sandbox"] : [])] });
const page = await browser.newPage({ viewport: { width: 800, height: 520 } });
const problems = [];
page.on("pageerror", error => problems.push(error.message));
page.on("request", request => request.url().startsWith(url) || /^(blob|data):/.test(request.url()) || problems.push(`asked for ${request.url()}`));
await page.goto(url);
await page.waitForSelector("body[data-state]");
if ((await page.getAttribute("body", "data-state")) !== "ready") problems.push(await page.textContent("#state"));

/** What the page says of a picture, and the sum of the pixels that it gave to the network. */
const classified = name => page.evaluate(async path => {
  const classifier = await window.classifier;
  const blob = await (await fetch(path)).blob();
  const { label, probability, macs } = await classifier.classify(blob);
  return { label, probability, macs, pixels: Array.from((await classifier.input(blob)).data) };
}, `model/pictures/${name}`);

const wrong = { label: 0, macs: 0 };
let furthest = 0;
let unlike = 0;
const begun = performance.now();
for (const each of problems.length ? [] : expected) {
  const found = await classified(each.picture);
  for (const name of Object.keys(wrong)) if (found[name] !== each[name]) wrong[name]++;
  furthest = Math.max(furthest, Math.abs(found.probability - each.probability));
  const pixels = readFileSync(join(folder, "pixels", `${each.picture}.bin`));
  if (found.pixels.some((value, index) => value !== pixels[index])) unlike++;
}
const seconds = (performance.now() - begun) / 1000;

if (!problems.length) {
  await page.setInputFiles("#file", join(folder, "pictures", expected[0].picture));
  await page.waitForSelector("#said .bar");
  const said = await page.textContent("#said");
  if (!said.startsWith(expected[0].name)) problems.push(`the page says ${said}`);
  await page.screenshot({ path: join(folder, "page.png") });
}
await browser.close();
server.close();

const n = expected.length;
console.log(`${n - wrong.label} of ${n} labels, ${n - wrong.macs} of ${n} costs are PyTorch's; probabilities differ by at most ${furthest.toExponential(1)}`);
console.log(`${n - unlike} of ${n} pictures became the same pixels; ${seconds.toFixed(1)} s in all`);
problems.forEach(problem => console.log(`problem: ${problem}`));
process.exit(problems.length || wrong.label || wrong.macs || !n ? 1 : 0);
