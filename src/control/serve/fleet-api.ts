import { Type, type Static } from 'typebox';
import { Value } from 'typebox/value';
import { fault } from '../../protocol/errors.ts';
import { RoutedCellSchema, RoutedTenantSchema, SignedSchema } from '../../protocol/routing.ts';
import { StatusSchema } from '../../protocol/status.ts';
import { invalidDocument } from '../decide/parse.ts';
import { cellStatusOf, servedNow } from '../decide/reported.ts';
import { PlacementSchema } from '../decide/placement.ts';
import { readPosition } from './frames.ts';
import type { Plane } from './plane.ts';
import { headerOf, type ControlApp, type Parts } from './parts.ts';

/** Events that one page of the audit log holds. */
export const eventsPageMax = 1_000;

const NameParams = Type.Object({ name: Type.String() });
const WatchQuery = Type.Object({ watch: Type.Optional(Type.Boolean()) }, { additionalProperties: false });
const EventsQuery = Type.Object(
  {
    after: Type.Integer({ minimum: 0, default: 0, description: 'Version after which to read' }),
    limit: Type.Integer({ minimum: 1, maximum: eventsPageMax, default: 100 }),
  },
  { additionalProperties: false },
);

const EventsPageSchema = Type.Object({
  items: Type.Array(
    Type.Object({
      version: Type.Integer(),
      at: Type.String(),
      command: Type.String(),
      type: Type.String(),
      data: Type.Unknown(),
    }),
  ),
  version: Type.Integer(),
});
const ExplanationSchema = Type.Object({
  tenant: Type.String(),
  removed: Type.Boolean(),
  cell: Type.String(),
  epoch: Type.Integer(),
  since: Type.String(),
  version: Type.Integer(),
  ...PlacementSchema.properties,
  served: Type.Boolean(),
  waitingFor: Type.Optional(Type.String()),
  reports: Type.Unknown(),
});

/** The audit log, explanations, the routing table, and what agents follow and report. */
export function addFleet(app: ControlApp, parts: Parts): void {
  addHistory(app, parts);
  addRouting(app, parts);
  addAgents(app, parts);
}

function addHistory(app: ControlApp, { plane }: Parts): void {
  app.get(
    '/v1/events',
    {
      schema: {
        tags: ['events'],
        summary: 'The audit log: every event of the fleet, oldest first',
        querystring: EventsQuery,
        response: {
          200: EventsPageSchema,
        },
      },
    },
    (request) => eventsPage(plane, request.query.after, request.query.limit),
  );
  app.get(
    '/v1/tenants/:name/explanation',
    {
      schema: {
        tags: ['tenants'],
        summary: 'Where a tenant lives, since when, why, what was rejected and why, and what cell and routers report',
        params: NameParams,
        response: {
          200: ExplanationSchema,
        },
      },
    },
    (request) => explain(plane, request.params.name),
  );
}

async function eventsPage(plane: Plane, after: number, limit: number): Promise<Static<typeof EventsPageSchema>> {
  return { items: [...(await plane.events(after, limit))], version: plane.model.version };
}

async function explain(plane: Plane, name: string): Promise<Static<typeof ExplanationSchema>> {
  const { model, reported } = plane;
  const tenant = model.tenants.get(name);
  if (tenant === undefined) {
    throw fault('resource-unknown', `Tenant ${name} does not exist. GET /v1/tenants lists those that do.`, {
      field: 'name',
    });
  }
  const { data } = await plane.placementOf(tenant);
  const nowMs = plane.nowMs();
  const served = servedNow(model, tenant, reported, nowMs);
  const cell = model.cells.get(tenant.cell);
  return {
    tenant: tenant.name,
    removed: tenant.removed,
    cell: tenant.cell,
    epoch: tenant.epoch,
    since: new Date(tenant.placedMs).toISOString(),
    version: tenant.assignedVersion,
    ...data.placement,
    served: served.served && !tenant.removed,
    ...(served.served ? {} : { waitingFor: served.waitingFor }),
    reports: {
      cell:
        cell === undefined
          ? null
          : { ...cellStatusOf(cell, reported, nowMs), applied: reported.cell(tenant.cell, nowMs)?.applied ?? null },
      routers: reported.liveRouters(nowMs).map(({ name, applied, tableHash }) => ({ name, applied, tableHash })),
    },
  };
}

function addRouting(app: ControlApp, { frames, followers }: Parts): void {
  app.get(
    '/v1/routing',
    {
      config: { access: 'agents' },
      schema: {
        tags: ['routing'],
        summary: 'The routing table; with watch=true a stream of server-sent events frame, beat',
        querystring: WatchQuery,
        response: {
          200: Type.Object({
            generation: Type.Integer(),
            version: Type.Integer(),
            cells: Type.Array(RoutedCellSchema),
            tenants: Type.Array(RoutedTenantSchema),
            signed: SignedSchema,
          }),
        },
      },
    },
    (request, reply) => {
      if (request.query.watch !== true) {
        const { frame, signed } = frames.snapshot();
        const { generation, version, cells, tenants } = frame;
        return { generation, version, cells, tenants, signed };
      }
      return followers.open(request, reply, {
        catchUp: () => frames.routingSince(readPosition(headerOf(request, 'last-event-id'))),
        onOpen: (stream) => frames.followRouting(stream),
      });
    },
  );
}

function addAgents(app: ControlApp, { plane, frames, followers }: Parts): void {
  const tags = ['agents'];
  app.get(
    '/v1/agents/cells/:name',
    {
      config: { access: { own: 'cell' } },
      schema: {
        tags,
        summary: 'Stream of a cell: desired, frame (of its own scope), beat',
        params: NameParams,
        querystring: WatchQuery,
      },
    },
    (request, reply) => {
      const { name } = request.params;
      if (frames.cellSince(name, undefined) === undefined) {
        throw fault('resource-unknown', `Cell ${name} is not part of the fleet.`, { field: 'name' });
      }
      return followers.open(request, reply, {
        catchUp: () => frames.cellSince(name, readPosition(headerOf(request, 'last-event-id'))) ?? [],
        onOpen: (stream) => frames.followCell(name, stream),
      });
    },
  );
  app.get(
    '/v1/agents/hosts/:name',
    {
      config: { access: { own: 'host' } },
      schema: { tags, summary: 'Stream of a host: desired, beat', params: NameParams, querystring: WatchQuery },
    },
    (request, reply) => {
      const { name } = request.params;
      return followers.open(request, reply, {
        catchUp: () => frames.hostNow(name),
        onOpen: (stream) => frames.followHost(name, stream),
      });
    },
  );
  app.post(
    '/v1/agents/status',
    {
      config: { access: 'agents' },
      schema: { tags, summary: 'Reports the status of a process', body: StatusSchema, response: { 204: Type.Null() } },
    },
    async (request, reply) => {
      const body: unknown = request.body;
      if (!Value.Check(StatusSchema, body)) throw invalidDocument(StatusSchema, body);
      const { principal } = request;
      if (principal?.role === 'agent' && (principal.kind !== body.kind || principal.name !== body.name)) {
        throw fault(
          'forbidden',
          `The token of ${principal.kind} ${principal.name} may not report for ${body.kind} ${body.name}.`,
          { field: 'name' },
        );
      }
      await plane.note(body);
      return reply.code(204).send(null);
    },
  );
}
