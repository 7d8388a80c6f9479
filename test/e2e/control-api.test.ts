import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Type } from 'typebox';
import { Fleet } from './fleet.ts';
import { ask, expectProblem, expectShape, ListSchema } from './http.ts';
import { jurisdictionsOf } from './orders.ts';
import { eventually } from './processes.ts';

interface StreamEvent {
  readonly type: string;
  readonly id: string;
  readonly data: string;
}

describe('the control API', { timeout: 120_000 }, () => {
  let fleet: Fleet;
  let jurisdiction = '';
  before(async () => {
    fleet = await Fleet.start();
    jurisdiction = (await jurisdictionsOf(fleet))[0] ?? '';
  });
  after(() => fleet.stop());

  const put = (
    name: string,
    body: unknown,
    headers: Readonly<Record<string, string>> = {},
  ): ReturnType<Fleet['control']> => fleet.control(`/v1/tenants/${name}`, { method: 'PUT', json: body, headers });
  const spec = (): { jurisdiction: string; users: number } => ({ jurisdiction, users: 1 });

  it('needs the bearer token', async () => {
    const url = `${fleet.ready.control}/v1/cells`;
    expectProblem(await ask(url), 401, 'unauthenticated');
    expectProblem(await ask(url, { headers: { authorization: 'Bearer wrong' } }), 401, 'unauthenticated');
    expectProblem(await ask(`${fleet.ready.control}/v1/tenants/x`, { method: 'DELETE' }), 401);
    assert.equal((await fleet.control('/v1/cells')).status, 200);
  });

  it('lists cells, tenants, blueprints with their version, and reads each by name', async () => {
    for (const plural of ['cells', 'tenants', 'blueprints']) {
      const answer = await fleet.control(`/v1/${plural}`);
      assert.equal(answer.status, 200, `${plural}: ${answer.body}`);
      for (const { name } of expectShape(ListSchema, answer.json, plural).items.slice(0, 3)) {
        assert.equal((await fleet.control(`/v1/${plural}/${name}`)).status, 200);
      }
    }
    expectProblem(await fleet.control('/v1/tenants/nobody'), 404);
    expectProblem(await fleet.control('/v1/nonsense'), 404);
  });

  it('serves its OpenAPI 3.1 description', async () => {
    const answer = await fleet.control('/openapi.json');
    const Schema = Type.Object({
      openapi: Type.String({ pattern: '^3\\.1\\.' }),
      paths: Type.Record(Type.String(), Type.Unknown()),
    });
    const { paths } = expectShape(Schema, answer.json, 'openapi.json');
    assert.ok(
      Object.keys(paths).some((path) => path.startsWith('/v1/')),
      Object.keys(paths).join(' '),
    );
  });

  it('answers PUT of a tenant when the router can serve it', async () => {
    for (let n = 0; n < 10; n += 1) {
      const answer = await put(`prompt-${n}`, { kind: 'Tenant', name: `prompt-${n}`, spec: spec() });
      assert.ok([200, 201].includes(answer.status), `${answer.status} ${answer.body}`);
      assert.equal((await fleet.tenant(`prompt-${n}`, '/state')).status, 200);
    }
  });

  it('refuses a resource whose kind, name or shape does not fit its address', async () => {
    expectProblem(await put('acme-1', { kind: 'Cell', spec: spec() }), 400);
    expectProblem(await put('acme-1', { name: 'acme-2', spec: spec() }), 400);
    const problem = expectProblem(await put('acme-1', { spec: { jurisdiction, users: 'many' } }), 400);
    assert.match(JSON.stringify(problem), /users/);
    expectProblem(await put('Acme_1', { spec: spec() }), 400);
    expectProblem(await put('acme-1', { spec: { jurisdiction: 'atlantis', users: 1 } }), 409, 'no-permitted-cell');
    expectProblem(await fleet.control('/v1/tenants/acme-1'), 404);
  });

  it('changes a resource only if it is as the caller read it (If-Match)', async () => {
    await put('matched', { spec: spec() });
    const { headers } = await fleet.control('/v1/tenants/matched');
    const etag = headers['etag'] ?? '';
    assert.notEqual(etag, '', 'GET of a resource has an ETag');
    const changed = await put('matched', { spec: { ...spec(), users: 2 } }, { 'if-match': etag });
    assert.equal(changed.status, 200, changed.body);
    expectProblem(
      await put('matched', { spec: { ...spec(), users: 3 } }, { 'if-match': etag }),
      412,
      'version-conflict',
    );
    assert.match((await fleet.control('/v1/tenants/matched')).body, /"users":2/);
    expectProblem(await fleet.control('/v1/tenants/matched', { method: 'DELETE', headers: { 'if-match': etag } }), 412);
  });

  it('forgets a deleted tenant, and routers answer 404 for it', async () => {
    await put('leaving', { spec: spec() });
    assert.equal((await fleet.tenant('leaving', '/state')).status, 200);
    const answer = await fleet.control('/v1/tenants/leaving', { method: 'DELETE' });
    assert.ok([200, 202, 204].includes(answer.status), answer.body);
    await eventually('the router knows', 5_000, async () => (await fleet.tenant('leaving', '/state')).status === 404);
    expectProblem(await fleet.control('/v1/tenants/leaving'), 404);
  });

  it('streams what there is, then changes, and resumes after the last seen', async () => {
    await put('watched-1', { spec: spec() });
    const first = await watch(fleet, undefined, async (seen) => {
      await seen('synced');
      await put('watched-2', { spec: spec() });
      await seen('put', 'watched-2');
    });
    assert.ok(first.some(({ type, data }) => type === 'put' && data.includes('"watched-1"')));
    const lastId = first.findLast(({ id }) => id !== '')?.id ?? '';
    assert.notEqual(lastId, '');
    await put('watched-3', { spec: spec() });
    await fleet.control('/v1/tenants/watched-1', { method: 'DELETE' });
    const second = await watch(fleet, lastId, async (seen) => {
      await seen('delete', 'watched-1');
    });
    const puts = second.filter(({ type }) => type === 'put').map(({ data }) => data);
    assert.ok(puts.some((data) => data.includes('"watched-3"')));
    assert.equal(
      puts.some((data) => data.includes('"watched-2"') || data.includes('"prompt-1"')),
      false,
      'nothing comes twice',
    );
  });

  it('gives the routing table as a signed snapshot', async () => {
    const answer = await fleet.control('/v1/routing');
    assert.equal(answer.status, 200, answer.body);
    assert.match(answer.body, /watched-3/);
    assert.match(answer.body, /signature/);
  });

  it('keeps everything over a SIGKILL of its own, and nobody notices', async () => {
    const before = (await fleet.control('/v1/tenants')).json;
    const { pid } = fleet.kill('control');
    assert.equal((await fleet.tenant('prompt-1', '/state')).status, 200);
    const after = await eventually('the control plane answers again', 20_000, async () => {
      const answer = await fleet.control('/v1/tenants').catch(() => undefined);
      return answer?.status === 200 && answer.json;
    });
    assert.notEqual(fleet.processOf('control')?.pid, pid);
    const names = (json: unknown): readonly string[] =>
      expectShape(ListSchema, json, 'tenants').items.map(({ name }) => name);
    assert.deepEqual(names(after), names(before));
    await put('afterwards', { spec: spec() });
    await eventually(
      'a new tenant is served',
      10_000,
      async () => (await fleet.tenant('afterwards', '/state')).status === 200,
    );
  });

  it('is what the command line shows and changes', async () => {
    const listed = await fleet.must('get', 'tenants', '-o', 'json');
    assert.match(listed, /"prompt-1"/);
    assert.match(await fleet.must('get', 'tenants'), /prompt-1/);
    assert.match(await fleet.must('get', 'cells', '-o', 'wide'), new RegExp(fleet.ready.cells[0]?.name ?? ''));
    const names = (await fleet.must('get', 'cells', '-o', 'name')).trim().split('\n');
    assert.equal(names.length, fleet.ready.cells.length);
    assert.match(await fleet.must('get', 'tenant', 'prompt-1', '-o', 'yaml'), /kind: Tenant/);
    assert.match(await fleet.must('describe', 'tenant', 'prompt-1'), /prompt-1/);
    assert.match(await fleet.must('explain', 'tenant', 'prompt-1'), /jurisdiction/);
    await fleet.must('delete', 'tenant', 'prompt-1');
    expectProblem(await fleet.control('/v1/tenants/prompt-1'), 404);
  });

  /** Reads a watch stream while `during` runs; `seen` waits for an event of a type that names something. */
  async function watch(
    fleet: Fleet,
    lastId: string | undefined,
    during: (seen: (type: string, naming?: string) => Promise<void>) => Promise<void>,
  ): Promise<readonly StreamEvent[]> {
    const controller = new AbortController();
    const response = await fetch(`${fleet.ready.control}/v1/tenants?watch=true`, {
      headers: {
        authorization: `Bearer ${fleet.ready.token}`,
        ...(lastId === undefined ? {} : { 'last-event-id': lastId }),
      },
      signal: controller.signal,
    });
    assert.equal(response.status, 200);
    assert.match(response.headers.get('content-type') ?? '', /^text\/event-stream/);
    let text = '';
    const events = (): readonly StreamEvent[] => text.split('\n\n').slice(0, -1).map(parseEvent);
    const reading = (async () => {
      for await (const chunk of response.body?.pipeThrough(new TextDecoderStream()) ?? []) text += chunk;
    })().catch(() => {});
    const seen = async (type: string, naming = ''): Promise<void> => {
      await eventually(`event ${type} ${naming}; so far ${text}`, 10_000, () =>
        events().some((event) => event.type === type && event.data.includes(naming)),
      );
    };
    try {
      await during(seen);
    } finally {
      controller.abort();
      await reading;
    }
    return events();
  }
});

function parseEvent(block: string): StreamEvent {
  const field = (name: string): string =>
    block
      .split('\n')
      .filter((line) => line.startsWith(`${name}:`))
      .map((line) => line.slice(name.length + 1).trimStart())
      .join('\n');
  return { type: field('event'), id: field('id'), data: field('data') };
}
