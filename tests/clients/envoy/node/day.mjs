// A day of mixed traffic through a gateway to a mock of Groq, with the official SDKs: a smaller one than ../python/day.py.
//
//     node day.mjs BASE_URL API_KEY [--requests N] [--concurrency C]
//
// BASE_URL is the gateway's, without a path. Each prompt tells the mock how to answer (tests/support/mock_groq), and each answer is held
// against that. Prints one line of JSON, counts by kind and outcome; ends with 1 when an answer is not what was asked for.
//
// The input of a request that breaks off is billed by the size of its body. So such a request says by itself all that a gateway
// would otherwise write into it: a bound on the output, and that the stream is to tell its usage.

import { isDeepStrictEqual, parseArgs } from 'node:util';

import Groq from 'groq-sdk';
import OpenAI from 'openai';

const MODELS = ['openai/gpt-oss-120b', 'openai/gpt-oss-20b'];
const TOKEN_BYTES = 3;
// A gateway and a mock that share a busy machine with this; none of the requests takes long by itself.
const TIMEOUT_MS = 60_000;

class Mismatch extends Error {}

function check(what, came, expected) {
  if (!isDeepStrictEqual(came, expected)) {
    throw new Mismatch(`${what}: expected ${JSON.stringify(expected)}, came ${JSON.stringify(came)}`);
  }
}

const bytes = (text) => Buffer.byteLength(text ?? '');
const prompt = (number, directive) => `question ${number} mock:${JSON.stringify(directive)}`;

/** A chat request that no gateway needs to rewrite. */
const chat = (number, directive, more = {}) => ({
  model: MODELS[number % MODELS.length],
  messages: [{ role: 'user', content: prompt(number, directive) }],
  max_completion_tokens: 64,
  ...more,
});

const streamed = { stream: true, stream_options: { include_usage: true } };

/** How many tokens a chunk carries: the mock writes one at a time. */
const tokensIn = (chunk) => chunk.choices.filter(({ delta }) => delta.content || delta.reasoning).length;

/** Each plays one request of its kind, and names its outcome. */
const kinds = {
  async plain({ groq }, number) {
    const tokens = (number % 30) + 1;
    const directive = { completion_tokens: tokens, reasoning_tokens: 1, prompt_tokens: 90, cached_tokens: number % 50 };
    const { choices, usage } = await groq.chat.completions.create(chat(number, directive));
    check('output tokens', usage.completion_tokens, tokens);
    check('cached tokens', usage.prompt_tokens_details.cached_tokens, number % 50);
    check('bytes of content', bytes(choices[0].message.content), (tokens - 1) * TOKEN_BYTES);
    return '200';
  },

  async stream({ groq }, number) {
    const tokens = (number % 30) + 1;
    const directive = { completion_tokens: tokens, split: (number % 9) + 1 };
    let content = '';
    let usage;
    for await (const chunk of await groq.chat.completions.create(chat(number, directive, { stream: true }))) {
      content += chunk.choices[0]?.delta.content ?? '';
      usage = chunk.x_groq?.usage ?? usage;
    }
    check('output tokens', usage.completion_tokens, tokens);
    check('bytes of content', bytes(content), tokens * TOKEN_BYTES);
    return '200';
  },

  async responses({ openai }, number) {
    const tokens = (number % 30) + 1;
    const request = { model: MODELS[0], input: prompt(number, { completion_tokens: tokens }), max_output_tokens: 64 };
    const stream = await openai.responses.create({ ...request, stream: true });
    let last;
    for await (const event of stream) last = event;
    check('the last event', last.type, 'response.completed');
    check('output tokens', last.response.usage.output_tokens, tokens);
    return '200';
  },

  async error({ groq }, number) {
    const [status, kind] = [
      [400, Groq.BadRequestError],
      [413, Groq.APIError],
      [498, Groq.APIError],
      [500, Groq.InternalServerError],
    ][Math.floor(number / 7) % 4];
    try {
      await groq.chat.completions.create(chat(number, { status }));
    } catch (error) {
      check('the exception', error instanceof kind, true);
      check('the status', error.status, status);
      check('the body has a message', typeof error.error?.error?.message, 'string');
      return String(status);
    }
    throw new Mismatch(`expected the error ${status}, came an answer`);
  },

  /** Groq breaks the stream off. */
  async cut({ groq }, number) {
    const count = (number % 9) + 1;
    let seen = 0;
    try {
      const directive = { completion_tokens: 30, cut_after: count };
      for await (const chunk of await groq.chat.completions.create(chat(number, directive, streamed))) seen += tokensIn(chunk);
    } catch (error) {
      if (error instanceof Mismatch) throw error;
      check('tokens before the cut', seen, count);
      return 'cut';
    }
    throw new Mismatch(`the stream ended after ${seen} tokens as if it were whole`);
  },

  /** The client leaves, at a token after which nothing more comes. */
  async abort({ groq }, number) {
    const count = (number % 9) + 1;
    const directive = { completion_tokens: 30, stall_after: count };
    const stream = await groq.chat.completions.create(chat(number, directive, streamed));
    let seen = 0;
    for await (const chunk of stream) {
      seen += tokensIn(chunk);
      if (seen === count) break;
    }
    stream.controller.abort();
    check('tokens before leaving', seen, count);
    return 'aborted';
  },
};

// By the number of a request, so that every day is the same.
const TURNS = ['plain', 'stream', 'plain', 'responses', 'cut', 'stream', 'abort', 'error', 'plain', 'stream'];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { requests: { type: 'string', default: '100' }, concurrency: { type: 'string', default: '8' } },
});
const [baseURL, apiKey] = positionals;
if (!apiKey) {
  console.error('usage: node day.mjs BASE_URL API_KEY [--requests N] [--concurrency C]');
  process.exit(2);
}

const options = { apiKey, maxRetries: 0, timeout: TIMEOUT_MS };
const clients = {
  groq: new Groq({ baseURL, ...options }),
  openai: new OpenAI({ baseURL: `${baseURL}/openai/v1`, ...options }),
};
const requests = Number(values.requests);
const outcomes = {};
const mismatches = [];
let next = 0;

async function worker() {
  while (next < requests) {
    const number = next++;
    const kind = TURNS[number % TURNS.length];
    let outcome = 'mismatch';
    try {
      outcome = await kinds[kind](clients, number);
    } catch (error) {
      mismatches.push(`request ${number}, ${kind}: ${error.constructor.name}: ${error.message}`);
    }
    outcomes[kind] ??= {};
    outcomes[kind][outcome] = (outcomes[kind][outcome] ?? 0) + 1;
  }
}

await Promise.all(Array.from({ length: Number(values.concurrency) }, worker));
console.log(JSON.stringify({ requests, kinds: outcomes, mismatches: mismatches.length }));
for (const mismatch of mismatches.slice(0, 20)) console.error(mismatch);
process.exit(mismatches.length > 0 ? 1 : 0);
