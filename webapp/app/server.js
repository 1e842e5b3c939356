/**
 * Start-up, signals and exit of the sample web application.
 *
 * Environment: PORT (3000), DRAIN_TIMEOUT (8, seconds), TAG (see identity.js).
 * Exit codes: 0 drained, 1 failed, 2 invalid environment, 128 + signal number
 * when a second signal ends the drain.
 */
'use strict';

const http = require('node:http');
const os = require('node:os');
const { describeNode } = require('./identity.js');
const { Sessions } = require('./sessions.js');
const { createRoutes } = require('./routes.js');
const { attachEcho } = require('./websocket.js');
const { Drain } = require('./drain.js');

// The balancer keeps idle connections to its servers for seconds; a node that closes one first
// may close it at the moment a request arrives. So the balancer must be the one who closes.
const SERVER_OPTIONS = { keepAliveTimeout: 65_000, headersTimeout: 66_000 };

/** Prints one line on stderr and exits. */
function fail(message, code) {
  console.error(`webapp: ${message}`);
  process.exit(code);
}

/** Reads a whole number from the environment; an empty value counts as not set. */
function readNumber(name, fallback, max) {
  const text = process.env[name] || String(fallback);
  if (!/^[0-9]{1,5}$/.test(text) || Number(text) > max) {
    fail(`${name}: must be a whole number from 0 to ${max}, not ${JSON.stringify(text)}`, 2);
  }
  return Number(text);
}

async function main() {
  const port = readNumber('PORT', 3000, 65_535);
  const drainSeconds = readNumber('DRAIN_TIMEOUT', 8, 86_400);
  const node = await describeNode(process.env);

  const server = http.createServer(SERVER_OPTIONS);
  const drain = new Drain(server, (req) => req.url === '/health');
  server.on('request', createRoutes(node, new Sessions()));
  const echo = attachEcho(server);

  let stopping = false;
  async function stop(signal) {
    if (stopping) process.exit(128 + os.constants.signals[signal]);
    stopping = true;
    console.log(`webapp: ${signal}: draining, for ${drainSeconds} s at most`);
    await drain.run(drainSeconds * 1000, () => echo.closeAll());
    console.log('webapp: drained');
    process.exit(0);
  }

  const cannotListen = (error) => {
    fail(error.code === 'EADDRINUSE' ? `port ${port} is taken` : error.message, 1);
  };
  server.once('error', cannotListen);
  server.listen(port, () => {
    server.off('error', cannotListen);
    server.on('error', (error) => console.error(`webapp: ${error.message}`)); // of one accept
    process.on('SIGTERM', stop);
    process.on('SIGINT', stop);
    console.log(`webapp: ${node.tag} (${node.ip}) listens on port ${server.address().port}`);
  });
}

main();
