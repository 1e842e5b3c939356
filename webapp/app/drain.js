/**
 * Ends a server without losing a request.
 *
 * The balancer learns that this node leaves 0.1 s to 1.6 s after the signal, and goes on sending
 * requests until then. So there are three steps:
 *
 * 1. Go on accepting, and answer everything with `Connection: close`. Idle connections are left
 *    alone: a request may be on its way on each of them.
 * 2. When requests have stopped coming, close the listener. What is running goes on to its end;
 *    connections that stay idle are closed.
 * 3. When the time is over, cut what is left.
 */
'use strict';

const net = require('node:net');
const { performance } = require('node:perf_hooks');

const OPEN_MS = 2000; // the listener stays open for at least this long,
const QUIET_MS = 1000; // and until no request has come for this long,
const OPEN_SHARE = 0.5; // but at most for this share of the time to drain
const IDLE_MS = 1000; // with the listener closed, a connection may be idle for this long
const GOODBYE_MS = 250; // for the close frames of websockets to get through
const TICK_MS = 50;
const SHORT_TURN_MS = 0.05; // a turn of the event loop in which nothing happened

/** Watches the connections of a server from its start, and drains it when told to. */
class Drain {
  #server;
  #isProbe;
  // Each open socket: how many requests run on it, since when none does, was the last one a probe.
  #connections = new Map();
  #responses = new Set();
  #accepted = 0;
  #lastRequest = -Infinity;
  #draining = false;

  /**
   * @param {import('node:http').Server} server has no other listeners yet
   * @param {(req: import('node:http').IncomingMessage) => boolean} isProbe tells health checks,
   *   which keep neither the listener open nor the process alive
   */
  constructor(server, isProbe) {
    this.#server = server;
    this.#isProbe = isProbe;
    server.on('connection', (socket) => this.#onConnection(socket));
    server.on('request', (req, res) => this.#onRequest(req, res));
    server.on('upgrade', (req) => this.#onWork(req)); // runs until its connection closes
  }

  /**
   * Drains the server. To be called once.
   *
   * @param {number} timeoutMs how long running work may go on
   * @param {() => void} sayGoodbye called when the time is over, before connections are cut
   * @returns {Promise<void>} resolves when the last connection is closed
   */
  run(timeoutMs, sayGoodbye) {
    const began = performance.now();
    let step = 1;
    this.#draining = true;
    for (const res of this.#responses) this.#announceClose(res);

    const tick = () => {
      const now = performance.now();
      const age = now - began;
      const quiet = age >= OPEN_MS && now - this.#lastRequest >= QUIET_MS;
      if (step === 1 && (quiet || age >= timeoutMs * OPEN_SHARE)) {
        step = 2;
        this.#closeListener();
      }
      if (step === 2 && age >= timeoutMs) {
        step = 3;
        sayGoodbye();
      }
      if (step >= 2) this.#closeIdle(now);
      if (step === 3 && age >= timeoutMs + GOODBYE_MS) this.#closeAll();
    };
    return new Promise((resolve) => {
      const timer = setInterval(tick, TICK_MS);
      this.#server.once('close', () => {
        clearInterval(timer);
        resolve();
      });
    });
  }

  #onConnection(socket) {
    this.#accepted += 1;
    this.#connections.set(socket, { running: 0, idleSince: performance.now(), probe: false });
    socket.once('close', () => this.#connections.delete(socket));
  }

  #onRequest(req, res) {
    const connection = this.#onWork(req);
    this.#responses.add(res);
    if (this.#draining) this.#announceClose(res);
    res.once('close', () => {
      this.#responses.delete(res);
      connection.running -= 1;
      connection.idleSince = performance.now();
    });
  }

  /** Notes a request; returns its connection. */
  #onWork(req) {
    const connection = this.#connections.get(req.socket);
    connection.running += 1;
    connection.probe = this.#isProbe(req);
    if (!connection.probe) this.#lastRequest = performance.now();
    return connection;
  }

  #announceClose(res) {
    if (!res.headersSent) res.setHeader('Connection', 'close');
  }

  /**
   * Closes the listener. The kernel resets the connections that wait there to be accepted, so this
   * looks for a turn of the event loop that found none and was short. Not http's own `close`: it
   * destroys idle connections at once.
   */
  #closeListener(turns = 200) {
    const accepted = this.#accepted;
    const began = performance.now();
    setImmediate(() => {
      const nobodyWaits = this.#accepted === accepted && performance.now() - began < SHORT_TURN_MS;
      if (nobodyWaits || turns === 0) net.Server.prototype.close.call(this.#server);
      else this.#closeListener(turns - 1);
    });
  }

  #closeIdle(now) {
    for (const [socket, { running, idleSince, probe }] of this.#connections) {
      if (running === 0 && (probe || now - idleSince >= IDLE_MS)) socket.destroy();
    }
  }

  #closeAll() {
    for (const socket of this.#connections.keys()) socket.destroy();
  }
}

module.exports = { Drain };
