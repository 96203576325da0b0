// A real registry in a folder of its own, an agent that speaks MCP to it, and a service that says what a shell would say.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';

export const SECRET = 'four unrelated words here';
export const sha256 = (text) => `sha256:${createHash('sha256').update(text).digest('hex')}`;

export async function startRegistry(program) {
  const home = fs.mkdtempSync(path.join(os.tmpdir(), 'page-test-'));
  const state = path.join(home, 'state');
  const base = ['--state-dir', state, '--socket-dir', path.join(home, 's')];
  const child = spawn(program, ['serve', ...base], { stdio: ['ignore', 'ignore', 'pipe'] });
  const lines = readline.createInterface({ input: child.stderr });
  const log = [];
  const serving = await new Promise((resolve, reject) => {
    lines.on('line', (line) => {
      log.push(line);
      try {
        const event = JSON.parse(line);
        if (event.approval_page) resolve(event);
      } catch { /* not every line is an event */ }
    });
    child.on('exit', (code) => reject(new Error(`the registry ended with ${code}:\n${log.join('\n')}`)));
  });
  const command = (args, input) => {
    const done = spawnSync(program, [...args, ...base], { input, encoding: 'utf8' });
    if (done.status !== 0) throw new Error(`${args.join(' ')}: ${done.stderr}`);
    return done.stdout;
  };
  return {
    home, serving, command, base, program,
    page: serving.approval_page,
    enrol: (name) => command(['enrol', '--name', name, '--test', '--secret-fd', '0'], `${SECRET}\n`),
    async stop() {
      child.removeAllListeners('exit');
      const ended = new Promise((resolve) => child.on('exit', resolve));
      child.kill('SIGTERM');
      await ended;
      fs.rmSync(home, { recursive: true, force: true });
    },
  };
}

// An MCP client over the pipe.
export async function startAgent(registry, name) {
  const child = spawn(registry.program, ['stdio', '--agent', name, ...registry.base], { stdio: ['pipe', 'pipe', 'inherit'] });
  const waiting = new Map();
  readline.createInterface({ input: child.stdout }).on('line', (line) => {
    const message = JSON.parse(line);
    waiting.get(message.id)?.(message);
    waiting.delete(message.id);
  });
  let next = 1;
  const send = (message) => child.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);
  const request = (method, params) => new Promise((resolve, reject) => {
    const id = next++;
    waiting.set(id, (answer) => (answer.error ? reject(new Error(JSON.stringify(answer.error))) : resolve(answer.result)));
    send({ id, method, params });
  });
  await request('initialize', { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'page-test', version: '1' } });
  send({ method: 'notifications/initialized' });
  return {
    async call(tool, args) {
      const result = await request('tools/call', { name: tool, arguments: args });
      if (result.isError) throw new Error(`${tool}: ${JSON.stringify(result.content)}`);
      return result.structuredContent;
    },
    stop: () => child.stdin.end(),
  };
}

// What a shell server would say on the effect plane: two tools, and measurements of a session that it does not have.
export async function startService(registry, name) {
  const file = path.join(registry.home, 'service.toml');
  registry.command(['token', 'add', '--kind', 'service', '--name', name, '--server', name, '--out', file]);
  const token = /token = "([^"]+)"/.exec(fs.readFileSync(file, 'utf8'))[1];
  let stopped = false;
  const post = (method, route, body) => new Promise((resolve, reject) => {
    const options = { socketPath: registry.serving.effect_socket, path: route, method, agent: false,
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', host: 'registry' } };
    const request = http.request(options, (answer) => {
      let text = '';
      answer.on('data', (chunk) => (text += chunk));
      answer.on('end', () => (answer.statusCode < 300 ? resolve(text ? JSON.parse(text) : null) : reject(new Error(`${route}: ${text}`))));
    });
    request.on('error', reject);
    request.end(body === undefined ? undefined : JSON.stringify(body));
  });
  const schema = { type: 'object', properties: {
    path: { type: 'string' }, content: { type: 'string' }, command: { type: 'string' },
    publish: { type: 'array', items: { type: 'integer' }, default: [] }, wait: { type: 'string', default: 'exit' } } };
  const tools = [{ tool: 'write_file', class: 'write', schema }, { tool: 'exec', class: 'irreversible', schema }];
  await post('POST', '/v1/hello', { instance: 'page-test', version: '1', tools });
  const site = http.createServer((request, answer) => {
    answer.setHeader('content-type', 'text/html');
    answer.end('<!doctype html><title>It works</title>');
  });
  await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve));
  let measured = 0;
  const answer = (order) => {
    if (order.kind !== 'measure_session') return { kind: 'ended_processes', count: 1 };
    measured += 1;
    return { kind: 'session', alive: true, identity: 'pid 7, start 1', memory_bytes: 19_922_944, uids: [65534], processes: 2 };
  };
  const work = (async () => {
    while (!stopped) {
      const order = await post('GET', '/v1/work?instance=page-test').catch(() => null);
      if (order) await post('POST', `/v1/work/${order.id}`, answer(order.order)).catch(() => {});
    }
  })();
  let seq = 0;
  return {
    async act(grant, principal, tool, args, left) {
      const values = Object.fromEntries(Object.entries(args).map(([key, value]) => [key, { value }]));
      const { action_id } = await post('POST', '/v1/actions/begin', { instance: 'page-test', seq: ++seq, grant, principal, tool, arguments: values, idempotency_key: `k${seq}` });
      await post('POST', '/v1/actions/end', { instance: 'page-test', seq: ++seq, action_id, outcome: 'ok', result_sha256: sha256('done'), ...left });
    },
    address: `127.0.0.1:${site.address().port}`,
    async stop() {
      stopped = true;
      site.close();
      return work;
    },
  };
}

// A plan for specs/test-web-service.yaml.
export function planFor(digest, { content, server, note, samples = 20 }) {
  const human = (criterion, why) => ({ criterion, why });
  return {
    spec_digest: digest,
    steps: [
      { id: 's1', server, tool: 'write_file', reversibility: 'reversible', rollback: 'Delete site/index.html; the folder was empty before.',
        arguments: { path: { exact: 'site/index.html' }, content: { sha256: sha256(content), shown: content } } },
      { id: 's2', server, tool: 'exec', reversibility: 'irreversible', rollback: 'Stop the session. What clients have fetched cannot be taken back.',
        arguments: { command: { exact: 'while :; do python3 -m http.server 80 -d site; done' }, publish: { exact: [80] }, wait: { exact: 'none' } },
        inputs: [{ path: 'site/index.html', sha256: sha256(content) }], lifetime: 'run', after: ['s1'] },
    ],
    tests: [
      { criterion: 'performance/page-load-time', check: { http: { target: 's2:80', path: '/', samples } } },
      { criterion: 'performance/uptime', check: { http: { target: 's2:80', path: '/', samples } } },
      { criterion: 'performance/automatic-restart-on-failure', check: { restart: { target: 's2:80', path: '/', within_ms: 5000 } } },
      { criterion: 'functionality/serves-static-html-content', check: { http: { target: 's2:80', expect: { status: 200, headers: { 'content-type': 'text/html' } } } } },
      { criterion: 'functionality/responsive-to-health-checks', check: { http: { target: 's2:80', expect: { status: 200 } } } },
      { criterion: 'functionality/accessible-on-port-80', check: { tcp: { target: 's2:80' } } },
      { criterion: 'constraints/resource-usage', check: { session: { step: 's2', measure: 'memory' } } },
      { criterion: 'constraints/non-root-execution-required', check: { session: { step: 's2', measure: 'not_root' } } },
    ],
    human_judges: [human('constraints/container-based-deployment', 'The jail is a container in all but name: own user, mount, pid and network namespaces. Whether that counts is yours to say.')],
    assumptions: ['python3 is part of the system image.', note].filter(Boolean),
    alternatives: ['nginx: faster under load, but it needs a package that this machine does not have.', 'busybox httpd: smaller, but it sends no content type for .svg.'],
    rollback: 'Stop the session and delete the folder site; nothing else was touched.',
  };
}
