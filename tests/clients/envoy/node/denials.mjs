// Denials as the official SDKs of Node take them: the error that they throw, and how often they ask.
//
//     node denials.mjs BASE_URL KEYS
//
// KEYS is a JSON object of virtual keys by the name of their team in tests/clients/envoy/policy.toml. See ../python/denials.py.

import assert from 'node:assert/strict';

import Groq from 'groq-sdk';
import OpenAI from 'openai';

const [baseURL, keysText] = process.argv.slice(2);
const keys = JSON.parse(keysText);

async function ask(Sdk, key, { model = 'openai/gpt-oss-20b', ...fields } = {}) {
  let sent = 0;
  const counting = (...request) => {
    sent += 1;
    return fetch(...request);
  };
  const client = new Sdk({
    baseURL: Sdk === Groq ? baseURL : `${baseURL}/openai/v1`,
    apiKey: key,
    maxRetries: 2,
    fetch: counting,
  });
  try {
    const messages = [{ role: 'user', content: 'mock:{}' }];
    return { answer: await client.chat.completions.create({ model, messages, ...fields }), sent };
  } catch (error) {
    return { error, sent };
  }
}

for (const Sdk of [Groq, OpenAI]) {
  for (const [key, fields, thrown, status, code] of [
    ['tgk_wrong', {}, Sdk.AuthenticationError, 401, 'invalid_api_key'],
    [keys.roomy, { model: 'whisper-large-v3' }, Sdk.PermissionDeniedError, 403, 'permission_denied'],
    [keys.roomy, { model: 'openai/unpriced' }, Sdk.NotFoundError, 404, 'model_not_found'],
    [keys.roomy, { max_completion_tokens: 9999 }, Sdk.BadRequestError, 400, 'max_output_tokens_exceeded'],
    [keys.poor, {}, Sdk.APIError, 402, 'insufficient_quota'],
    [keys.small, {}, Sdk.APIError, 413, 'request_too_large'],
  ]) {
    const { error, sent } = await ask(Sdk, key, fields);
    assert.ok(error instanceof thrown, `${code}: ${error}`);
    assert.equal(error.status, status);
    assert.equal((error.error.error ?? error.error).code, code);
    assert.equal(sent, 1, `${code}: sent ${sent} times`);
  }
  assert.ok((await ask(Sdk, keys.roomy)).answer.usage.completion_tokens > 0);
}
console.log('every denial was taken as it was meant');
