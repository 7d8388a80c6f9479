import type { Fault } from '../../kernel/fault.ts';
import { fault, type ErrorCode } from '../../protocol/errors.ts';
import { isTenantName, nameLengthMax, type TenantName } from '../../protocol/names.ts';

/** Where the tenant of a request may stand. `subdomainOf` lists base domains, e.g. `localhost`, without a port. */
export interface PartitionKeySources {
  readonly header: string;
  readonly subdomainOf: readonly string[];
}

export type PartitionKey =
  | { readonly kind: 'tenant'; readonly tenant: TenantName }
  | { readonly kind: 'refused'; readonly fault: Fault };

/** Reads the tenant of a request. Made once for a configuration; O(headers) a request. */
export class PartitionKeyReader {
  readonly #header: string;
  /** Longest first, so that `eu.example.com` is tried before `example.com`. */
  readonly #suffixes: readonly string[];

  constructor(sources: PartitionKeySources) {
    this.#header = sources.header.toLowerCase();
    this.#suffixes = sources.subdomainOf
      .map((base) => `.${base.toLowerCase()}`)
      .sort((a, b) => b.length - a.length || (a < b ? -1 : 1));
  }

  /**
   * @param rawHeaders names and values in turn, as they came
   * @param host value of the Host header, if there is one
   */
  read(rawHeaders: readonly string[], host: string | undefined): PartitionKey {
    let named: string | undefined;
    for (let i = 0; i < rawHeaders.length; i += 2) {
      if (rawHeaders[i]?.toLowerCase() !== this.#header) continue;
      if (named !== undefined) {
        return refuse(
          'tenant-ambiguous',
          `The header ${this.#header} stands in the request more than once; send it once.`,
        );
      }
      named = rawHeaders[i + 1] ?? '';
    }
    const subdomain = host === undefined ? undefined : this.#subdomainOf(host);
    if (named !== undefined && !isTenantName(named)) return this.#malformed(`the header ${this.#header}`);
    if (subdomain !== undefined && !isTenantName(subdomain)) return this.#malformed('the subdomain in Host');
    if (named !== undefined && subdomain !== undefined && named !== subdomain) {
      return refuse(
        'tenant-ambiguous',
        `The header ${this.#header} names ${named}, but the host names ${subdomain}; send only one, or the same.`,
      );
    }
    const tenant = named ?? subdomain;
    if (tenant === undefined) {
      const hosts = this.#suffixes.map((suffix) => ` or call TENANT${suffix}`).join('');
      return refuse('tenant-missing', `Send the header ${this.#header} with the name of the tenant${hosts}.`);
    }
    return { kind: 'tenant', tenant };
  }

  /** What stands before a base domain, or undefined if the host is none of ours. Host names ignore case. */
  #subdomainOf(host: string): string | undefined {
    const withoutPort = host.replace(/:\d*$/, '').toLowerCase();
    const name = withoutPort.endsWith('.') ? withoutPort.slice(0, -1) : withoutPort;
    const suffix = this.#suffixes.find((candidate) => name.endsWith(candidate));
    return suffix === undefined ? undefined : name.slice(0, -suffix.length);
  }

  #malformed(where: string): PartitionKey {
    return refuse(
      'tenant-malformed',
      `The tenant in ${where} must be 1 to ${nameLengthMax} of a–z, 0–9 and hyphen, with no hyphen at an end.`,
      this.#header,
    );
  }
}

function refuse(code: ErrorCode, message: string, field?: string): PartitionKey {
  return { kind: 'refused', fault: fault(code, message, { field }) };
}
