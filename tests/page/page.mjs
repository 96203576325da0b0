// The approval page in Chromium: read and decided with the keyboard alone, on phone and desktop, light and dark; hostile text harmless.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';
import { SECRET, planFor, startAgent, startRegistry, startService } from './registry.mjs';

const { chromium } = createRequire(path.join(process.env.NODE_PATH, 'page.js'))('playwright-core');
const SERVICE = 'mcp-bash-commander';
const pictures = process.env.SCREENSHOTS ?? fs.mkdtempSync('/tmp/page-pictures-');
fs.mkdirSync(pictures, { recursive: true });
const WIDTHS = { phone: { width: 390, height: 844 }, desktop: { width: 1280, height: 900 } };
const LARGEST_PAGE = 50 * 1024;
// 64 KiB, of which the defaults that the registry adds take a little.
const LARGEST_PLAN = 64 * 1024 - 256;
const LINE = '<style>*{display:none}</style> line after line, all of it\n';

// A step that never ends fails too.
setTimeout(() => { console.error('the approval page: not done after 4 minutes'); process.exit(1); }, 240_000).unref();

const registry = await startRegistry(process.argv[2]);
const closing = [() => registry.stop()];
try {
  await test();
  console.log(`the approval page: ok · pictures in ${pictures}`);
} finally {
  for (const close of closing.reverse()) await close();
}

async function test() {
  registry.enrol('ana');
  const added = JSON.parse(registry.command(['spec', 'add', 'specs/test-web-service.yaml', '--json']));
  const service = await startService(registry, SERVICE);
  closing.push(() => service.stop());
  const agent = await startAgent(registry, 'demo-agent');
  closing.push(() => agent.stop());
  await agent.call('agent_register', { description: 'serves web pages' });
  const { run } = await agent.call('run_request', { spec_id: 'test-web-service' });
  const claim = async () => (await agent.call('run_claim', { run_id: run.run_id })).run.epoch;
  let epoch = await claim();
  const submit = (plan) => agent.call('plan_submit', { run_id: run.run_id, epoch, plan });

  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--force-color-profile=srgb'],
  });
  closing.push(() => browser.close());
  const foreign = [];
  const context = await browser.newContext({ viewport: WIDTHS.desktop, colorScheme: 'light' });
  await context.route('**', (route) => {
    if (!route.request().url().startsWith(registry.page)) foreign.push(route.request().url());
    return route.continue();
  });
  const page = await context.newPage();
  const faults = [];
  page.on('dialog', (dialog) => { faults.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on('pageerror', (error) => faults.push(String(error)));

  // Signing in, with the keyboard alone.
  const content = '<!doctype html>\n<html lang="en">\n<title>It works</title>\n<h1>It works</h1>\n';
  await submit(planFor(added.digest, { content, server: SERVICE }));
  await page.goto(registry.page);
  await picture(page, 'sign-in');
  await page.keyboard.type('ana');
  await page.keyboard.press('Tab');
  await page.keyboard.type(SECRET);
  await Promise.all([page.waitForNavigation(), page.keyboard.press('Enter')]);
  assert.match(await page.textContent('h1'), /1 checkpoint waits/);
  await picture(page, 'queue');

  // Reading a plan; its page is small.
  await open(page);
  await picture(page, 'v1-first');
  const html = await page.content();
  const style = await (await page.request.get(`${registry.page}/style.css`)).text();
  const size = Buffer.byteLength(html) + Buffer.byteLength(style);
  assert.ok(size < LARGEST_PAGE, `the page has ${size} bytes`);
  console.log(`page ${Buffer.byteLength(html)} bytes, style ${Buffer.byteLength(style)} bytes`);
  await narrow(page);

  // Enter in a field decides nothing; a no without a reason says what is missing.
  const typed = await code(page);
  await reach(page, '#code');
  await page.keyboard.type(typed);
  await page.keyboard.press('Enter');
  assert.match(page.url(), /\/c\/[0-9A-Z]{6}$/);
  await decideByKeyboard(page, 'Reject revision 1', { reason: '' });
  assert.match(await page.textContent('[role=alert]'), /needs a reason/);
  await picture(page, 'v1-error', ['desktop', 'phone']);
  await decideByKeyboard(page, 'Reject revision 1', { reason: 'Bind to loopback only.' });
  assert.match(await page.textContent('h1'), /rejected/);

  // A hostile plan is shown whole, and does nothing.
  epoch = (await agent.call('run_get', { run_id: run.run_id })).run?.epoch ?? epoch;
  const hostile = '</p><script>document.title="pwned";alert(1)</script><img src="http://127.0.0.1:9/x.png" onerror="alert(2)">'
    + '<form action="http://127.0.0.1:9/"><button>ok</button></form>\u202egnp.exe\u200b\u001b[2J\u001b[1;1HAPPROVED \u0440\u0430ypal ';
  const hostilePlan = (lines) => planFor(added.digest, { content: LINE.repeat(lines), server: SERVICE, note: hostile.repeat(20) });
  const bytes = (plan) => Buffer.byteLength(JSON.stringify(plan));
  const lines = Math.floor((LARGEST_PLAN - bytes(hostilePlan(0))) / (bytes(hostilePlan(1)) - bytes(hostilePlan(0))));
  const largest = hostilePlan(lines);
  assert.ok(bytes(largest) > LARGEST_PLAN - 100, `the largest plan has only ${bytes(largest)} bytes`);
  const long = LINE.repeat(lines);
  await submit(largest);
  await page.goto(registry.page);
  await open(page);
  await picture(page, 'v1-hostile');
  assert.notEqual(await page.title(), 'pwned');
  assert.equal(await page.locator('script, img, iframe, form[action^="http"]').count(), 0);
  const text = await page.evaluate(() => document.body.textContent);
  assert.ok(text.includes(long), 'the content is cut');
  assert.equal(text.split('alert(1)</script>').length - 1 >= 20, true, 'the assumption is cut');
  assert.ok(text.includes('⟦U+202E RIGHT-TO-LEFT OVERRIDE⟧gnp.exe⟦U+200B ZERO WIDTH SPACE⟧⟦U+001B ESCAPE⟧'));
  assert.ok(!/[\u202e\u200b\u001b]/.test(text), 'an invisible character is left');
  await narrow(page);

  // The same on a terminal: whole, without a control character, the code at its very end.
  const shown = registry.command(['show', page.url().slice(-6)]);
  fs.writeFileSync(path.join(pictures, 'show.txt'), shown);
  assert.ok(!/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202e\u200b]/.test(shown), 'a control character reaches the terminal');
  assert.ok(shown.split('line after line, all of it').length > 2 * lines, 'the content is cut');
  assert.ok(shown.trimEnd().endsWith(await code(page)), 'the code is not at the end');

  // Superseded while it is open: the decision is refused and the way on is shown.
  const other = await page.context().newPage();
  await other.goto(page.url());
  await submit(planFor(added.digest, { content, server: SERVICE, note: 'Bound to loopback, as asked.' }));
  await decideByKeyboard(other, 'Approve revision 2', { reason: '' });
  assert.match(await other.textContent('h1'), /changed while your page was open/);
  await picture(other, 'superseded', ['desktop', 'phone']);
  await other.close();

  // What changed stands first; approve.
  await page.goto(registry.page);
  await open(page);
  await picture(page, 'v1-changed');
  await decideByKeyboard(page, 'Approve revision 3', { reason: 'Loopback only, as asked.' });
  await picture(page, 'receipt', ['desktop', 'phone']);

  // Generate and Validate: the same page with evidence.
  const begun = await agent.call('execution_begin', { run_id: run.run_id, epoch });
  const grant = (step) => begun.steps.find((one) => one.step === step).grant;
  await service.act(grant('s1'), 'demo-agent', 'write_file', { path: 'site/index.html', content, }, { artefacts: [] });
  await service.act(grant('s2'), 'demo-agent', 'exec', { command: 'while :; do python3 -m http.server 80 -d site; done', publish: [80], wait: 'none' },
    { session: 'x1', published: [{ port: 80, address: service.address }] });
  await agent.call('generation_complete', { run_id: run.run_id, epoch, report: 'Wrote one file and started the server; it answers.' });
  const waits = async () => JSON.parse(registry.command(['queue', '--json'])).checkpoints[0];
  let v2;
  for (const deadline = Date.now() + 60_000; !(v2 = await waits()) && Date.now() < deadline;) await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(v2?.kind, 'V2', 'the registry did not ask for V2');
  await page.goto(registry.page);
  await open(page);
  await picture(page, 'v2');
  await narrow(page);
  const unknown = await page.locator('input[name=accept_unknown]').count();
  for (let box = 0; box < unknown; box++) {
    await reach(page, 'input[name=accept_unknown]:not(:checked)');
    await page.keyboard.press('Space');
  }
  await decideByKeyboard(page, 'Accept the outcome', { reason: 'It works.' });
  assert.match(await page.textContent('h1'), /approved/);
  await page.goto(`${registry.page}/history`);
  assert.equal(await page.locator('.cards > li').count(), 3);
  await picture(page, 'history');
  await page.goto(`${registry.page}/run/${run.run_id}`);
  await picture(page, 'run');

  // The same decision on the command line; a wrong code decides nothing.
  const next = (await agent.call('run_request', { spec_id: 'test-web-service', environment: 'other' })).run.run_id;
  const claimed = (await agent.call('run_claim', { run_id: next })).run.epoch;
  await agent.call('plan_submit', { run_id: next, epoch: claimed, plan: planFor(added.digest, { content, server: SERVICE }) });
  const { checkpoint_id: id } = await waits();
  const view = JSON.parse(registry.command(['show', id, '--json']));
  const decide = (typed) => registry.command(['approve', id, '--code', typed, '--secret-fd', '0', '--json'], `${SECRET}\n`);
  assert.throws(() => decide('000000'), /CODE_WRONG/);
  const receipt = JSON.parse(decide(view.code));
  assert.deepEqual([receipt.decision.verdict, receipt.run_state], ['approve', 'approved']);

  assert.deepEqual(foreign, [], 'a request left the page');
  assert.deepEqual(faults, [], 'something ran');
}

// From the queue to its first checkpoint.
async function open(page) {
  await reach(page, '.cards a');
  await Promise.all([page.waitForNavigation(), page.keyboard.press('Enter')]);
}

async function code(page) {
  return (await page.textContent('strong.code')).trim();
}

// Reason, code, secret and the button, reached and pressed with the keyboard.
async function decideByKeyboard(page, button, { reason }) {
  const typed = await code(page);
  await reach(page, '#reason');
  await page.keyboard.press('ControlOrMeta+a');
  if (reason) await page.keyboard.type(reason); else await page.keyboard.press('Delete');
  await reach(page, '#code');
  await page.keyboard.press('ControlOrMeta+a');
  await page.keyboard.type(typed.toLowerCase());
  await reach(page, '#secret');
  await page.keyboard.type(SECRET);
  for (let presses = 0; presses < 5; presses++) {
    await page.keyboard.press('Tab');
    if (await page.evaluate((name) => document.activeElement.textContent.includes(name), button)) {
      await Promise.all([page.waitForNavigation(), page.keyboard.press('Enter')]);
      return;
    }
  }
  assert.fail(`Tab does not reach "${button}"`);
}

// Tab by Tab, as somebody without a mouse gets there; behind the last element it begins anew.
async function reach(page, selector) {
  for (let presses = 0; presses < 100; presses++) {
    if (await page.evaluate((wanted) => document.activeElement.matches(wanted), selector)) return;
    await page.keyboard.press('Tab');
  }
  assert.fail(`Tab does not reach ${selector}`);
}

// On a phone nothing is wider than the screen.
async function narrow(page) {
  await page.setViewportSize(WIDTHS.phone);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(wide <= 0, `the page is ${wide} px wider than a phone`);
  await page.setViewportSize(WIDTHS.desktop);
}

async function picture(page, name, only = Object.keys(WIDTHS)) {
  for (const width of only) {
    await page.setViewportSize(WIDTHS[width]);
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme });
      await page.screenshot({ path: path.join(pictures, `${name}-${width}-${colorScheme}.png`), fullPage: true });
    }
  }
  await page.emulateMedia({ colorScheme: 'light' });
  await page.setViewportSize(WIDTHS.desktop);
}
