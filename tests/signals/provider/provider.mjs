// An OpenID provider with back-channel logout, for tests on this machine.
//
// PROVIDER is its configuration in JSON: port, and clients by id, each with the URL that is told of logouts
// (`logout`), and whether it is told of the session (`session`). It says READY on its output, and a line of JSON for
// each logout token that it sent.
import { Provider } from 'oidc-provider';

const { port, clients } = JSON.parse(process.env.PROVIDER);
const issuer = `http://127.0.0.1:${port}`;
const resource = 'urn:test:orders';
const say = (record) => console.log(JSON.stringify(record));

const provider = new Provider(issuer, {
  clients: Object.entries(clients).map(([id, { logout, session }]) => ({
    client_id: id,
    client_secret: `secret of ${id}, long enough for a shared one`,
    token_endpoint_auth_method: 'client_secret_post',
    redirect_uris: [`${issuer}/client/${id}`],
    post_logout_redirect_uris: [`${issuer}/client/bye`],
    backchannel_logout_uri: logout,
    backchannel_logout_session_required: session,
  })),
  features: {
    backchannelLogout: { enabled: true },
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => resource,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({ scope: 'read', audience: resource, accessTokenTTL: 600, accessTokenFormat: 'jwt' }),
    },
    rpInitiatedLogout: { enabled: true },
  },
  // Its own access tokens have no sid, as RFC 9068 does not require one: the provider has to be told.
  extraTokenClaims: (ctx) => ({ sid: ctx.oidc.entities.AuthorizationCode?.sid }),
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  pkce: { required: () => false },
  // The agent that it passes refuses addresses of this machine.
  fetch: (url, { dispatcher, ...options }) => fetch(url, options),
});
provider.on('backchannel.success', (ctx, client, account, sid) => say({ sent: client.clientId, account, sid }));
provider.on('backchannel.error', (ctx, error, client) => say({ failed: client.clientId, error: String(error) }));
provider.on('server_error', (ctx, error) => say({ failed: 'provider', error: String(error.stack) }));
provider.listen(port, '127.0.0.1', () => console.log('READY'));
