import type { FastifyRequest } from 'fastify';
import { Type, type Static } from 'typebox';
import { fault } from '../../protocol/errors.ts';
import { Fault } from '../../kernel/fault.ts';
import { limits } from '../../protocol/limits.ts';
import { kinds, pluralOf, ResourceSchema, schemaOf, type Kind } from '../../protocol/resources.ts';
import { parseApply, parseResource } from '../decide/parse.ts';
import { KindSchema } from '../decide/tables.ts';
import type { Plane } from './plane.ts';
import { foundItem, itemsOf, ItemSchema, ListSchema } from './items.ts';
import { headerOf, type ControlApp, type Parts } from './parts.ts';

/** Lists, watches, reads, puts and removes resources; applies many at once. */
const NameParams = Type.Object({ name: Type.String() });
const WatchQuery = Type.Object({ watch: Type.Optional(Type.Boolean()) }, { additionalProperties: false });

const OutcomeSchema = Type.Object({
  kind: KindSchema,
  name: Type.String(),
  action: Type.Union([Type.Literal('created'), Type.Literal('changed'), Type.Literal('unchanged')]),
  assignment: Type.Optional(Type.Object({ cell: Type.String(), epoch: Type.Integer() })),
});

const AppliedSchema = Type.Object({
  version: Type.Integer(),
  dryRun: Type.Boolean(),
  items: Type.Array(OutcomeSchema),
});

export function addResources(app: ControlApp, parts: Parts): void {
  for (const kind of kinds) addKind(app, parts, kind);
  const { plane } = parts;
  app.post(
    '/v1/apply',
    {
      schema: {
        summary: 'Applies resources: all of them, or none',
        body: Type.Object({ items: Type.Array(ResourceSchema), dryRun: Type.Optional(Type.Boolean()) }),
        response: { 200: AppliedSchema },
      },
    },
    (request) => applyAll(plane, request.body),
  );
}

function addKind(app: ControlApp, { plane, watches, watchers }: Parts, kind: Kind): void {
  const plural = pluralOf[kind];
  const tags = [plural];
  app.get(
    `/v1/${plural}`,
    {
      schema: {
        tags,
        summary: `Lists ${plural}; with watch=true a stream of server-sent events put, delete, synced, reset, beat`,
        querystring: WatchQuery,
        response: { 200: ListSchema },
      },
    },
    (request, reply) => {
      if (request.query.watch !== true) return { items: itemsOf(plane, kind), version: plane.model.version };
      return watchers.open(request, reply, {
        catchUp: () => watches.since(kind, headerOf(request, 'last-event-id')),
        onOpen: (stream) => watches.follow(kind, stream),
      });
    },
  );
  app.get(
    `/v1/${plural}/:name`,
    { schema: { tags, summary: `Reads one of ${plural}`, params: NameParams, response: { 200: ItemSchema } } },
    (request, reply) => {
      const item = foundItem(plane, kind, request.params.name);
      void reply.header('etag', `"${item.version}"`);
      return item;
    },
  );
  app.put(
    `/v1/${plural}/:name`,
    {
      schema: {
        tags,
        summary: `Makes or changes one of ${plural}; If-Match and If-None-Match make it a compare-and-set`,
        params: NameParams,
        body: schemaOf[kind],
        response: { 200: ItemSchema, 201: ItemSchema, 202: ItemSchema },
      },
    },
    async (request, reply) => {
      const { name } = request.params;
      const resource = parseResource(request.body, '', { kind, name });
      const version = expectedVersion(request, (found) => (found ? foundItem(plane, kind, name).version : 0));
      const ifVersions = version === undefined ? [] : [{ kind, name, version }];
      const [outcome] = await plane.apply({ items: [resource], ifVersions }).catch(namesNoItem);
      const isServed = kind !== 'Tenant' || (await plane.served(name, limits.servedWaitMsMax));
      const item = foundItem(plane, kind, name);
      const status = isServed ? (outcome?.action === 'created' ? 201 : 200) : 202;
      void reply.code(status).header('etag', `"${item.version}"`);
      return item;
    },
  );
  app.delete(
    `/v1/${plural}/:name`,
    {
      schema: {
        tags,
        summary: `Removes one of ${plural}; If-Match makes it a compare-and-set`,
        params: NameParams,
        response: { 200: Type.Object({ kind: Type.Literal(kind), name: Type.String(), version: Type.Integer() }) },
      },
    },
    async (request) => {
      const { name } = request.params;
      const version = expectedVersion(request, () => foundItem(plane, kind, name).version);
      await plane.remove(kind, name, version);
      return { kind, name, version: plane.model.version };
    },
  );
}

async function applyAll(plane: Plane, body: unknown): Promise<Static<typeof AppliedSchema>> {
  const { items, dryRun } = parseApply(body);
  const outcomes = dryRun ? await plane.preview({ items }) : await plane.apply({ items });
  return { version: plane.model.version, dryRun, items: [...outcomes] };
}

/** The version that If-Match or If-None-Match ask for; `*` means whatever is there, or nothing. */
function expectedVersion(request: FastifyRequest, current: (exists: boolean) => number): number | undefined {
  const match = headerOf(request, 'if-match');
  const noneMatch = headerOf(request, 'if-none-match');
  if (noneMatch !== undefined) {
    if (noneMatch.trim() === '*' && match === undefined) return 0;
    throw fault('input-invalid', 'If-None-Match can only be *, and not together with If-Match.', {
      field: 'if-none-match',
    });
  }
  if (match === undefined) return undefined;
  if (match.trim() === '*') return current(true);
  const digits = /^(?:W\/)?"?(\d{1,15})"?$/.exec(match.trim())?.[1];
  if (digits === undefined) {
    throw fault('input-invalid', `If-Match must be the version of a resource, as in its ETag, not ${match}.`, {
      field: 'if-match',
    });
  }
  return Number(digits);
}

/** A PUT has one item, which its sender did not write as `items[0]`. */
function namesNoItem(thrown: unknown): never {
  if (!(thrown instanceof Fault) || thrown.field?.startsWith('items[0]') !== true) throw thrown;
  const field = thrown.field.slice('items[0]'.length).replace(/^\./, '');
  throw new Fault(thrown.code, thrown.kind, thrown.message, {
    field: field === '' ? undefined : field,
    retryAfterMs: thrown.retryAfterMs,
    cause: thrown.cause,
  });
}
