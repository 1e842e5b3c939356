/**
 * What the application answers, by path and method. Nothing that a client sent is ever repeated
 * in an answer.
 */
'use strict';

const MAX_BODY_BYTES = 1024;
const MAX_DELAY_MS = 60_000;
const MAX_SLOW_SECONDS = 600;

/** The request is at fault; the message goes to the client. */
class BadRequest extends Error {}

function sendJson(res, status, value, headers = {}) {
  const body = `${JSON.stringify(value)}\n`;
  res.writeHead(status, {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(body),
    'Cache-Control': 'no-store',
    ...headers,
  });
  res.end(body);
}

/** Reads a small body. What is too much is read and thrown away, so that the answer gets through. */
function readBody(req) {
  return new Promise((resolve, reject) => {
    const chunks = [];
    let size = 0;
    req.on('data', (chunk) => {
      size += chunk.length;
      if (size <= MAX_BODY_BYTES) chunks.push(chunk);
      else reject(new BadRequest(`the body must not be longer than ${MAX_BODY_BYTES} bytes`));
    });
    req.on('end', () => resolve(Buffer.concat(chunks).toString()));
    req.on('error', () => reject(new BadRequest('the body ended early')));
  });
}

/** The delay that the body of `POST /delay` asks for, in milliseconds. */
function parseDelay(body) {
  let delay;
  try {
    delay = JSON.parse(body)?.delay;
  } catch {
    throw new BadRequest('the body is not JSON; expected {"delay": milliseconds}');
  }
  if (!Number.isInteger(delay) || delay < 0 || delay > MAX_DELAY_MS) {
    throw new BadRequest(`"delay" must be a whole number from 0 to ${MAX_DELAY_MS} (milliseconds)`);
  }
  return delay;
}

/** `GET /slow?seconds=N`: a line a second, to show what becomes of a running download. */
function slow(req, res, query) {
  const text = query.get('seconds') ?? '';
  const seconds = /^[0-9]{1,3}$/.test(text) ? Number(text) : 0;
  if (seconds < 1 || seconds > MAX_SLOW_SECONDS) {
    throw new BadRequest(`"seconds" must be a whole number from 1 to ${MAX_SLOW_SECONDS}`);
  }
  res.writeHead(200, { 'Content-Type': 'text/plain', 'Cache-Control': 'no-store' });
  if (req.method === 'HEAD') return res.end();
  res.flushHeaders();
  let second = 0;
  const timer = setInterval(() => {
    second += 1;
    res.write(`${second} of ${seconds}\n`);
    if (second === seconds) res.end();
  }, 1000);
  res.once('close', () => clearInterval(timer));
}

/**
 * Makes the application's request handler.
 *
 * @param {{ip: string, host: string, tag: string}} node this node
 * @param {import('./sessions.js').Sessions} sessions
 * @returns {import('node:http').RequestListener}
 */
function createRoutes(node, sessions) {
  let delayMs = 0;

  function answerRoot(req, res) {
    const { id, views, setCookie } = sessions.view(req.headers.cookie);
    const body = { hello: 'world!', ...node, sessionViews: views, id };
    sendJson(res, 200, body, setCookie && { 'Set-Cookie': setCookie });
  }

  function root(req, res) {
    if (delayMs === 0) return answerRoot(req, res);
    const timer = setTimeout(answerRoot, delayMs, req, res);
    res.once('close', () => clearTimeout(timer));
  }

  async function setDelay(req, res) {
    if (!/^application\/json\s*(;|$)/i.test(req.headers['content-type'] ?? '')) {
      throw new BadRequest('the header "Content-Type: application/json" is missing');
    }
    delayMs = parseDelay(await readBody(req));
    sendJson(res, 200, { delay: delayMs });
  }

  // 200 also while draining: the balancer takes the node out when the cluster tells it so. A
  // failing check would say the same again, later, and could be taken for a dead node, whose
  // connections may be cut.
  function health(req, res) {
    sendJson(res, 200, { status: 'ok' });
  }

  // A websocket handshake does not come here (see websocket.js).
  function plainWs(req, res) {
    sendJson(res, 426, { error: 'this path speaks websocket only' }, { Upgrade: 'websocket' });
  }

  const routes = new Map([
    ['/', { method: 'GET', handle: root }],
    ['/delay', { method: 'POST', handle: setDelay }],
    ['/health', { method: 'GET', handle: health }],
    ['/slow', { method: 'GET', handle: slow }],
    ['/ws', { method: 'GET', handle: plainWs }],
  ]);

  function dispatch(req, res) {
    const [path] = req.url.split('?', 1);
    const route = routes.get(path);
    if (!route) return sendJson(res, 404, { error: 'no such path' });
    const allowed = route.method === 'GET' ? ['GET', 'HEAD'] : [route.method];
    if (!allowed.includes(req.method)) {
      return sendJson(res, 405, { error: 'method not allowed' }, { Allow: allowed.join(', ') });
    }
    return route.handle(req, res, new URLSearchParams(req.url.slice(path.length)));
  }

  return async function onRequest(req, res) {
    res.setHeader('x-backend-ip', node.ip);
    try {
      await dispatch(req, res);
    } catch (error) {
      if (error instanceof BadRequest) return sendJson(res, 400, { error: error.message });
      console.error(`webapp: request failed: ${error.stack}`);
      if (res.headersSent) return res.destroy();
      sendJson(res, 500, { error: 'internal error' });
    }
  };
}

module.exports = { createRoutes };
