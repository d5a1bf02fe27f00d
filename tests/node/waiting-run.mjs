// Opens a page of Temporal's Web UI in headless Chromium and waits until a text stands on it.
//
//   node waiting-run.mjs URL TEXT SCREENSHOT.png [TAB]
//
// TAB is the tab of a workflow's page to look at, `User Metadata` or `History`.
//
// Exit code 0 and {"found":true,...} on stdout if the text appeared within the deadline; 1 otherwise. The screenshot
// is written in both cases. MANDATE_CHROMIUM names the browser. Waits for text, never for an idle network: the Web
// UI keeps long polls open.
//
// `shown` is what the frames made of Markdown: headings, code blocks, the text beside these, and what foreign text must
// not become: links, images, scripts and frames. `elsewhere` is what was asked of other servers, `dialogs` what popped
// up.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import puppeteer from "puppeteer-core";

const DEADLINE_MS = 60_000;
const POLL_MS = 250;
const [url, text, screenshot, tabName = "User Metadata"] = process.argv.slice(2);
const executablePath = process.env.MANDATE_CHROMIUM;
if (!url || !text || !screenshot || !executablePath) {
  console.error("usage: MANDATE_CHROMIUM=PROGRAM node waiting-run.mjs URL TEXT SCREENSHOT.png [TAB]");
  process.exit(2);
}

/** What a frame shows. Runs in the page. */
function look() {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const beside = document.body.cloneNode(true);
  for (const code of beside.querySelectorAll("pre")) code.remove();
  return {
    headings: all("h1, h2, h3, h4, h5, h6").map((heading) => heading.textContent.trim()),
    code: all("pre").map((code) => code.textContent),
    beside: beside.textContent,
    links: all("a, area, form").map((link) => link.outerHTML),
    images: all("img, picture, svg image, video, audio, object, embed").map((image) => image.outerHTML),
    scripts: all("script").map((script) => script.outerHTML),
    frames: all("iframe, frame").map((frame) => frame.outerHTML),
  };
}

/** Goes to the tab and reads every frame of the page once: whether the text stands on it, what Markdown became, the title. */
async function round(page) {
  // A tab's text ends in a count, as in "History 38".
  await page.evaluate((name) => {
    const place = `/${name.toLowerCase().replace(" ", "-")}`;
    const tab = [...document.querySelectorAll("a, button")].find((tab) => tab.textContent.trim().startsWith(name));
    if (tab && !location.pathname.endsWith(place)) tab.click();
  }, tabName);
  let stands = false;
  const rendered = [];
  for (const frame of page.frames()) {
    stands ||= await frame.evaluate((text) => document.body?.textContent.includes(text) ?? false, text);
    // Summary, details and current details are rendered as Markdown in frames of their own.
    if (new URL(frame.url()).pathname === "/render") rendered.push(await frame.evaluate(look));
  }
  return [stands, rendered, await page.title()];
}

const profile = await mkdtemp(join(tmpdir(), "mandate-browser-"));
let browser;
let found = false;
let problem;
let title;
let shown = [];
const elsewhere = new Set();
const dialogs = [];
try {
  browser = await puppeteer.launch({
    executablePath,
    userDataDir: profile,
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-sync", "--no-first-run"],
  });
  const page = await browser.newPage();
  await page.setViewport({ width: 1400, height: 2000 });
  page.on("request", (request) => {
    const asked = new URL(request.url());
    if (asked.protocol !== "data:" && asked.origin !== new URL(url).origin) elsewhere.add(asked.href);
  });
  page.on("dialog", async (dialog) => {
    dialogs.push(dialog.message());
    await dialog.dismiss();
  });
  await page.goto(url, { waitUntil: "domcontentloaded", timeout: DEADLINE_MS });
  const deadline = Date.now() + DEADLINE_MS;
  while (!found && Date.now() < deadline) {
    try {
      [found, shown, title] = await round(page);
      problem = "the text did not appear";
    } catch (error) {
      // The page replaced a frame while it was read; the next round reads its successor.
      problem = error.message;
    }
    if (!found) await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  if (found) problem = undefined;
  await page.screenshot({ path: screenshot });
} catch (error) {
  problem = error.message;
} finally {
  await browser?.close();
  await rm(profile, { recursive: true, force: true, maxRetries: 5 });
}
const seen = { shown, elsewhere: [...elsewhere], dialogs, title };
console.log(JSON.stringify({ found, url, text, screenshot, ...seen, ...(problem && { problem }) }));
process.exitCode = found ? 0 : 1;
