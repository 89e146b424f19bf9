// A gateway to Groq's chat completions: Tollgate decides before each request, and learns of each what it really used.

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';

import Groq, { APIError } from 'groq-sdk';
import type {
  ChatCompletionCreateParamsNonStreaming as Whole,
  ChatCompletionCreateParamsStreaming as Streamed,
} from 'groq-sdk/resources/chat/completions';

import { Answer, type Ending } from './answer.js';
import { denial, fail } from './errors.js';
import { ANY_GRANT, type Body, isRefusedConnection, read } from './request.js';
import { retryInfo, Tollgate } from './tollgate.js';

const { env } = process;
const [host = '127.0.0.1', port = '8080'] = (env.LISTEN ?? '').split(':').filter(Boolean);
const waitMs = Number(env.MAX_WAIT_SECONDS ?? 5) * 1_000;
const drainMs = Number(env.DRAIN_SECONDS ?? 20) * 1_000;

/** Less than a reservation lives, so that usage is reported before it expires. */
const LONGEST_MS = 9 * 60_000;

const tollgate = new Tollgate(env.TOLLGATE_ADDRESS ?? '127.0.0.1:50051', env.TOLLGATE_TOKEN);
// The SDK must not retry: each request that Groq gets is authorized by itself.
const groq = new Groq({ maxRetries: 0, timeout: LONGEST_MS });
const stopping = new AbortController();

async function complete(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const gone = new AbortController();
  response.on('close', () => gone.abort());
  const signal = AbortSignal.any([gone.signal, stopping.signal, AbortSignal.timeout(LONGEST_MS)]);

  const apiKey = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1];
  if (!env.TEAM && !apiKey) return fail(response, { status: 401, code: 'invalid_api_key', message: 'send a virtual key as the bearer token' });
  const asked = await read(request);
  if ('fault' in asked) return fail(response, asked.fault);
  const { body } = asked;

  const wanted = Number(body.max_completion_tokens ?? body.max_tokens ?? 0);
  const sent: Body = { ...body, max_completion_tokens: wanted || ANY_GRANT };
  delete sent.max_tokens;
  // Without it Groq tells the usage of a stream in a field of its own only, if at all.
  if (sent.stream) sent.stream_options = { ...(body.stream_options as object), include_usage: true };

  const decision = await tollgate
    .authorize(
      {
        ...(env.TEAM ? { team: env.TEAM } : { api_key: apiKey! }),
        ...(typeof body.user === 'string' && { user: body.user }),
        request_id: randomUUID(),
        model: body.model,
        operation: 'OPERATION_CHAT_COMPLETION',
        service_tier: body.service_tier ? (`SERVICE_TIER_${body.service_tier.toUpperCase()}` as 'SERVICE_TIER_FLEX') : 'SERVICE_TIER_UNSPECIFIED',
        input_bytes: Buffer.byteLength(JSON.stringify(sent)),
        max_output_tokens: wanted,
        tools: (body.tools ?? []).map((tool) => tool.type).filter((type) => type !== 'function'),
        max_wait: { seconds: Math.floor(waitMs / 1_000), nanos: (waitMs % 1_000) * 1e6 },
        limit_view: 'LIMIT_VIEW_NONE',
      },
      waitMs,
      signal,
    )
    .catch((error: Error) => {
      // Without a decision nothing is sent: that keeps the promise of the budgets.
      const refused = 'code' in error && error.code === 3; // INVALID_ARGUMENT
      fail(response, refused
        ? { status: 400, code: 'invalid_request_error', message: error.message }
        : { status: 503, code: 'service_unavailable', message: 'no decision can be made', retryMs: retryInfo(error) ?? 1_000, shouldRetry: true });
    });
  if (!decision) return;
  if (decision.decision !== 'DECISION_ALLOWED') return fail(response, denial(decision));

  // From here on there is a reservation, and each way out of this function reports how it ended.
  let ending: Ending = { outcome: 'OUTCOME_NOT_SENT' };
  try {
    if (signal.aborted) return void response.destroy();
    response.setHeader('x-tollgate-reservation', decision.reservation_id);
    sent.max_completion_tokens = Number(decision.max_output_tokens);
    // Should this code fail from here on, the team's `on_unsettled` decides.
    ending = { outcome: 'OUTCOME_ABORTED' };
    ending = await proxy(sent, response, signal);
  } finally {
    tollgate.report({ reservation_id: decision.reservation_id, ...ending });
  }
}

/** Sends the request to Groq and its answer to the client, and says how that ended. */
async function proxy(sent: Body, response: ServerResponse, signal: AbortSignal): Promise<Ending> {
  const answer = new Answer(sent);
  try {
    if (!sent.stream) {
      const whole = await groq.chat.completions.create(sent as Whole, { signal });
      answer.usage = whole.usage;
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(whole));
      return answer.ending(true);
    }
    const chunks = await groq.chat.completions.create(sent as Streamed, { signal });
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
    for await (const chunk of chunks) {
      answer.add(chunk);
      if (!response.write(`data: ${JSON.stringify(chunk)}\n\n`)) await once(response, 'drain', { signal });
    }
    // A stream that merely ends was cut, and the client is to see that.
    if (answer.isFinished) response.end('data: [DONE]\n\n');
    else response.destroy();
    return answer.ending(answer.isFinished);
  } catch (error) {
    const status = error instanceof APIError ? (error.status as number | undefined) : undefined;
    if (error instanceof APIError && status) {
      const after = Number(error.headers?.get('retry-after') ?? NaN);
      const retry: Record<string, string> = Number.isFinite(after) ? { 'retry-after': String(after) } : {};
      response.writeHead(status, { 'content-type': 'application/json', ...retry }).end(JSON.stringify(error.error ?? {}));
      if (status !== 429) return { outcome: 'OUTCOME_FAILED', upstream_status: status };
      const upstream_retry_delay = Number.isFinite(after) ? { seconds: Math.floor(after), nanos: Math.round((after % 1) * 1e9) } : null;
      return { outcome: 'OUTCOME_RATE_LIMITED', upstream_retry_delay };
    }
    if (response.headersSent) response.destroy();
    else fail(response, { status: 502, code: 'bad_gateway', message: 'Groq did not answer', shouldRetry: true });
    return isRefusedConnection(error) ? { outcome: 'OUTCOME_NOT_SENT' } : answer.ending(false);
  }
}

const open = new Set<Promise<void>>();
const server = createServer((request, response) => {
  if (request.method !== 'POST' || request.url !== '/openai/v1/chat/completions') {
    return fail(response, { status: 404, code: 'unknown_url', message: `unknown: ${request.method} ${request.url}` });
  }
  const exchange = complete(request, response).catch((error: Error) => {
    console.error('a request failed', error.message);
    response.destroy();
  });
  open.add(exchange);
  void exchange.finally(() => open.delete(exchange));
});

/** Stops accepting, lets requests end until `drainMs` is over, ends the others, and reports all that was used. */
process.once('SIGTERM', async () => {
  server.close();
  const hurry = setTimeout(() => stopping.abort(), drainMs);
  await Promise.all(open);
  clearTimeout(hurry);
  await tollgate.close();
  process.exit(0);
});

server.listen(Number(port), host, () => {
  const at = server.address();
  console.log(`gateway listens on ${host}:${typeof at === 'object' ? at?.port : at}`);
});
