// Tollgate's client: calls that are repeated without counting twice, and reports that are repeated until they are booked.

import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

import type { ProtoGrpcType as ErrorDetails } from '../gen/error_details.js';
import type { ProtoGrpcType as Policy } from '../gen/policy_service.js';
import type { ProtoGrpcType as Status } from '../gen/status.js';
import type { AuthorizeRequest } from '../gen/tollgate/v1/AuthorizeRequest.js';
import type { AuthorizeResponse__Output as Decision } from '../gen/tollgate/v1/AuthorizeResponse.js';
import type { RecordUsageRequest } from '../gen/tollgate/v1/RecordUsageRequest.js';
import type { RecordUsageResponse__Output as Booked } from '../gen/tollgate/v1/RecordUsageResponse.js';

const files = ['tollgate/v1/policy_service.proto', 'google/rpc/status.proto', 'google/rpc/error_details.proto'];
const includeDirs = [fileURLToPath(new URL('../../gen/proto', import.meta.url))];
const loaded = loadSync(files, { includeDirs, keepCase: true, longs: String, enums: String, defaults: true });
const proto = grpc.loadPackageDefinition(loaded) as unknown as Policy & Status & ErrorDetails;

const ATTEMPTS = 3; // of Authorize: a client waits for it
const CALL_MS = 5_000; // of one attempt, beside what Authorize may wait for room
const MAX_BACKOFF_MS = 5_000;

const { UNAVAILABLE, DEADLINE_EXCEEDED, INTERNAL, UNKNOWN, CANCELLED } = grpc.status;
const REPEATED = [UNAVAILABLE, DEADLINE_EXCEEDED, INTERNAL, UNKNOWN, CANCELLED];

export class Tollgate {
  readonly #client;
  readonly #metadata = new grpc.Metadata();
  readonly #reports = new Set<Promise<void>>();

  /** `target`: `127.0.0.1:50051`, or `dns:///tollgate:50051` for all replicas behind a name. */
  constructor(target: string, token: string | undefined) {
    if (token) this.#metadata.set('authorization', `Bearer ${token}`);
    this.#client = new proto.tollgate.v1.PolicyService(target, grpc.credentials.createInsecure(), {
      // Each replica gets its share of the calls; the default would send all of them to one.
      'grpc.service_config': JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
      // A connection that died silently is found out, and one to a replica that restarts is soon tried again.
      'grpc.keepalive_time_ms': 30_000,
      'grpc.keepalive_timeout_ms': 5_000,
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 2_000,
    });
  }

  /** Asks for a decision. Every attempt has the same `request_id`, so that it reserves once. */
  async authorize(request: AuthorizeRequest & { request_id: string }, waitMs: number, signal: AbortSignal): Promise<Decision> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#call<Decision>(waitMs + CALL_MS, signal, (options, done) =>
          this.#client.Authorize(request, this.#metadata, options, done),
        );
      } catch (error) {
        const { code } = error as grpc.ServiceError;
        const isLast = signal.aborted || attempt === ATTEMPTS || (code !== UNAVAILABLE && code !== DEADLINE_EXCEEDED);
        if (isLast) {
          // An answer may be lost that reserved, also when the client left; the id gives it back.
          if (REPEATED.includes(code)) this.report(unsent(request));
          throw error;
        }
        // A client that leaves is noticed by the next attempt.
        await sleep(retryDelay(error, attempt), undefined, { signal }).catch(() => undefined);
      }
    }
  }

  /** Reports in the background. Each report belongs to a request that was admitted, so there are no more of them than those. */
  report(request: RecordUsageRequest): void {
    const report = this.#record(request).catch((error: Error) =>
      // It will never be booked. The reservation expires, and the team's `on_unsettled` decides.
      console.error('usage was refused', request.reservation_id ?? request.request_id, error.message),
    );
    this.#reports.add(report);
    void report.finally(() => this.#reports.delete(report));
  }

  /** Waits until everything that was reported is booked. */
  async close(): Promise<void> {
    while (this.#reports.size > 0) await Promise.all(this.#reports);
    this.#client.close();
  }

  async #record(request: RecordUsageRequest): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#call<Booked>(CALL_MS, undefined, (options, done) =>
          this.#client.RecordUsage(request, this.#metadata, options, done),
        );
        return;
      } catch (error) {
        // Whatever may have been booked already is booked once: repeating is safe, giving up is not.
        const { code } = error as grpc.ServiceError;
        if (!REPEATED.includes(code)) throw error;
        await sleep(retryDelay(error, attempt));
      }
    }
  }

  #call<Answer>(
    timeoutMs: number,
    signal: AbortSignal | undefined,
    start: (options: grpc.CallOptions, done: grpc.requestCallback<Answer>) => grpc.ClientUnaryCall,
  ): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const call = start({ deadline: Date.now() + timeoutMs }, (error, answer) => {
        signal?.removeEventListener('abort', cancel);
        if (error || !answer) reject(error ?? new Error('an answer without a message'));
        else resolve(answer);
      });
      const cancel = () => call.cancel();
      if (signal?.aborted) cancel();
      signal?.addEventListener('abort', cancel);
    });
  }
}

/** The report that nothing of `request` was sent to Groq, for when its reservation is not known. */
function unsent({ team, api_key, request_id, model, operation }: AuthorizeRequest & { request_id: string }): RecordUsageRequest {
  const caller = team === undefined ? { api_key: api_key! } : { team };
  return { ...caller, request_id, model: model!, operation: operation!, outcome: 'OUTCOME_NOT_SENT' };
}

/** As `RetryInfo` says; without it, twice as long each time. In both cases a little at random, so that callers spread. */
export function retryDelay(error: unknown, attempt: number): number {
  const backoff = Math.min(100 * 2 ** (attempt - 1), MAX_BACKOFF_MS);
  return (retryInfo(error) ?? backoff) * (1 + Math.random() / 4);
}

/** `RetryInfo.retry_delay` of an error, in milliseconds. */
export function retryInfo(error: unknown): number | undefined {
  const [binary] = (error as Partial<grpc.ServiceError>).metadata?.get('grpc-status-details-bin') ?? [];
  if (!(binary instanceof Buffer)) return undefined;
  for (const detail of proto.google.rpc.Status.deserialize(binary).details) {
    if (!detail.type_url.endsWith('/google.rpc.RetryInfo')) continue;
    const delay = proto.google.rpc.RetryInfo.deserialize(detail.value as Buffer).retry_delay;
    if (delay) return Number(delay.seconds) * 1_000 + delay.nanos / 1e6;
  }
  return undefined;
}
