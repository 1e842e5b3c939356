/**
 * Sessions in memory: who has seen the page how often.
 *
 * The store is bounded, so that a load test cannot fill the memory.
 */
'use strict';

const { randomUUID } = require('node:crypto');
const { performance } = require('node:perf_hooks');

/** Name of the session cookie. The balancer knows it too: it pins a client to its node by it. */
const COOKIE = 'NODESESSID';

/** The session cookie's values in a Cookie header; clients may send more than one. */
function cookieValues(header) {
  return header
    .split(';')
    .map((pair) => pair.trim())
    .filter((pair) => pair.startsWith(`${COOKIE}=`))
    .map((pair) => pair.slice(COOKIE.length + 1));
}

/** The sessions of this node, the one idle for longest first. */
class Sessions {
  #sessions = new Map();
  #max;
  #idleMs;
  #now;

  /**
   * @param {object} [options]
   * @param {number} [options.max] how many are kept; the one idle for longest goes first
   * @param {number} [options.idleMs] how long an unused session is kept
   * @param {() => number} [options.now] the clock, in milliseconds
   */
  constructor({ max = 10_000, idleMs = 3_600_000, now = () => performance.now() } = {}) {
    this.#max = max;
    this.#idleMs = idleMs;
    this.#now = now;
  }

  /**
   * Counts one view for the session that a Cookie header names. Only ids that this node has
   * given out are accepted: any other value gets a new session, whose cookie must be set.
   *
   * @param {string} [cookieHeader]
   * @returns {{id: string, views: number, setCookie?: string}} `setCookie` for a new session
   */
  view(cookieHeader = '') {
    this.#dropExpired();
    const known = cookieValues(cookieHeader).find((value) => this.#sessions.has(value));
    const id = known ?? randomUUID();
    const views = (this.#sessions.get(id)?.views ?? 0) + 1;

    this.#sessions.delete(id); // and in again at the end: the order of the map is that of use
    this.#sessions.set(id, { views, seen: this.#now() });
    if (this.#sessions.size > this.#max) {
      this.#sessions.delete(this.#sessions.keys().next().value);
    }
    if (known) return { id, views };
    return { id, views, setCookie: `${COOKIE}=${id}; Path=/; HttpOnly; SameSite=Lax` };
  }

  #dropExpired() {
    for (const [id, { seen }] of this.#sessions) {
      if (this.#now() - seen < this.#idleMs) return;
      this.#sessions.delete(id);
    }
  }
}

module.exports = { Sessions };
