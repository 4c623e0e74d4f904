// A real OpenID Connect provider for tests. Argument: JSON with issuer, port, keys, secret and resource.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const options = JSON.parse(process.argv[2]);
const require = createRequire(options.modules + "/");
const { Provider } = await import(pathToFileURL(require.resolve("oidc-provider")).href);

const server = { audience: options.resource, accessTokenFormat: "jwt", accessTokenTTL: 600, scope: "", jwt: { sign: { alg: options.alg } } };
const provider = new Provider(options.issuer, {
  jwks: { keys: options.keys },
  clients: [
    {
      client_id: "pulse",
      client_secret: options.secret,
      grant_types: ["client_credentials", "refresh_token", "password"],
      redirect_uris: [],
      response_types: [],
      id_token_signed_response_alg: options.alg,
      token_endpoint_auth_method: options.auth,
    },
  ],
  clientAuthMethods: [options.auth],
  enabledJWA: { idTokenSigningAlgValues: ["RS256", "PS256", "ES256"] },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => options.resource,
      getResourceServerInfo: () => server,
      useGrantedResource: () => true,
    },
  },
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  extraTokenClaims: () => ({ "https://pulse.example/tenant": "acme", realm_access: { roles: ["offline", "boss"] } }),
  rotateRefreshToken: true,
});

// What a browser would get by the authorization code flow.
provider.registerGrantType("password", async (ctx) => {
  const { client } = ctx.oidc;
  const grant = new provider.Grant({ accountId: "alice", clientId: client.clientId });
  grant.addOIDCScope("openid offline_access");
  grant.addResourceScope(options.resource, "");
  const grantId = await grant.save();
  const about = { accountId: "alice", client, grantId, gty: "password", scope: "openid offline_access" };
  const access = new provider.AccessToken({ ...about, scope: undefined });
  access.resourceServer = new provider.ResourceServer(options.resource, server);
  const refresh = new provider.RefreshToken({ ...about, resource: options.resource });
  const identity = new provider.IdToken({ sub: "alice" }, { ctx });
  identity.set("https://pulse.example/tenant", "acme");
  identity.set("realm_access", { roles: ["boss"] });
  identity.set("sub", "alice");
  identity.set("nonce", "n");
  ctx.body = {
    access_token: await access.save(),
    refresh_token: await refresh.save(),
    id_token: await identity.issue({ use: "idtoken" }),
    token_type: "Bearer",
  };
}, [], []);

provider.on("server_error", (ctx, error) => console.error(error));
provider.listen(options.port, "127.0.0.1", () => console.log("ready"));
