// What clients send.

import type { IncomingMessage } from 'node:http';

import type { ChatCompletionCreateParams } from 'groq-sdk/resources/chat/completions';

import type { Failure } from './errors.js';

export type Body = ChatCompletionCreateParams & Record<string, unknown>;

const MAX_BODY = 4 * 1024 * 1024;
/** The largest grant. Stands for a grant while the input is estimated: as long in the body as any. */
export const ANY_GRANT = 100_000_000;

/** The body, if a decision can be asked for it. */
export async function read(request: IncomingMessage): Promise<{ body: Body } | { fault: Failure }> {
  const pieces: Buffer[] = [];
  let size = 0;
  for await (const piece of request as AsyncIterable<Buffer>) {
    if ((size += piece.length) > MAX_BODY) return { fault: { status: 413, code: 'request_too_large', message: 'the body is too large' } };
    pieces.push(piece);
  }
  const body = parse(Buffer.concat(pieces).toString());
  const message = faultOf(body);
  return message ? { fault: { status: 400, code: 'invalid_request_error', message } } : { body: body as Body };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function faultOf(value: unknown): string | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'the body is no JSON object';
  const body = value as Record<string, unknown>;
  if (typeof body.model !== 'string') return '`model` is missing';
  if (typeof (body.stream ?? false) !== 'boolean') return '`stream` is no boolean';
  if ((body.n ?? 1) !== 1) return '`n` must be 1, as at Groq';
  if (!['auto', 'on_demand', 'flex', 'performance'].includes(String(body.service_tier ?? 'auto'))) return "`service_tier` is none of Groq's";
  const tools = body.tools ?? [];
  if (!Array.isArray(tools) || tools.some((tool) => typeof tool?.type !== 'string')) return '`tools` is no list of tools';
  for (const name of ['max_tokens', 'max_completion_tokens']) {
    const bound = body[name] ?? 1;
    if (!Number.isInteger(bound) || Number(bound) < 1 || Number(bound) > ANY_GRANT) return `\`${name}\` is no number of tokens`;
  }
  return undefined;
}

/** Whether nothing can have reached Groq. */
export function isRefusedConnection(error: unknown): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if ('code' in cause && ['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'UND_ERR_CONNECT_TIMEOUT'].includes(String(cause.code))) return true;
  }
  return false;
}
