/**
 * What the tests share: the server as a child process, requests to it, and polling.
 */
'use strict';

const { spawn } = require('node:child_process');
const { once } = require('node:events');
const http = require('node:http');
const path = require('node:path');
const { after } = require('node:test');
const { setTimeout: sleep } = require('node:timers/promises');

const SERVER = path.join(__dirname, '..', 'server.js');
const DEADLINE_MS = 30_000;

/** Every server that a test file starts; none outlives the file's tests. */
const servers = [];
after(() => servers.forEach((server) => server.child.kill('SIGKILL')));

/** The server as a child process. */
class ServerProcess {
  constructor(env) {
    servers.push(this);
    const base = { PATH: process.env.PATH, PORT: '0', TAG: 'test' };
    this.child = spawn(process.execPath, [SERVER], { env: { ...base, ...env } });
    this.stdout = '';
    this.stderr = '';
    this.child.stdout.on('data', (data) => (this.stdout += data));
    this.child.stderr.on('data', (data) => (this.stderr += data));
    this.child.on('close', (code, signal) => (this.end = { status: code ?? signal }));
  }

  get port() {
    return Number(/listens on port (\d+)/.exec(this.stdout)?.[1]);
  }

  /** Waits until the server has ended; gives its exit code, or the signal that killed it. */
  async exit() {
    return (await until('the server has ended', () => this.end)).status;
  }

  /** Sends a signal and waits until the server has taken it. */
  async signal(name) {
    this.child.kill(name);
    await until(`draining after ${name}`, () => this.stdout.includes(`${name}: draining`));
  }
}

/** Starts a server; resolves when it listens. */
async function startServer(env) {
  const server = new ServerProcess(env);
  await until('the server listens', () => server.port);
  return server;
}

/** Polls until `check` gives something true, and returns that; fails after a deadline. */
async function until(what, check) {
  const deadline = Date.now() + DEADLINE_MS;
  while (Date.now() < deadline) {
    const result = await check();
    if (result) return result;
    await sleep(10);
  }
  throw new Error(`not so within ${DEADLINE_MS} ms: ${what}`);
}

/** Sends a request; resolves with status, headers and the whole body. */
async function request(port, target, { body, ...options } = {}) {
  const signal = AbortSignal.timeout(DEADLINE_MS);
  const req = http.request({ host: '127.0.0.1', port, path: target, signal, ...options });
  req.end(body);
  const [res] = await once(req, 'response');
  let text = '';
  for await (const chunk of res) text += chunk;
  return {
    status: res.statusCode,
    headers: res.headers,
    text,
    json: () => JSON.parse(text),
  };
}

/** Whether new connections are refused. */
function isRefused(port) {
  return request(port, '/health', { agent: false }).then(
    () => false,
    (error) => error.code === 'ECONNREFUSED',
  );
}

/** Polls until new connections are refused. */
function untilRefused(port) {
  return until('the listener is closed', () => isRefused(port));
}

module.exports = { ServerProcess, isRefused, request, startServer, until, untilRefused };
