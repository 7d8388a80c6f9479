import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { describe, it, type TestContext } from 'node:test';
import * as fc from 'fast-check';
import { limits } from '../protocol/limits.ts';
import type { RouterStatus } from '../protocol/status.ts';
import { follow, pushStatus, reconnectDelayMs, type StreamEvent } from './follow.ts';

type Handler = (request: IncomingMessage, response: ServerResponse, connection: number) => void;

/** A control plane of one handler. */
async function serve(t: TestContext, handler: Handler): Promise<string> {
  let connections = 0;
  const server = createServer((request, response) => handler(request, response, (connections += 1)));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  return `http://127.0.0.1:${address.port}`;
}

function send(response: ServerResponse, type: string, data: string, id?: string): void {
  response.write(`event: ${type}\n${id === undefined ? '' : `id: ${id}\n`}data: ${data}\n\n`);
}

/** A place where a test waits until something was seen often enough. */
function seen<T>(): { readonly items: T[]; add(item: T): void; until(condition: () => boolean): Promise<void> } {
  const items: T[] = [];
  let look: () => void = () => undefined;
  return {
    items,
    add(item) {
      items.push(item);
      look();
    },
    until: (condition) =>
      new Promise((resolve) => {
        look = () => {
          if (condition()) resolve();
        };
        look();
      }),
  };
}

describe('following a stream', { timeout: 30_000 }, () => {
  it('hands events over in order, one at a time, and is live from the first beat on', async (t) => {
    const url = await serve(t, (request, response) => {
      assert.equal(request.headers.authorization, 'Bearer secret');
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      for (let n = 0; n < 20; n += 1) send(response, 'frame', `é${n}`, String(n));
      send(response, 'beat', '');
    });
    const got = seen<StreamEvent>();
    let busy = false;
    const following = follow({
      url,
      token: 'secret',
      position: () => undefined,
      async onEvent(event) {
        assert.equal(busy, false, 'the one before is done');
        busy = true;
        assert.equal(following.live, false, 'not live before the beat was handed over');
        await new Promise(setImmediate);
        busy = false;
        got.add(event);
      },
      onLive: () => got.add({ type: 'live', id: undefined, data: '' }),
    });
    t.after(() => following.stop());
    await got.until(() => following.live);
    assert.deepEqual(
      got.items.slice(0, 20).map(({ data, id }) => [data, id]),
      Array.from({ length: 20 }, (_, n) => [`é${n}`, String(n)]),
    );
  });

  it('resumes from its position after the connection or the follower failed, and from the start when told', async (t) => {
    const positions = seen<string | undefined>();
    const url = await serve(t, (request, response, connection) => {
      const at = request.headers['last-event-id'];
      positions.add(Array.isArray(at) ? at[0] : at);
      if (connection === 2) {
        response.writeHead(503).end('later');
        return;
      }
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      send(response, 'frame', String(connection), String(connection));
      if (connection === 1) response.end();
    });
    let position: string | undefined;
    const following = follow({
      url,
      token: 'x',
      position: () => position,
      onEvent(event) {
        if (event.data === '3') throw new Error('the disk is full');
        position = event.id;
        if (event.data === '4') following.resync();
      },
    });
    t.after(() => following.stop());
    await positions.until(() => positions.items.length >= 5);
    assert.deepEqual(positions.items.slice(0, 5), [undefined, '1', '1', '1', undefined]);
  });

  it('takes a silent stream for dead', async (t) => {
    const connections = seen<number>();
    const url = await serve(t, (_request, response, connection) => {
      connections.add(connection);
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      send(response, 'beat', '');
    });
    const lives: boolean[] = [];
    const following = follow({
      url,
      token: 'x',
      position: () => undefined,
      onEvent: () => undefined,
      onLive: (live) => lives.push(live),
    });
    t.after(() => following.stop());
    await connections.until(() => connections.items.length >= 2);
    assert.deepEqual(lives.slice(0, 2), [true, false]);
  });

  it('waits between the least and the most, longer with each failure', () => {
    const { reconnectDelayMsMin: least, reconnectDelayMsMax: most } = limits;
    fc.assert(
      fc.property(fc.nat(), fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (failures, random) => {
        const delayMs = reconnectDelayMs(failures, random);
        assert.ok(delayMs >= least && delayMs <= most);
        assert.ok(reconnectDelayMs(failures + 1, random) >= delayMs);
      }),
    );
    assert.equal(reconnectDelayMs(0, 0.9), least);
    assert.equal(reconnectDelayMs(1_000, 0), least);
  });
});

it(
  'a status is pushed at once, when it changed, and again after an interval, whatever the answer',
  { timeout: 30_000 },
  async (t) => {
    const got = seen<string>();
    const url = await serve(t, (request, response, connection) => {
      let text = '';
      request.setEncoding('utf8').on('data', (part: string) => (text += part));
      request.on('end', () => {
        response.writeHead(connection === 1 ? 500 : 204).end();
        got.add(text);
      });
    });
    const applied = { generation: 1, version: 0 };
    const status: RouterStatus = { kind: 'router', name: 'r', pid: 1, applied, tableHash: 'a' };
    const pushing = pushStatus({ controlUrl: url, token: 'x', read: () => status });
    t.after(() => pushing.stop());
    await got.until(() => got.items.length >= 1);
    pushing.changed();
    await got.until(() => got.items.length >= 3);
    assert.deepEqual(JSON.parse(got.items[2] ?? ''), status);
  },
);
