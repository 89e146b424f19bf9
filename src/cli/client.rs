//! The connection to a running service, and its errors in words.

use std::{convert::Infallible, future::Future, path::PathBuf, time::Duration};

use clap::{
    Args, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use tokio::runtime::Builder;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, ClientTlsConfig, Endpoint},
};
use tonic_types::StatusExt as _;

use super::{
    client_tls::{self, TlsArgs},
    keys,
    screen::Failure,
};
use crate::{
    domain::{
        request::Operation,
        secret::{self, MalformedSecret},
    },
    rpc::proto::{self, key_service_client::KeyServiceClient, policy_service_client::PolicyServiceClient},
};

/// A gRPC client of the service.
pub(super) type Client = PolicyServiceClient<Line>;

/// A connection on which every call carries the caller's token.
pub(super) type Line = InterceptedService<Channel, Token>;

/// The same for keys.
pub(super) type KeyClient = KeyServiceClient<Line>;

/// How long to wait for a connection: a running service answers within milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Where `tollgate serve` listens by default.
const ADDRESS: &str = "127.0.0.1:50051";

/// An address as given; a variable set to an empty value counts as not set.
fn address(text: &str) -> Result<String, Infallible> {
    Ok(if text.is_empty() { ADDRESS.to_owned() } else { text.to_owned() })
}

/// Which service to ask.
#[derive(Args, Clone)]
pub(super) struct Connection {
    /// The service's gRPC address; https://HOST:PORT for one with TLS
    #[arg(long, value_name = "HOST:PORT", env = "TOLLGATE_ADDRESS", default_value = ADDRESS, value_parser = address)]
    pub(super) address: String,
    /// How long an answer may take, such as 5s; --max-wait comes on top
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = super::text::parse_duration)]
    pub(super) timeout: Duration,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    token: TokenArgs,
}

impl Connection {
    /// Connects.
    pub(super) async fn open(&self) -> Result<Client, Failure> {
        self.channel().await.map(Client::new)
    }

    /// Connects, for the clients of other services.
    pub(super) async fn channel(&self) -> Result<Line, Failure> {
        let (tls, token) = (self.tls.config_for(&self.address)?, self.token.resolve()?);
        Ok(Line::new(open(&self.address, tls, self.timeout).await?, token))
    }

    /// Connects, to manage keys.
    pub(super) async fn open_keys(&self) -> Result<KeyClient, Failure> {
        self.channel().await.map(KeyServiceClient::new)
    }
}

/// The credential to ask with.
#[derive(Args, Clone, Default)]
pub(super) struct TokenArgs {
    /// A file with the bearer token to ask with; without it, TOLLGATE_TOKEN holds the token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl TokenArgs {
    /// The token as given. It is never an argument: other users of the machine can read those.
    pub(super) fn resolve(&self) -> Result<Token, Failure> {
        let (text, origin) = match &self.token_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
                (text, path.display().to_string())
            }
            None => match std::env::var("TOLLGATE_TOKEN").ok().filter(|token| !token.is_empty()) {
                Some(text) => (text, "TOLLGATE_TOKEN".to_owned()),
                None => return Ok(Token(None)),
            },
        };
        let malformed = |why: MalformedSecret| Failure::new(format!("{origin} does not hold a token: {why}"));
        let token = secret::word(&text, usize::MAX).map_err(malformed)?;
        let value = MetadataValue::try_from(format!("Bearer {token}"));
        let mut value = value.map_err(|_| malformed(MalformedSecret::NotOneWord))?;
        value.set_sensitive(true);
        Ok(Token(Some(value)))
    }
}

/// The bearer token that goes with every call, if there is one.
#[derive(Clone)]
pub(super) struct Token(Option<MetadataValue<Ascii>>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// Connects to `address`, without TLS, and asks with `token`; no call takes longer than `timeout`.
pub(super) async fn connect(address: &str, timeout: Duration, token: Token) -> Result<Client, Failure> {
    open(address, None, timeout).await.map(|channel| Client::new(Line::new(channel, token)))
}

async fn open(address: &str, tls: Option<ClientTlsConfig>, timeout: Duration) -> Result<Channel, Failure> {
    let authority =
        address.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{authority}"))
        .map_err(|_| Failure::new(format!("`{address}` is not an address; write HOST:PORT")))?;
    let mut endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).timeout(timeout);
    let encrypted = tls.is_some();
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(tls).map_err(|error| client_tls::unusable(&error))?;
    }
    match endpoint.connect().await {
        Ok(channel) => Ok(channel),
        Err(error) if encrypted => Err(client_tls::unreachable(authority, &error)),
        Err(_) => Err(Failure::new(format!("cannot reach {authority}: is `tollgate serve` running?"))),
    }
}

/// Runs a command's calls to their end.
pub(super) fn block_on<T>(calls: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(format!("cannot start: {error}")))?.block_on(calls)
}

/// An error of the service in readable form: a line for each malformed field, or its message, and when to retry.
pub(super) fn explain(status: &Status) -> Failure {
    let details = status.get_error_details();
    let fields = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
    let mut text = if fields.is_empty() {
        let broken = client_tls::broken(status).unwrap_or_default();
        format!("{}: {}{broken}", code_name(status), status.message())
    } else {
        let lines =
            fields.iter().map(|violation| format!("\n  {}: {}", violation.field, violation.description));
        format!("{}: the request is malformed{}", code_name(status), lines.collect::<String>())
    };
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        text.push_str(&format!("; try again in {} s", delay.as_secs_f32()));
    }
    Failure::Explained(text)
}

/// The code as the gRPC specification writes it, such as `INVALID_ARGUMENT`.
fn code_name(status: &Status) -> String {
    let mut name = String::new();
    for letter in format!("{:?}", status.code()).chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// Who asks.
#[derive(Args)]
pub(super) struct CallerArgs {
    /// The team that asks
    #[arg(long, value_name = "NAME", conflicts_with = "api_key_file")]
    team: Option<String>,
    /// A file with the secret of a virtual key; without it and --team, TOLLGATE_API_KEY holds the secret
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
}

/// A team's name, or the secret of a key.
pub(super) enum CallerName {
    Team(String),
    ApiKey(String),
}

impl CallerArgs {
    /// The caller as given; `None` if neither flags nor environment name one. A secret is never an argument: other users of
    /// the machine can read those.
    pub(super) fn resolve(self) -> Result<Option<CallerName>, Failure> {
        if let Some(team) = self.team {
            return Ok(Some(CallerName::Team(team)));
        }
        if let Some(path) = self.api_key_file {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
            return keys::secret_of(&text).map(|secret| Some(CallerName::ApiKey(secret.to_owned())));
        }
        match std::env::var("TOLLGATE_API_KEY").ok().filter(|secret| !secret.is_empty()) {
            Some(text) => keys::secret_of(&text).map(|secret| Some(CallerName::ApiKey(secret.to_owned()))),
            None => Ok(None),
        }
    }
}

/// Reads an operation by its name in policies.
pub(super) fn operation_parser() -> impl TypedValueParser<Value = proto::Operation> {
    PossibleValuesParser::new(Operation::ALL.map(Operation::name)).map(|name| match name.parse() {
        Ok(operation) => to_wire(operation),
        Err(()) => proto::Operation::Unspecified,
    })
}

/// An operation on the wire.
pub(super) const fn to_wire(operation: Operation) -> proto::Operation {
    match operation {
        Operation::Chat => proto::Operation::ChatCompletion,
        Operation::Responses => proto::Operation::Response,
        Operation::Transcription => proto::Operation::Transcription,
        Operation::Translation => proto::Operation::Translation,
        Operation::Speech => proto::Operation::Speech,
        Operation::Embeddings => proto::Operation::Embedding,
        Operation::Batch => proto::Operation::Batch,
    }
}

/// Groq's service tier.
#[derive(Clone, Copy, Default, ValueEnum)]
pub(super) enum Tier {
    /// List price
    #[default]
    OnDemand,
    /// List price
    Flex,
    /// Groq picks on demand or flex
    Auto,
    /// Priced by contract
    Performance,
}

impl Tier {
    /// The tier on the wire.
    pub(super) const fn to_wire(self) -> proto::ServiceTier {
        match self {
            Self::OnDemand => proto::ServiceTier::OnDemand,
            Self::Flex => proto::ServiceTier::Flex,
            Self::Auto => proto::ServiceTier::Auto,
            Self::Performance => proto::ServiceTier::Performance,
        }
    }
}
