//! The gateways of `examples/`, for real: each runs as a process between clients and a mock of Groq, governed by a `tollgate serve`
//! process. At the end two ledgers agree: the mock's and Tollgate's.
//!
//! Python and Node are never skipped in CI. Go is, loudly, where there is no toolchain, unless `TOLLGATE_TEST_LANGUAGES=all`.

mod aborts;
mod denials;
mod fleet;
mod replicas;
mod running;
mod snippets;

use crate::clients;

/// A language that has a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    TypeScript,
    Python,
    Go,
}

impl Language {
    /// The directory with what was built of it, under `target/clients`.
    const fn built(self) -> &'static str {
        match self {
            Self::TypeScript => "gateway-typescript",
            Self::Python => "gateway-python",
            Self::Go => "gateway-go",
        }
    }

    /// Whether the gateway can be run here. It is built where it is not yet.
    fn is_available(self) -> bool {
        if self == Self::Go && !clients::has_toolchain("Go", &[("go", "version")]) {
            return false;
        }
        match clients::build(self.built()) {
            Ok(_) => true,
            Err(missing) => {
                clients::skip(self.built(), &missing);
                false
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_the_gateway_in_typescript_costs_what_groq_bills() {
    fleet::passes(Language::TypeScript).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_the_gateway_in_python_costs_what_groq_bills() {
    fleet::passes(Language::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_the_gateway_in_go_costs_what_groq_bills() {
    fleet::passes(Language::Go).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_in_typescript_denies_as_envoy_does() {
    denials::are_envoys(Language::TypeScript).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_in_python_denies_as_envoy_does() {
    denials::are_envoys(Language::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_in_go_denies_as_envoy_does() {
    denials::are_envoys(Language::Go).await;
}

/// In TypeScript alone: gRPC in Go takes several addresses from DNS only, and in Python it makes a host of them that no server takes.
#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_in_typescript_shares_its_calls_among_replicas() {
    replicas::share_the_calls(Language::TypeScript).await;
}
