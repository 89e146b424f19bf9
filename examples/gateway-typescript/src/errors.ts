// Errors in Groq's format, so that its SDKs and OpenAI's raise the exceptions that applications know: the same as behind Envoy.

import type { ServerResponse } from 'node:http';

import type { AuthorizeResponse__Output as Decision } from '../gen/tollgate/v1/AuthorizeResponse.js';
import type { Reason__Output as Reason } from '../gen/tollgate/v1/Reason.js';

/** Of several reasons the first one in this table decides: that which waiting helps least. */
const ANSWERS: [status: number, code: string, reasons: Reason[]][] = [
  [401, 'invalid_api_key', ['REASON_UNKNOWN_TEAM', 'REASON_INVALID_KEY', 'REASON_KEY_REVOKED', 'REASON_KEY_EXPIRED']],
  [403, 'paused', ['REASON_PAUSED']],
  [403, 'permission_denied', ['REASON_OPERATION_NOT_ALLOWED', 'REASON_MODEL_NOT_ALLOWED']],
  [403, 'tool_not_allowed', ['REASON_TOOL_NOT_ALLOWED']],
  [403, 'tool_not_priced', ['REASON_TOOL_NOT_PRICED']],
  [404, 'model_not_found', ['REASON_MODEL_NOT_PRICED']],
  [400, 'max_output_tokens_exceeded', ['REASON_MAX_OUTPUT_TOKENS_EXCEEDED']],
  [413, 'request_too_large', []], // a limit that the request exceeds by itself: `retryable` tells
  [402, 'insufficient_quota', ['REASON_TEAM_BUDGET_EXHAUSTED', 'REASON_KEY_BUDGET_EXHAUSTED', 'REASON_ORGANIZATION_BUDGET_EXHAUSTED']],
  [429, 'too_many_unsettled', ['REASON_TOO_MANY_UNSETTLED']],
  [429, 'rate_limit_exceeded', ['REASON_REQUEST_RATE_EXCEEDED', 'REASON_TOKEN_RATE_EXCEEDED', 'REASON_AUDIO_RATE_EXCEEDED', 'REASON_TOO_MANY_IN_FLIGHT', 'REASON_UPSTREAM_RATE_LIMITED']],
];
const TOO_LARGE = ANSWERS.findIndex(([status]) => status === 413);
const TYPES: Record<number, string> = {
  400: 'invalid_request_error', 401: 'invalid_request_error', 402: 'insufficient_quota', 403: 'permissions_error',
  404: 'invalid_request_error', 413: 'invalid_request_error', 429: 'rate_limit_error',
};
/** SDKs wait this long at most; past it a retry is of no use. */
const LONGEST_RETRY_MS = 60_000;

export interface Failure {
  status: number;
  code: string;
  message: string;
  retryMs?: number | undefined;
  shouldRetry?: boolean;
  violations?: object[];
}

export function fail(response: ServerResponse, failure: Failure): void {
  const { status, code, message, retryMs, shouldRetry = false, violations } = failure;
  if (response.destroyed) return;
  const headers: Record<string, string> = { 'content-type': 'application/json', 'x-should-retry': String(shouldRetry) };
  // Whole seconds, rounded up: a retry one millisecond early is denied again.
  if (retryMs !== undefined) headers['retry-after'] = String(Math.ceil(retryMs / 1_000));
  response.writeHead(status, headers);
  response.end(JSON.stringify({ error: { message, type: TYPES[status] ?? 'internal_server_error', code, violations } }));
}

/** The error for a decision that is not `DECISION_ALLOWED`, also one that this client does not know. */
export function denial({ violations, retry_delay }: Decision): Failure {
  const row = (v: Decision['violations'][number]) => {
    const found = ANSWERS.findIndex(([, , reasons]) => reasons.includes(v.reason));
    return ANSWERS[found]?.[1] === 'rate_limit_exceeded' && !v.retryable ? TOO_LARGE : found;
  };
  const rows = violations.map(row).filter((found) => found >= 0);
  const [status, code] = ANSWERS[Math.min(...rows)] ?? [403, 'permission_denied'];
  // A request that ends frees its place long before its reservation would expire, which is what the delay says.
  const onlyInFlight = violations.every((v) => v.reason === 'REASON_TOO_MANY_IN_FLIGHT');
  const retryMs = onlyInFlight ? undefined : milliseconds(retry_delay);
  const soon = onlyInFlight || (retryMs !== undefined && retryMs <= LONGEST_RETRY_MS);
  return {
    status,
    code,
    message: violations.map((v) => v.message).join('; '),
    retryMs,
    shouldRetry: status === 429 && soon && violations.length > 0,
    violations: violations.map((v) => ({
      reason: String(v.reason).replace('REASON_', '').toLowerCase(),
      limit_id: v.limit_id,
      limit: Number(v.limit),
      used: Number(v.used),
      requested: Number(v.requested),
      retryable: v.retryable,
      ...(v.retry_delay && { retry_delay_seconds: milliseconds(v.retry_delay)! / 1_000 }),
    })),
  };
}

function milliseconds(delay: Decision['retry_delay']): number | undefined {
  return delay ? Number(delay.seconds) * 1_000 + delay.nanos / 1e6 : undefined;
}
