// A gateway's day against a Tollgate server that is known only by reflection (v1): no .proto file, no generated code.
//
//     node day.mjs HOST:PORT
//
// The server runs with ../policy.toml and has not seen the team `node` before. Prints a line for each call; ends with 1 at
// the first answer that is not as it must be, and with 2 where there is no server.

import { isDeepStrictEqual } from 'node:util';

import grpc from '@grpc/grpc-js';
import { loadFileDescriptorSetFromBuffer } from '@grpc/proto-loader';
import protobuf from 'protobufjs';

import { describe } from './reflection.mjs';

const SERVICE = 'tollgate.v1.PolicyService';
const MODEL = 'openai/gpt-oss-120b';
const TIMEOUT_MS = 10_000;

const details = protobuf.Root.fromJSON({
  nested: {
    Status: { fields: { details: { rule: 'repeated', type: 'Any', id: 3 } } },
    Any: { fields: { typeUrl: { type: 'string', id: 1 }, value: { type: 'bytes', id: 2 } } },
    BadRequest: { fields: { fieldViolations: { rule: 'repeated', type: 'FieldViolation', id: 1 } } },
    FieldViolation: { fields: { field: { type: 'string', id: 1 }, description: { type: 'string', id: 2 } } },
    ErrorInfo: { fields: { reason: { type: 'string', id: 1 }, domain: { type: 'string', id: 2 } } },
  },
});

class Mismatch extends Error {}

function check(what, came, expected) {
  if (!isDeepStrictEqual(came, expected)) {
    throw new Mismatch(`${what}: expected ${JSON.stringify(expected)}, came ${JSON.stringify(came)}`);
  }
}

/** An amount in billionths of a dollar, as text: exact, never a float. */
function nanos(money) {
  check('the currency', money?.currency_code, 'USD');
  return String(BigInt(money.units) * 1_000_000_000n + BigInt(money.nanos));
}

const say = (text) => console.log(`node: ${text}`);

/** A function that calls one method of the service and answers what came. */
async function connect(address) {
  const { services, descriptors } = await describe(address, SERVICE, TIMEOUT_MS);
  check('the service is listed', services.includes(SERVICE), true);
  const options = { longs: String, enums: String, defaults: true, oneofs: true };
  const packages = loadFileDescriptorSetFromBuffer(descriptors, options);
  const Client = grpc.loadPackageDefinition(packages).tollgate.v1.PolicyService;
  const client = new Client(address, grpc.credentials.createInsecure());
  const call = (method, request) =>
    new Promise((resolve, reject) => {
      client[method](request, { deadline: Date.now() + TIMEOUT_MS }, (error, answer) => (error ? reject(error) : resolve(answer)));
    });
  return { call, close: () => client.close() };
}

/** The details of the error that the call must end with, by their type. */
async function fails(call, method, code, request) {
  let answer;
  try {
    answer = await call(method, request);
  } catch (error) {
    check(`${method}: the error (${error.details})`, grpc.status[error.code], code);
    const found = {};
    for (const binary of error.metadata.get('grpc-status-details-bin')) {
      for (const { typeUrl, value } of details.lookupType('Status').decode(binary).details) {
        const kind = typeUrl.split('.').pop();
        if (details.get(kind)) found[kind] = details.lookupType(kind).decode(value);
      }
    }
    return found;
  }
  throw new Mismatch(`${method}: expected the error ${code}, came ${JSON.stringify(answer)}`);
}

/** Groq's own example, asked for: the worst case is reserved, once. */
async function authorized(call) {
  const request = {
    team: 'node',
    request_id: 'day-1',
    model: MODEL,
    operation: 'OPERATION_CHAT_COMPLETION',
    input_tokens: 4_641,
    max_output_tokens: 2_048,
    // From descriptors, this library sees a map as its entries.
    labels: [{ key: 'route', value: '/answers' }],
  };
  const answer = await call('Authorize', request);
  check('the decision', answer.decision, 'DECISION_ALLOWED');
  check('the granted output', answer.max_output_tokens, '2048');
  check('the reserved cost', nanos(answer.reserved_cost), '1924950');
  check("the length of the reservation's id", answer.reservation_id.length, 32);
  check('violations', answer.violations, []);
  say(`Authorize allowed, ${nanos(answer.reserved_cost)} billionths of a dollar reserved`);

  const again = await call('Authorize', request);
  check("the repeated answer's reservation", again.reservation_id, answer.reservation_id);
  say('Authorize repeated, same reservation');

  const found = await fails(call, 'Authorize', 'ALREADY_EXISTS', { ...request, max_output_tokens: 1 });
  check('an ErrorInfo', 'ErrorInfo' in found, true);
  say('Authorize with the same id for another request refused');
  return answer.reservation_id;
}

/** The use of Groq's example: booked to the billionth of a dollar, once. */
async function recorded(call, reservationId) {
  const report = {
    reservation_id: reservationId,
    outcome: 'OUTCOME_COMPLETED',
    usage: { input_tokens: 4_641, cached_input_tokens: 4_608, output_tokens: 1_817, reasoning_tokens: 1_024 },
  };
  const answer = await call('RecordUsage', report);
  check('the cost', nanos(answer.cost), '1440750');
  check('recorded before', answer.already_recorded, false);
  check("the team's spend", nanos(answer.team_spend.spent), '1440750');
  check('what is reserved', nanos(answer.team_spend.reserved), '0');
  check('what remains', nanos(answer.team_spend.remaining), '559250');
  check('the alerts', answer.alerts.map((alert) => alert.threshold), ['50%']);
  say('RecordUsage booked 1440750 billionths of a dollar');

  const again = await call('RecordUsage', report);
  check('recorded before', again.already_recorded, true);
  check('the repeated cost', nanos(again.cost), '1440750');
  say('RecordUsage repeated, booked once');
}

/** What the rest of the budget cannot pay for, and what the policy never permits. */
async function denied(call) {
  const request = { team: 'node', model: MODEL, operation: 'OPERATION_CHAT_COMPLETION', input_tokens: 4_641, max_output_tokens: 2_048 };
  const short = await call('Authorize', request);
  check('the decision', short.decision, 'DECISION_DENIED');
  check('the number of violations', short.violations.length, 1);
  const [violation] = short.violations;
  check('the reason', violation.reason, 'REASON_TEAM_BUDGET_EXHAUSTED');
  check("the limit's place", violation.limit_id, 'teams.node.budget.monthly_usd');
  check('the bound, used, requested', [violation.limit, violation.used, violation.requested], ['2000000', '1440750', '1924950']);
  check('whether waiting helps', violation.retryable, true);
  const delay = Number(short.retry_delay.seconds);
  check('a retry delay within the month', delay >= 0 && delay <= 31 * 86_400, true);
  say(`Authorize denied: ${violation.message}`);

  const other = await call('Authorize', { ...request, model: 'openai/gpt-oss-20b' });
  check('the decision', other.decision, 'DECISION_DENIED');
  check('the reasons', other.violations.map((v) => v.reason), ['REASON_MODEL_NOT_ALLOWED']);
  check('a retry delay', other.retry_delay, null);
  say(`Authorize denied: ${other.violations[0].message}`);
}

/** Errors that name what is wrong. */
async function malformed(call) {
  const found = await fails(call, 'Authorize', 'INVALID_ARGUMENT', { team: 'node', input_tokens: -1 });
  const fields = found.BadRequest.fieldViolations.map((violation) => violation.field).sort();
  check('the malformed fields', fields, ['input_tokens', 'model', 'operation']);
  say(`Authorize refused, naming ${fields.join(', ')}`);

  await fails(call, 'RecordUsage', 'NOT_FOUND', { reservation_id: '01' + '0'.repeat(30), outcome: 'OUTCOME_NOT_SENT' });
  say('RecordUsage of an unknown reservation refused');
}

/** The team's month, to the billionth of a dollar. */
async function reported(call) {
  const answer = await call('GetSpend', { team: 'node' });
  check('the teams', answer.teams.map((team) => team.name), ['node']);
  const [team] = answer.teams;
  check('spent', nanos(team.spend.spent), '1440750');
  check('the budget', nanos(team.spend.budget), '2000000');
  check('requests and tokens', [team.requests, team.tokens], ['1', '6458']);
  check('by model', team.by_model.map((line) => [line.name, nanos(line.spent)]), [[MODEL, '1440750']]);
  check('the days', team.by_day.length, 1);
  say(`GetSpend of ${answer.month}: 1440750 of 2000000 billionths of a dollar`);

  await fails(call, 'GetSpend', 'NOT_FOUND', { team: 'nobody' });
  say('GetSpend of an unknown team refused');
}

async function main(address) {
  let server;
  try {
    server = await connect(address);
    say('reflection v1 describes the service');
    await recorded(server.call, await authorized(server.call));
    await denied(server.call);
    await malformed(server.call);
    await reported(server.call);
    return 0;
  } catch (error) {
    if (!server && error.code === grpc.status.UNAVAILABLE) {
      console.error(`node: no server at ${address}`);
      return 2;
    }
    console.error(`node: ${error.message}`);
    return 1;
  } finally {
    server?.close();
  }
}

if (process.argv.length !== 3) {
  console.error('usage: node day.mjs HOST:PORT');
  process.exit(2);
}
process.exit(await main(process.argv[2]));
