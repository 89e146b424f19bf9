//! The connection to a running service, and its errors in words.

use std::{convert::Infallible, future::Future, path::PathBuf, time::Duration};

use clap::Args;
use tokio::runtime::Builder;
use tonic::{
    Code, Request, Status,
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
    access::ORGANIZATION,
    domain::secret::{self, MalformedSecret},
    rpc::proto::{key_service_client::KeyServiceClient, policy_service_client::PolicyServiceClient},
    telemetry::code_name,
};

/// A gRPC client of the service.
pub(super) type Client = PolicyServiceClient<Line>;

/// A connection on which every call says who calls.
pub(super) type Line = InterceptedService<Channel, Caller>;

/// The same for keys.
pub(super) type KeyClient = KeyServiceClient<Line>;

/// The most items asked for at once: the most that a page has.
const PAGE: i32 = 1_000;

/// How long to wait for a connection: a running service answers within milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long an answer may take unless told otherwise.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// Where `tollgate serve` listens by default.
pub(super) const ADDRESS: &str = "127.0.0.1:50051";

/// An address as given; a variable set to an empty value counts as not set.
pub(super) fn address(text: &str) -> Result<String, Infallible> {
    Ok(if text.is_empty() { ADDRESS.to_owned() } else { text.to_owned() })
}

/// Which service to ask, and how to show its answer: the flags of every command that asks one.
#[derive(Args, Clone)]
pub(super) struct Connection {
    /// The service's gRPC address; https://HOST:PORT for one with TLS
    #[arg(long, value_name = "HOST:PORT", env = "TOLLGATE_ADDRESS", default_value = ADDRESS, value_parser = address)]
    pub(super) address: String,
    #[command(flatten)]
    pub(super) call: CallArgs,
    /// Print the answer in protobuf's JSON, all pages as one, as `grpcurl -emit-defaults` prints it
    #[arg(long)]
    pub(super) json: bool,
}

impl Connection {
    /// Connects.
    pub(super) async fn open(&self) -> Result<Client, Failure> {
        self.channel().await.map(Client::new)
    }

    /// Connects, for the clients of other services.
    pub(super) async fn channel(&self) -> Result<Line, Failure> {
        self.call.channel(&self.address).await
    }

    /// Connects, to manage keys.
    pub(super) async fn open_keys(&self) -> Result<KeyClient, Failure> {
        self.channel().await.map(KeyServiceClient::new)
    }
}

/// How to ask a service, whatever its address.
#[derive(Args, Clone)]
pub(super) struct CallArgs {
    /// How long an answer may take, such as 5s; --max-wait comes on top
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = super::text::parse_duration)]
    pub(super) timeout: Duration,
    /// The organization, where the caller may be of several
    #[arg(long, value_name = "ID", env = "TOLLGATE_ORGANIZATION")]
    organization: Option<String>,
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    tls: TlsArgs,
}

impl CallArgs {
    /// Connects to `address`.
    pub(super) async fn channel(&self, address: &str) -> Result<Line, Failure> {
        let (tls, token) = (self.tls.config_for(address)?, self.token.resolve()?);
        // A variable set to an empty value counts as not set.
        let organization = self.organization.as_deref().filter(|id| !id.is_empty()).map(|id| {
            let unusable = || Failure::new(format!("`{id}` cannot be the id of an organization"));
            MetadataValue::try_from(id).map_err(|_| unusable())
        });
        let caller = Caller { token, organization: organization.transpose()? };
        Ok(Line::new(open(address, tls, self.timeout).await?, caller))
    }
}

/// How much of a list to show.
#[derive(Args, Clone)]
pub(super) struct LimitArgs {
    /// The most to show [default: all]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

impl LimitArgs {
    /// At most `limit`.
    pub(super) const fn of(limit: u32) -> Self {
        Self { limit: Some(limit) }
    }

    /// The items that `page` answers, given a size and a token, until there are no more or there are as many as asked for.
    pub(super) async fn collect<T>(
        &self,
        mut page: impl AsyncFnMut(i32, String) -> Result<(Vec<T>, String), Status>,
    ) -> Result<Vec<T>, Failure> {
        let most = self.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let (mut items, mut token) = (Vec::new(), String::new());
        loop {
            let wanted = most.saturating_sub(items.len());
            let size = i32::try_from(wanted).unwrap_or(PAGE).min(PAGE);
            let (more, next) = page(size, token).await.map_err(|status| explain(&status))?;
            items.extend(more);
            token = next;
            if token.is_empty() || items.len() >= most {
                items.truncate(most);
                return Ok(items);
            }
        }
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
    fn resolve(&self) -> Result<Option<MetadataValue<Ascii>>, Failure> {
        let (text, origin) = match &self.token_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
                (text, path.display().to_string())
            }
            None => match std::env::var("TOLLGATE_TOKEN").ok().filter(|token| !token.is_empty()) {
                Some(text) => (text, "TOLLGATE_TOKEN".to_owned()),
                None => return Ok(None),
            },
        };
        let malformed = |why: MalformedSecret| Failure::new(format!("{origin} does not hold a token: {why}"));
        let token = secret::word(&text, usize::MAX).map_err(malformed)?;
        let value = MetadataValue::try_from(format!("Bearer {token}"));
        let mut value = value.map_err(|_| malformed(MalformedSecret::NotOneWord))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// What goes with every call, as far as it was given.
#[derive(Clone, Default)]
pub(super) struct Caller {
    /// The bearer token.
    token: Option<MetadataValue<Ascii>>,
    organization: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Caller {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        if let Some(organization) = &self.organization {
            request.metadata_mut().insert(ORGANIZATION, organization.clone());
        }
        Ok(request)
    }
}

/// Connects to a service of this process at `address`, which asks for no credential; no call takes longer than `timeout`.
pub(super) async fn connect(address: &str, timeout: Duration) -> Result<Client, Failure> {
    open(address, None, timeout).await.map(|channel| Client::new(Line::new(channel, Caller::default())))
}

/// Connects to `address`; no call takes longer than `timeout`.
pub(super) async fn open(
    address: &str,
    tls: Option<ClientTlsConfig>,
    timeout: Duration,
) -> Result<Channel, Failure> {
    let authority =
        address.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{authority}")).map_err(|_| {
        Failure::new(format!(
            "`{address}` is not an address; write HOST:PORT, or https://HOST:PORT for one with TLS"
        ))
    })?;
    let mut endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).timeout(timeout);
    let encrypted = tls.is_some();
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(tls).map_err(|error| client_tls::unusable(&error))?;
    }
    match endpoint.connect().await {
        Ok(channel) => Ok(channel),
        Err(error) if encrypted => Err(client_tls::unreachable(authority, &error)),
        Err(error) => Err(Failure::new(format!(
            "cannot reach {authority}: {}; start the service with `tollgate serve`, or say where it is with --address or \
             TOLLGATE_ADDRESS",
            client_tls::cause(&error).unwrap_or_else(|| error.to_string())
        ))),
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
        format!("{}: {}{broken}", code_name(status.code().into()), status.message())
    } else {
        let lines =
            fields.iter().map(|violation| format!("\n  {}: {}", violation.field, violation.description));
        format!("{}: the request is malformed{}", code_name(status.code().into()), lines.collect::<String>())
    };
    // What tonic itself says, of the bound that `--timeout` sets.
    if status.code() == Code::Cancelled && status.message() == "Timeout expired" {
        text.push_str("; --timeout lets it take longer");
    }
    if status.code() == Code::Unauthenticated {
        text.push_str("; the token to ask with is read from --token-file or TOLLGATE_TOKEN");
    }
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        text.push_str(&format!("; try again in {} s", delay.as_secs_f32()));
    }
    Failure::Explained(text)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A list. A page may be empty and not be the last.
    const PAGES: [&[u8]; 5] = [&[0, 1, 2], &[], &[3, 4, 5], &[6, 7, 8], &[9]];

    /// What is collected, and the sizes of pages that were asked for.
    fn collected(limit: Option<u32>) -> (Vec<u8>, Vec<i32>) {
        let mut sizes = Vec::new();
        let page = async |size: i32, token: String| {
            sizes.push(size);
            let number: usize = token.parse().unwrap_or(0);
            let next = if number + 1 < PAGES.len() { (number + 1).to_string() } else { String::new() };
            Ok((PAGES[number].to_vec(), next))
        };
        let items = block_on(LimitArgs { limit }.collect(page)).unwrap();
        (items, sizes)
    }

    #[test]
    fn a_list_is_followed_to_its_end_or_to_its_limit() {
        let all: Vec<u8> = (0..10).collect();
        for (limit, count, sizes) in [
            (None, 10, vec![PAGE; 5]),
            (Some(5_000), 10, vec![PAGE; 5]),
            (Some(10), 10, vec![10, 7, 7, 4, 1]),
            (Some(4), 4, vec![4, 1, 1]),
            (Some(3), 3, vec![3]),
            (Some(2), 2, vec![2]),
        ] {
            assert_eq!(collected(limit), (all[..count].to_vec(), sizes), "{limit:?}");
        }
    }
}
