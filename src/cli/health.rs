//! `tollgate health`: whether the service serves, for probes.

use std::{io::Write as _, time::Duration};

use clap::Args;
use serde_json::json;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{
    client,
    client_tls::TlsArgs,
    screen::{Exit, Failure, Screen},
    text,
};

/// Says whether the service can decide, by `grpc.health.v1`: for the probes of containers, which need no other program.
#[derive(Args)]
#[command(after_help = "No token is needed, and none is sent.

Exit codes: 0 serving, 1 not serving, 2 no answer, or no service of that name.

Examples:
  tollgate health
  tollgate health --service tollgate.v1.PolicyService --timeout 1s")]
pub(super) struct Health {
    /// The gRPC service to ask about [default: all of them]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    service: String,
    /// The service's gRPC address; https://HOST:PORT for one with TLS
    #[arg(long, value_name = "HOST:PORT", env = "TOLLGATE_ADDRESS", default_value = client::ADDRESS, value_parser = client::address)]
    address: String,
    /// How long an answer may take, such as 5s
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = text::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    tls: TlsArgs,
    /// Print the answer in protobuf's JSON
    #[arg(long)]
    json: bool,
}

impl Health {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let Self { service, address, timeout, tls, json } = self;
        let status = client::block_on(async {
            let channel = client::open(&address, tls.config_for(&address)?, timeout).await?;
            let answer = HealthClient::new(channel).check(HealthCheckRequest { service }).await;
            Ok(answer.map_err(|status| client::explain(&status))?.into_inner().status())
        })?;
        let serves = status == ServingStatus::Serving;
        match json {
            true => screen.json(&json!({ "status": status.as_str_name() }))?,
            false => writeln!(screen, "{}", if serves { "serving" } else { "not serving" })?,
        }
        Ok(if serves { Exit::Done } else { Exit::Denied })
    }
}
