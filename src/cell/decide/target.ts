import { fault } from '../../protocol/errors.ts';
import { headers, tenantHeader } from '../../protocol/headers.ts';
import { isCellName, isTenantName, type TenantName } from '../../protocol/names.ts';
import type { GateRequest } from './gate.ts';

/** Every value that a header came with, by its lower-case name. */
type Headers = Readonly<Record<string, readonly string[] | undefined>>;

/** Domains whose subdomain names the tenant when somebody speaks to a cell directly. */
const directDomains = ['localhost'];
const epochPattern = /^[1-9][0-9]{0,14}$/;

/**
 * Whom a request is for. A router says it in `cellwright-tenant`, `-epoch` and `-cell`; without
 * that, somebody speaks to the cell directly and names the tenant as they would to a router.
 * Throws the fault to answer with: tenant-missing, tenant-ambiguous, tenant-malformed, request-malformed.
 */
export function targetOf(values: Headers): GateRequest {
  const epoch = single(values, headers.epoch);
  const cell = single(values, headers.cell);
  if (epoch !== undefined && !epochPattern.test(epoch)) {
    throw fault('request-malformed', `Header ${headers.epoch} is not a whole number from 1 on.`, {
      field: headers.epoch,
    });
  }
  if (cell !== undefined && !isCellName(cell)) {
    throw fault('request-malformed', `Header ${headers.cell} is not the name of a cell.`, { field: headers.cell });
  }
  return { tenant: tenantOf(values), epoch: epoch === undefined ? undefined : Number(epoch), cell };
}

function tenantOf(values: Headers): TenantName {
  const routed = single(values, headers.tenant);
  if (routed !== undefined) return parsed(routed, headers.tenant);
  const given = single(values, tenantHeader);
  const subdomain = subdomainOf(single(values, 'host') ?? '');
  if (given !== undefined && subdomain !== undefined && given !== subdomain) {
    throw fault('tenant-ambiguous', `Header ${tenantHeader} and the host name name different tenants; send one.`, {
      field: tenantHeader,
    });
  }
  const name = given ?? subdomain;
  if (name === undefined) {
    throw fault('tenant-missing', `Name the tenant in header ${tenantHeader}, or as a subdomain of localhost.`, {
      field: tenantHeader,
    });
  }
  return parsed(name, given === undefined ? 'host' : tenantHeader);
}

function single(values: Headers, name: string): string | undefined {
  const [value, ...more] = values[name] ?? [];
  if (more.length === 0) return value;
  throw fault('request-malformed', `Header ${name} came more than once.`, { field: name });
}

function parsed(name: string, field: string): TenantName {
  if (isTenantName(name)) return name;
  throw fault('tenant-malformed', `"${name.slice(0, 80)}" cannot name a tenant: use a–z, 0–9 and hyphen.`, { field });
}

function subdomainOf(host: string): string | undefined {
  const name = host.replace(/:\d*$/, '').toLowerCase();
  const domain = directDomains.find((candidate) => name.endsWith(`.${candidate}`));
  return domain === undefined ? undefined : name.slice(0, -domain.length - 1);
}
