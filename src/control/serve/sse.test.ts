import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'node:test';
import Fastify from 'fastify';
import { request } from 'undici';
import { sseEvent, StreamHub, streamBufferBytesMax, type Stream } from './sse.ts';

async function serve(options: { readonly max: number; readonly catchUp: string }) {
  const hub = new StreamHub({ max: options.max });
  const opened: { readonly stream: Stream; readonly closed: Promise<void> }[] = [];
  const app = Fastify({ forceCloseConnections: true });
  app.get('/', (incoming, reply) => {
    const closed = Promise.withResolvers<void>();
    hub.open(incoming, reply, {
      catchUp: () => [options.catchUp],
      onOpen: (stream) => {
        opened.push({ stream, closed: closed.promise });
        return () => closed.resolve();
      },
    });
  });
  const url = await app.listen({ host: '127.0.0.1', port: 0 });
  return {
    url,
    hub,
    opened,
    async stop() {
      hub.close();
      await app.close();
    },
  };
}

test('B1: a consumer that reads nothing is cut off at the bound, not buffered for, whatever it got when it connected', async () => {
  const catchUp = sseEvent('frame', `"${'x'.repeat(2 * streamBufferBytesMax)}"`);
  const server = await serve({ max: 1, catchUp });
  const { hostname, port } = new URL(server.url);
  const consumer = connect(Number(port), hostname);
  await once(consumer, 'connect');
  consumer.write('GET / HTTP/1.1\r\nhost: test\r\n\r\n');
  await once(consumer, 'readable');
  const [first] = server.opened;
  assert.ok(first);
  const event = sseEvent('frame', `"${'y'.repeat(streamBufferBytesMax / 8)}"`);
  assert.equal(server.hub.size, 1, 'what it got at first does not count against it');
  for (let sent = 0; sent < 64; sent += 1) first.stream.send(event);
  await first.closed;
  assert.equal(server.hub.size, 0);
  consumer.destroy();
  await server.stop();
});

test('B2: one stream more than the bound is refused, and admitted once another has closed', async () => {
  const server = await serve({ max: 1, catchUp: '' });
  const first = await request(server.url);
  const second = await request(server.url);
  assert.equal(first.statusCode, 200);
  assert.notEqual(second.statusCode, 200);
  await second.body.dump();
  first.body.destroy();
  await server.opened[0]?.closed;
  const third = await request(server.url);
  assert.equal(third.statusCode, 200);
  third.body.destroy();
  await server.stop();
});
