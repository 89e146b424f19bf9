//! Signing in to the console: how long sessions last and what ends them, forms, cookies, replicas, and a real OpenID provider.

mod browser;
mod pages;
mod provider;
mod replicas;
mod sessions;

/// The secret of the service token `ops`.
const TOKEN: &str = "tgs_the_secret_of_an_operator_of_the_console";

/// A policy in which `ops` may do everything.
fn policy_of(token: &str) -> String {
    format!(
        "[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"*\"]\nmax_output_tokens = 9\n\
         [access.tokens.ops]\nsha256 = \"{}\"\nroles = [\"admin\"]\n",
        crate::access::digest(token)
    )
}
