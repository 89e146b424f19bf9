// A real OpenID provider on a free port of loopback. It prints one line of JSON, its issuer and a token for each of its
// clients, got by the client-credentials grant over HTTP, and serves until its standard input closes. People sign in to the
// console at CONSOLE by a page of the provider, or as who the header `x-login` says. It vouches for them for ID_TOKEN_SECONDS,
// and knows ANOTHER administrator.

import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';

import { Provider } from 'oidc-provider';

const AUDIENCE = 'https://tollgate.example';
const SECRET = 'a_secret_of_clients_that_only_this_provider_knows_%+&';
// What the organization says of each client; a directory would say it of people.
const GROUPS = { platform: ['platform-admins'], finance: ['staff', 'finance'], stranger: ['visitors'] };

// What it says of people.
const PEOPLE = { ada: ['platform-admins', 'staff'], finn: ['finance'], vera: ['visitors'] };
if (process.env.ANOTHER) PEOPLE[process.env.ANOTHER] = ['platform-admins'];

const server = createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

function key(type, options, kid, alg) {
  const jwk = generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' });
  return { ...jwk, kid, alg, use: 'sig' };
}

const provider = new Provider(issuer, {
  clients: Object.keys(GROUPS).map((client_id) => ({
    client_id,
    client_secret: SECRET,
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  })).concat({
    client_id: 'tollgate-console',
    client_secret: SECRET,
    grant_types: ['authorization_code'],
    redirect_uris: [`${process.env.CONSOLE}/auth/callback`],
    response_types: ['code'],
  }),
  claims: { openid: ['sub', 'groups'], profile: ['name'] },
  conformIdTokenClaims: false,
  ttl: { IdToken: Number(process.env.ID_TOKEN_SECONDS ?? 3600) },
  findAccount: (ctx, sub) => ({ accountId: sub, claims: () => ({ sub, name: `${sub} of Acme`, groups: PEOPLE[sub] }) }),
  // The console is the organization's own: people are not asked whether it may know them.
  async loadExistingGrant(ctx) {
    const { client, session } = ctx.oidc;
    const grant = new ctx.oidc.provider.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addOIDCScope('openid profile');
    await grant.save();
    return grant;
  },
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  cookies: { keys: ['only for this run'] },
  jwks: {
    keys: [key('rsa', { modulusLength: 2048 }, 'first', 'RS256'), key('ec', { namedCurve: 'P-256' }, 'second', 'ES256')],
  },
  extraTokenClaims: (ctx, token) => ({ groups: GROUPS[token.clientId] }),
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (ctx, resource, client) => ({
        audience: AUDIENCE,
        scope: 'ask',
        accessTokenFormat: 'jwt',
        accessTokenTTL: 600,
        jwt: { sign: { alg: client.clientId === 'finance' ? 'ES256' : 'RS256' } },
      }),
    },
  },
});
const callback = provider.callback();
// Whom a form names; passwords are no part of this.
const page = `<!doctype html><html lang="en"><title>Sign in to Acme</title><h1>Acme</h1>
<form method="post"><label>Login <input name="login" required autofocus></label> <button>Sign in</button></form></html>`;
async function named(request) {
  if (request.method !== 'POST') return undefined;
  let body = '';
  for await (const part of request) body += part;
  return new URLSearchParams(body).get('login') ?? undefined;
}
server.on('request', async (request, response) => {
  if (!request.url.startsWith('/interaction/')) return callback(request, response);
  const accountId = request.headers['x-login'] ?? await named(request);
  if (!accountId) {
    response.setHeader('content-type', 'text/html; charset=utf-8');
    response.end(page);
    return;
  }
  const refused = { error: 'access_denied', error_description: 'not today' };
  const result = PEOPLE[accountId] ? { login: { accountId } } : refused;
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
});

async function token(client) {
  const { token_endpoint } = await (await fetch(`${issuer}/.well-known/openid-configuration`)).json();
  const answer = await fetch(token_endpoint, {
    method: 'POST',
    headers: { authorization: `Basic ${Buffer.from(`${client}:${encodeURIComponent(SECRET)}`).toString('base64')}` },
    body: new URLSearchParams({ grant_type: 'client_credentials', resource: AUDIENCE, scope: 'ask' }),
  });
  const body = await answer.json();
  if (!body.access_token) throw new Error(JSON.stringify(body));
  return body.access_token;
}

const tokens = {};
for (const client of Object.keys(GROUPS)) tokens[client] = await token(client);
console.log(JSON.stringify({ issuer, audience: AUDIENCE, secret: SECRET, tokens }));
// The provider itself keeps saying things, to a reader that has left.
process.stdout.on('error', () => {});
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
