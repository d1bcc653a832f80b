#!/usr/bin/env node
// A user agent and its application server on what comes with Node (18 or newer), to test a push
// service with. It was written from the RFCs alone (8030 for the protocol, 8288 for links, 7240
// for Prefer) and shares no code with any push service. The user agent is Node's `http2`, the
// application server posts by HTTP/1.1 with `https`.
//
//   user_agent.mjs --url URL --ca FILE [receipts] [topics]
//
// One line is printed for each check. The exit code is 0 if all of them passed. `receipts` and
// `topics` add the checks of RFC 8030 sections 5.1, 6.3 and 5.4. Node does not tell on which stream
// a promise came; user_agent.py does.

import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http2 from 'node:http2';
import https from 'node:https';
import { setTimeout as pause } from 'node:timers/promises';
import { isDeepStrictEqual, parseArgs } from 'node:util';

const PUSH = 'urn:ietf:params:push';
const SET = 'urn:ietf:params:push:set';
const RECEIPT = 'urn:ietf:params:push:receipt';
const SOON = 5000; // milliseconds, for anything that has to come
const QUIET = 1000; // milliseconds in which nothing may come

const { values: options, positionals: more } = parseArgs({
  options: { url: { type: 'string' }, ca: { type: 'string' } },
  allowPositionals: true,
});
if (!options.url || !options.ca || more.some((name) => !['receipts', 'topics'].includes(name))) {
  console.error('usage: user_agent.mjs --url URL --ca FILE [receipts] [topics]');
  process.exit(2);
}
const { url } = options;
const ca = readFileSync(options.ca);
const { origin, host } = new URL(url);

// ------------------------------------------------------------------------------------- checks

let passed = 0;
let failed = 0;

class Missing extends Error {} // what the following checks need did not come

// One check that passes if the condition is true.
function holds(text, condition, came) {
  if (condition) {
    passed += 1;
    console.log(`ok      node: ${text}`);
  } else {
    failed += 1;
    console.log(`FAILED  node: ${text}${came === undefined ? '' : `: ${JSON.stringify(came)}`}`);
  }
  return Boolean(condition);
}

function equal(text, wanted, came) {
  return holds(
    `${text}${isDeepStrictEqual(wanted, came) ? '' : `: ${JSON.stringify(came)} instead of ${JSON.stringify(wanted)}`}`,
    isDeepStrictEqual(wanted, came),
  );
}

// A check without which the rest of its group makes no sense.
function needs(text, condition, came) {
  if (!holds(text, condition, came)) throw new Missing(text);
}

// Waits until the condition is true; false if it was not in this time.
async function until(condition, time = SOON) {
  const end = performance.now() + time;
  while (!condition()) {
    if (performance.now() >= end) return false;
    await pause(5);
  }
  return true;
}

// -------------------------------------------------------------------------------------- links

// Targets of the links with this relation type, as URIs; RFC 8288.
function links(fields, relation) {
  const text = [fields.link ?? []].flat().join(', ');
  const found = [];
  const link = /<([^>]*)>((?:\s*;\s*[^\s=;,]+(?:\s*=\s*(?:"[^"]*"|[^\s;,"]*))?)*)/g;
  for (const [, target, parameters] of text.matchAll(link)) {
    const [, quoted, token] = /;\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]*))/i.exec(parameters) ?? [];
    if ((quoted ?? token ?? '').toLowerCase().split(/\s+/).includes(relation)) found.push(new URL(target, url).href);
  }
  return found;
}

function pathOf(uri) {
  const { pathname, search } = new URL(uri);
  return pathname + search;
}

const linkTo = (uri, relation) => `<${pathOf(uri)}>; rel="${relation}"`;

// ------------------------------------------------------------------------- application server

// A request by HTTP/1.1 on a connection of its own.
function plain(method, uri, headers = {}, content = undefined) {
  return new Promise((resolve, reject) => {
    const request = https.request(uri, { method, ca, headers, agent: false, timeout: SOON }, (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('error', reject);
      response.on('end', () => {
        const { location } = response.headers;
        resolve({
          status: response.statusCode,
          fields: response.headers,
          content: Buffer.concat(parts),
          location: location && new URL(location, url).href,
          version: response.httpVersion,
        });
      });
    });
    request.on('timeout', () => request.destroy(new Error(`no response to ${method}`)));
    request.on('error', reject);
    request.end(content);
  });
}

// Sends a message; its URI. Only a failure is worth a line.
async function post(push, content = 'hello', headers = {}) {
  const answer = await plain('POST', push, { TTL: '60', ...headers }, content);
  if (answer.status !== 201 || !answer.location) {
    needs('a message is taken with 201', false, [answer.status, answer.fields]);
  }
  return answer.location;
}

// --------------------------------------------------------------------------------- user agent

// One HTTP/2 connection of a user agent, with all that was promised on it.
class Agent {
  constructor(settings = {}) {
    this.promises = [];
    this.errors = [];
    this.session = http2.connect(origin, { ca, settings });
    this.session.on('error', (error) => this.errors.push(String(error)));
    this.session.on('goaway', (code) => this.errors.push(`GOAWAY ${code}`));
    this.session.on('stream', (stream, promised) => {
      const push = { promised, path: promised[':path'], fields: null, ...this.#follow(stream) };
      stream.on('push', (fields) => { push.fields = fields; });
      this.#collect(stream, push);
      this.promises.push(push);
    });
  }

  #follow(stream) {
    return { stream, status: undefined, content: Buffer.alloc(0), ended: false };
  }

  #collect(stream, taken) {
    const parts = [];
    stream.on('data', (part) => parts.push(part));
    stream.on('error', (error) => this.errors.push(String(error)));
    stream.on('end', () => {
      taken.content = Buffer.concat(parts);
      taken.ended = true;
    });
  }

  // Sends a request without content; what comes of it is gathered.
  send(method, uri, headers = {}) {
    const stream = this.session.request({ ':method': method, ':path': pathOf(uri), ...headers }, { endStream: true });
    const request = { fields: null, ...this.#follow(stream) };
    stream.on('response', (fields) => {
      request.fields = fields;
      request.status = fields[':status'];
    });
    this.#collect(stream, request);
    return request;
  }

  // Sends a request and waits for its response.
  async request(method, uri, headers = {}) {
    const request = this.send(method, uri, headers);
    if (!(await until(() => request.ended && request.fields))) throw new Missing(`a response to ${method}`);
    const { location } = request.fields;
    return { ...request, location: location && new URL(location, url).href };
  }

  // Opens a monitoring request, and waits until the service certainly has it.
  async monitor(uri, headers = {}) {
    const request = this.send('GET', uri, headers);
    await until(() => !request.stream.pending);
    await new Promise((resolve) => { this.session.ping(resolve); });
    return request;
  }

  promised(uri) {
    return this.promises.find((push) => push.path === pathOf(uri));
  }

  // Waits until these have come whole.
  comes(...uris) {
    return until(() => uris.every((uri) => this.promised(uri)?.ended && this.promised(uri).fields));
  }

  // True if nothing is promised in this time.
  async quiet(time = QUIET) {
    const before = this.promises.length;
    await pause(time);
    return this.promises.length === before;
  }

  async subscribe(set = undefined) {
    const answer = await this.request('POST', url, set ? { link: linkTo(set, SET) } : {});
    if (answer.status !== 201 || !answer.location) needs('a subscription is made', false, answer.fields);
    return { uri: answer.location, push: links(answer.fields, PUSH)[0], set: links(answer.fields, SET)[0] };
  }

  close() {
    this.session.destroy();
  }
}

const agents = [];
function agent(settings) {
  agents.push(new Agent(settings));
  return agents.at(-1);
}

// What a new agent gets by `wait=0`: status, and the paths in order of the promises.
async function stored(uri) {
  const one = agent();
  const { status } = await one.request('GET', uri, { prefer: 'wait=0' });
  await until(() => one.promises.every((push) => push.ended));
  one.close();
  return [status, one.promises.map((push) => push.path)];
}

// ------------------------------------------------------------------------------------- groups

async function trust() {
  const session = http2.connect(origin);
  const came = await new Promise((resolve) => {
    session.on('connect', () => resolve('trusted'));
    session.on('error', (error) => resolve(error.code));
  });
  session.destroy();
  holds('the service is not trusted without its authority', /CERT|SIGNED|ISSUER|SIGNATURE/.test(came), came);
}

async function subscribe() {
  const one = agent();
  const answer = await one.request('POST', url);
  equal('a subscription is made with 201 (8030 4)', 201, answer.status);
  needs('and has a location', answer.location, answer.fields);
  equal('and exactly one push resource', 1, links(answer.fields, PUSH).length);
  equal('and exactly one set (4.1)', 1, links(answer.fields, SET).length);
  const first = { push: links(answer.fields, PUSH)[0], set: links(answer.fields, SET)[0] };
  const second = await one.subscribe(first.set);
  equal('a second one is made in the set of the first', first.set, second.set);
  holds('and has resources of its own', second.uri !== answer.location && second.push !== first.push);
  equal('it is removed', 204, (await one.request('DELETE', second.uri)).status);
  const gone = await plain('POST', second.push, { TTL: '60' });
  equal('nothing can be sent to it any more (7.3)', [404, '1.1'], [gone.status, gone.version]);
}

async function monitor() {
  const content = Buffer.concat([Buffer.from(Array.from({ length: 256 }, (_, octet) => octet)), randomBytes(2744)]);
  const one = agent();
  const subscription = await one.subscribe();
  const request = await one.monitor(subscription.uri);
  const quiet = await one.quiet();
  needs('a monitoring request is not answered while it is open (6)', quiet && !request.fields, request.fields);
  const message = await post(subscription.push, content, {
    'Content-Encoding': 'aes128gcm',
    'Content-Type': 'application/x-strange',
    Urgency: 'high',
    Topic: 'not-to-be-seen',
    Authorization: 'Bearer not-to-be-seen',
  });
  needs('a message comes by server push', await one.comes(message), one.promises.map((push) => push.path));
  const { promised, fields, content: came } = one.promises[0];
  equal('promised by GET', 'GET', promised[':method']);
  equal('of https', 'https', promised[':scheme']);
  equal('with the authority of the request', host, promised[':authority']);
  equal('of the message that the sender was told', pathOf(message), promised[':path']);
  holds('without content', ['0', undefined].includes(promised['content-length']));
  equal('the pushed response is 200', 200, fields[':status']);
  holds('with the content, octet for octet', came.equals(content), came.length);
  equal('content-encoding as it was sent', 'aes128gcm', fields['content-encoding']);
  equal('content-type as it was sent', 'application/x-strange', fields['content-type']);
  equal('link of the push resource', [subscription.push], links(fields, PUSH));
  const control = (fields['cache-control'] ?? '').toLowerCase().split(/\s*,\s*/);
  holds('private to this cache', control.includes('private') && !control.includes('public'), control);
  for (const name of ['ttl', 'urgency', 'topic', 'authorization']) {
    holds(`no ${name}`, fields[name] === undefined && promised[name] === undefined);
  }
  equal('the message came once', 1, one.promises.length);
  holds('and the request is still open', !request.fields && !request.ended);
  one.close();

  const again = agent();
  await again.monitor(subscription.uri);
  holds('what was not acknowledged comes again on a new connection (6.2)', await again.comes(message));
  equal('it is acknowledged with 204', 204, (await again.request('DELETE', message)).status);
  equal('and then it is gone', 404, (await again.request('DELETE', message)).status);
  again.close();
  const last = agent();
  const open = await last.monitor(subscription.uri);
  holds('and does not come again on a new connection', await last.quiet(), last.promises.map((push) => push.path));
  await last.request('DELETE', subscription.uri);
  await until(() => open.fields);
  equal('the open request of a removed subscription is answered (7.3)', 404, open.status);
  equal('no errors', [], [...one.errors, ...again.errors, ...last.errors]);
  last.close();
}

async function inSets() {
  const one = agent();
  const first = await one.subscribe();
  const second = await one.subscribe(first.set);
  const request = await one.monitor(first.set);
  const messages = [await post(first.push, 'for first'), await post(second.push, 'for second')];
  needs('messages of both members of a set come (6.1)', await one.comes(...messages));
  for (const [number, member] of [first, second].entries()) {
    const push = one.promised(messages[number]);
    equal('the promise itself has the link of the member, and no other', [member.push], links(push.promised, PUSH));
    equal('the content is the one sent to it', ['for first', 'for second'][number], push.content.toString());
  }
  const third = await one.subscribe(first.set);
  const message = await post(third.push, 'for third');
  needs('a member that came while the request is open is served', await one.comes(message));
  equal('with its link in the promise', [third.push], links(one.promised(message).promised, PUSH));
  holds('the request is not answered', !request.fields && !request.ended);
  await one.request('DELETE', first.set);
  await until(() => request.fields);
  equal('the open request of a removed set is answered (7.3.1)', 404, request.status);
  equal('no errors', [], one.errors);
}

async function withoutWaiting() {
  const one = agent();
  const first = await one.subscribe();
  const second = await one.subscribe(first.set);
  equal('wait=0 at a subscription without messages: 204, no promise (6)', [204, []], await stored(first.uri));
  equal('wait=0 at a set without messages: the same', [204, []], await stored(first.set));
  const messages = [];
  for (let number = 0; number < 6; number += 1) {
    messages.push(await post([first, second][number % 2].push, `${number}`));
  }
  const paths = messages.map(pathOf);
  const ofFirst = paths.filter((_, number) => number % 2 === 0);
  equal('wait=0 at a subscription: all, oldest first, and 200', [200, ofFirst], await stored(first.uri));
  equal('wait=0 at a set: all, oldest first, and 200', [200, paths], await stored(first.set));
  for (const message of messages) await one.request('DELETE', message);
  equal('acknowledged is gone: 204', [204, []], await stored(first.set));
}

async function urgency() {
  const one = agent();
  const subscription = await one.subscribe();
  await one.monitor(subscription.uri, { urgency: 'high' });
  const normal = await post(subscription.push);
  holds('Urgency high: a message without one is withheld (5.3)', await one.quiet());
  const high = await post(subscription.push, 'now', { Urgency: 'high' });
  holds('a high one comes', await one.comes(high));
  equal('alone', 1, one.promises.length);
  await one.request('DELETE', high);
  one.close();
  const other = agent();
  await other.monitor(subscription.uri);
  holds('without Urgency the first one comes', await other.comes(normal));
  await other.request('DELETE', normal);
  const now = await post(subscription.push, 'now', { TTL: '0' });
  holds('TTL 0 comes to an agent that is there (5.2)', await other.comes(now));
  await other.request('DELETE', now);
  const alone = await other.subscribe();
  await post(alone.push, 'never', { TTL: '0' });
  equal('TTL 0 with nobody there is gone', [204, []], await stored(alone.uri));
}

async function withoutPush() {
  const one = agent({ enablePush: false });
  const subscription = await one.subscribe();
  const { status } = await one.request('GET', subscription.uri);
  equal('an agent without server push: monitoring is answered with 400', 400, status);
  const start = performance.now();
  equal('monitoring by HTTP/1.1: 505', 505, (await plain('GET', subscription.uri)).status);
  holds('at once', performance.now() - start < 1000, performance.now() - start);
}

// Many messages while an agent is there that acknowledges each as soon as it has come.
async function manyMessages() {
  const one = agent({ initialWindowSize: 1000 });
  const subscription = await one.subscribe();
  await one.monitor(subscription.uri);
  const contents = Array.from({ length: 60 }, (_, number) => `${number} ${randomBytes(1500).toString('hex')}`);
  const acknowledged = new Set();
  const sent = [];
  const acknowledging = (async () => {
    await until(() => {
      for (const push of one.promises) {
        if (push.ended && !acknowledged.has(push.path)) {
          acknowledged.add(push.path);
          one.send('DELETE', new URL(push.path, url).href);
        }
      }
      return acknowledged.size === contents.length;
    }, 9000);
  })();
  for (const content of contents) sent.push(await post(subscription.push, content));
  await acknowledging;
  const came = one.promises.map((push) => push.path);
  equal('60 messages larger than the window come, each once, oldest first', sent.map(pathOf), came);
  holds('with their content', one.promises.every((push, number) => push.content.toString() === contents[number]));
  await pause(300);
  equal('acknowledged, nothing is left', [204, []], await stored(subscription.uri));
  equal('no errors', [], one.errors);
}

// -------------------------------------------------------------------------- receipts, topics

// Sends a message and asks for a receipt.
function ask(push, receipt = undefined, headers = {}, content = 'hello') {
  const link = receipt ? { Link: linkTo(receipt, RECEIPT) } : {};
  return plain('POST', push, { TTL: '60', Prefer: 'respond-async', ...link, ...headers }, content);
}

function receiptOf(answer) {
  const found = links(answer.fields, RECEIPT);
  needs(
    'a message is taken with 202, location and receipt subscription (5.1)',
    answer.status === 202 && answer.location && found.length === 1,
    [answer.status, answer.fields],
  );
  return found[0];
}

async function receipts() {
  const [one, server] = [agent(), agent()];
  const [first, second] = [await one.subscribe(), await one.subscribe()];
  const answer = await ask(first.push);
  const receipt = receiptOf(answer);
  const request = await server.monitor(receipt);
  holds('no receipt before the acknowledgement, and no answer (6.3)', (await server.quiet()) && !request.fields);
  await one.monitor(first.uri);
  await one.monitor(second.uri);
  needs('the message comes to the user agent', await one.comes(answer.location));
  holds('being delivered is not being acknowledged', await server.quiet(500));
  equal('it is acknowledged', 204, (await one.request('DELETE', answer.location)).status);
  needs('the receipt comes', await server.comes(answer.location));
  const push = server.promised(answer.location);
  equal('promised by GET', 'GET', push.promised[':method']);
  equal('with the authority of the request', host, push.promised[':authority']);
  equal('with 204, without content', [204, 0], [push.fields[':status'], push.content.length]);

  const other = await ask(second.push, receipt);
  equal('a second subscription with that receipt subscription: the same one', receipt, receiptOf(other));
  needs('its message comes', await one.comes(other.location));
  await one.request('DELETE', other.location);
  needs('its receipt comes on the same request', await server.comes(other.location));
  equal('with 204', 204, server.promised(other.location).fields[':status']);

  const withheld = await one.subscribe();
  const lost = await ask(withheld.push, receipt);
  receiptOf(lost);
  await one.request('DELETE', withheld.uri);
  needs('a receipt comes for the message of a removed subscription (6.2)', await server.comes(lost.location));
  equal('with 410', 410, server.promised(lost.location).fields[':status']);
  equal('three receipts in all', 3, server.promises.length);
  holds('the request stays open', !request.fields && !request.ended);
  const strange = await ask(first.push, `${origin}/no/such/receipts`);
  equal('a receipt subscription that is none: 400 (5.1)', 400, strange.status);
  equal('no errors', [], [...one.errors, ...server.errors]);
}

async function topics() {
  const one = agent();
  const subscription = await one.subscribe();
  const old = [];
  for (const content of ['0', '1', '2']) old.push(await post(subscription.push, content, { Topic: 'upd' }));
  equal('three messages of a topic: the third is left (5.4)', [200, [pathOf(old[2])]], await stored(subscription.uri));
  equal('what was replaced is gone', 404, (await one.request('DELETE', old[0])).status);
  await one.request('DELETE', old[2]);
  const kept = [];
  for (const topic of ['a', 'b', 'A', 'x'.repeat(32)]) {
    kept.push(await post(subscription.push, topic, { Topic: topic }));
  }
  equal('messages of other topics are kept', [200, kept.map(pathOf)], await stored(subscription.uri));
  for (const wrong of ['x'.repeat(33), 'a.b', 'a/b', 'a=', '"upd"', 'a b']) {
    const { status } = await plain('POST', subscription.push, { TTL: '60', Topic: wrong });
    equal(`the topic ${wrong} is refused with 400`, 400, status);
  }
}

async function receiptsOfTopics() {
  const [one, server] = [agent(), agent()];
  const subscription = await one.subscribe();
  const first = await ask(subscription.push, undefined, { Topic: 'upd' });
  const receipt = receiptOf(first);
  await server.monitor(receipt);
  const second = await ask(subscription.push, receipt, { Topic: 'upd' });
  holds('no receipt for what was replaced (5.4)', await server.quiet());
  await one.monitor(subscription.uri);
  needs('the replacement comes', await one.comes(second.location));
  await one.request('DELETE', second.location);
  needs('its receipt comes', await server.comes(second.location));
  equal('alone', 1, server.promises.length);
}

const groups = [trust, subscribe, monitor, inSets, withoutWaiting, urgency, withoutPush, manyMessages];
if (more.includes('receipts')) groups.push(receipts);
if (more.includes('topics')) groups.push(topics);
if (more.includes('receipts') && more.includes('topics')) groups.push(receiptsOfTopics);
for (const group of groups) {
  try {
    await group();
  } catch (error) {
    const reason = error instanceof Missing ? `it cannot go on: ${error.message}` : String(error);
    holds(`${group.name} comes to its end`, false, reason);
  }
  for (const one of agents.splice(0)) one.close();
}
console.log(`node: ${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
