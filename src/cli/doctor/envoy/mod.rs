//! Whether Envoy's configuration asks Tollgate before each request, and meters each answer: what docs/envoy.md promises holds only then.

use std::{fs, path::Path, time::Duration};

use serde_json::Value;

use super::{Case, finding::Findings};
use crate::domain::policy::Policy;

/// The most bytes of a configuration.
const MAX_BYTES: u64 = 4 << 20;
/// What Tollgate takes of one request: `src/server`.
const MAX_BODY: u64 = 32 << 20;
/// The least that lets a usual prompt pass, with the images in it.
const USUAL_BODY: u64 = 1 << 20;
/// What Envoy grants ext_authz and ext_proc where nothing is set.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(200);
/// The filter whose metadata has the reservation.
const AUTHZ: &str = "envoy.filters.http.ext_authz";

/// A filter of HTTP.
struct Filter<'a> {
    name: &'a str,
    kind: Kind,
    config: &'a Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Authz,
    Proc,
    Decompressor,
    Router,
    Other,
}

pub(super) fn probe(case: &Case, found: &mut Findings) {
    let Some(path) = &case.envoy else { return };
    match read(path) {
        Ok(config) => judge(&config, case.policy.as_deref(), case.settings.store_timeout, found),
        Err(reason) => found.error(
            format!("`{}`: {reason}", path.display()),
            "name Envoy's own configuration, as `envoy -c` reads it",
        ),
    }
    if found.are_good() {
        found.good(format!("`{}` asks before each request, and meters each answer", path.display()));
    }
}

fn read(path: &Path) -> Result<Value, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_BYTES {
        return Err(format!("{size} bytes are more than a configuration has"));
    }
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    // JSON is YAML, too. The first line of the error says where; what follows would repeat lines of the file.
    let first = |text: String| text.lines().next().unwrap_or_default().to_owned();
    serde_saphyr::from_str(&text).map_err(|error| first(error.to_string()))
}

/// `bound`: how long the store may take.
fn judge(config: &Value, policy: Option<&Policy>, bound: Duration, found: &mut Findings) {
    let mut managers = Vec::new();
    each(config, &mut |value| {
        if value.get("http_filters").is_some_and(Value::is_array) {
            managers.push(value);
        }
    });
    if managers.is_empty() {
        found.error("there is no `http_filters`", "begin with deploy/envoy/envoy.yaml of Tollgate");
    }
    let governed: Vec<_> =
        managers.iter().map(|manager| filters(manager)).filter(|filters| has(filters, Kind::Authz)).collect();
    if governed.is_empty() && !managers.is_empty() {
        found.error(
            "no listener has the filter ext_authz: nothing is decided",
            "put ext_authz before the router, as deploy/envoy/envoy.yaml of Tollgate does",
        );
    }
    for filters in &governed {
        order(filters, found);
        for filter in filters {
            match filter.kind {
                Kind::Authz => authz(filter, bound, found),
                Kind::Proc if is_meter(filter) => meter(filter, found),
                Kind::Proc => request_phase(filter, bound, found),
                Kind::Decompressor | Kind::Router | Kind::Other => {}
            }
        }
        phases(filters, policy, found);
    }
    retries(config, found);
}

/// Calls `of` with each table, from the outside.
fn each<'a>(value: &'a Value, of: &mut impl FnMut(&'a Value)) {
    match value {
        Value::Object(table) => {
            of(value);
            table.values().for_each(|value| each(value, of));
        }
        Value::Array(list) => list.iter().for_each(|value| each(value, of)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn filters(manager: &Value) -> Vec<Filter<'_>> {
    let list = manager.get("http_filters").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(filter_of).collect()
}

fn filter_of(value: &Value) -> Option<Filter<'_>> {
    let config = value.get("typed_config")?;
    let url = config.get("@type")?.as_str()?;
    let kind = match url.rsplit('.').next().unwrap_or_default() {
        "ExtAuthz" => Kind::Authz,
        "ExternalProcessor" => Kind::Proc,
        "Decompressor" => Kind::Decompressor,
        "Router" => Kind::Router,
        _ => Kind::Other,
    };
    Some(Filter { name: value.get("name").and_then(Value::as_str).unwrap_or_default(), kind, config })
}

fn has(filters: &[Filter<'_>], kind: Kind) -> bool {
    filters.iter().any(|filter| filter.kind == kind)
}

fn is_meter(filter: &Filter<'_>) -> bool {
    is_true(filter.config, "observability_mode")
}

fn is_true(config: &Value, key: &str) -> bool {
    config.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// Decompressed, then decided, then metered and rewritten.
fn order(filters: &[Filter<'_>], found: &mut Findings) {
    let place = |kind: Kind| filters.iter().position(|filter| filter.kind == kind);
    let Some(authz) = place(Kind::Authz) else { return };
    if filters.iter().skip(authz).any(|filter| filter.kind == Kind::Decompressor) {
        found.error(
            "a decompressor stands behind ext_authz, which then sees a compressed body",
            "put it before ext_authz, so that only plain bodies are judged",
        );
    }
    if place(Kind::Proc).is_some_and(|processor| processor < authz) {
        found.error("ext_proc stands before ext_authz, which has not decided by then", "put ext_authz first");
    }
    if place(Kind::Router).is_some_and(|router| router < authz) {
        found.error("the router stands before ext_authz: requests pass undecided", "put ext_authz first");
    }
}

fn authz(Filter { name, config, .. }: &Filter<'_>, bound: Duration, found: &mut Findings) {
    if *name != AUTHZ {
        found.error(
            format!(
                "ext_authz is called `{name}`, and the filters behind it look for its answer under `{AUTHZ}`"
            ),
            format!("name it {AUTHZ}"),
        );
    }
    if config.get("grpc_service").is_none() {
        found.error("ext_authz asks over HTTP", "give it `grpc_service`: Tollgate answers gRPC");
    }
    let timeout = config.pointer("/grpc_service/timeout");
    longer("grpc_service.timeout of ext_authz", timeout, bound, found);
    if is_true(config, "failure_mode_allow") {
        found.warning(
            "ext_authz has `failure_mode_allow: true`: while Tollgate is away every request passes, unmetered and unbounded",
            "set it to false, unless that is meant",
        );
    }
    let body = config.get("with_request_body");
    let Some(body) = body else {
        found.error(
            "ext_authz has no `with_request_body`: Tollgate cannot see what is asked for, and refuses it",
            "add max_request_bytes, allow_partial_message: false and pack_as_bytes: true",
        );
        return;
    };
    if is_true(body, "allow_partial_message") {
        found.error(
            "ext_authz has `allow_partial_message: true`: half a body cannot be judged",
            "set it to false",
        );
    }
    if !is_true(body, "pack_as_bytes") {
        found.error(
            "ext_authz lacks `pack_as_bytes: true`: audio is not UTF-8 and would be changed",
            "set it to true",
        );
    }
    match body.get("max_request_bytes").and_then(Value::as_u64) {
        None => found.error("ext_authz has no `max_request_bytes`", "4259840 takes prompts of 4 MiB"),
        Some(most) if most > MAX_BODY => found.warning(
            format!("`max_request_bytes` is {most}, and Tollgate takes {MAX_BODY}: larger bodies are refused as if it were away"),
            format!("set it to at most {MAX_BODY}"),
        ),
        Some(most) if most < USUAL_BODY => found.warning(
            format!("`max_request_bytes` is {most}: longer prompts are answered 413"),
            "4259840 takes prompts of 4 MiB; routes of audio need 27262976",
        ),
        Some(_) => {}
    }
}

fn meter(Filter { name, config, .. }: &Filter<'_>, found: &mut Findings) {
    let mode = |key: &str| config.pointer(&format!("/processing_mode/{key}")).and_then(Value::as_str);
    if mode("response_body_mode") != Some("STREAMED") {
        found.error(
            format!("`{name}` does not see answers as they pass: `response_body_mode` is not STREAMED"),
            "set it to STREAMED; what an answer used is read from it",
        );
    }
    forwards(name, config, found);
    let close = config.get("deferred_close_timeout").and_then(Value::as_str).and_then(duration);
    if close.is_some_and(|close| close.is_zero()) {
        found.warning(
            format!("`{name}` has a `deferred_close_timeout` of zero: the end of an answer is lost, and with it the usage"),
            "set it to 1s",
        );
    }
}

fn request_phase(Filter { name, config, .. }: &Filter<'_>, bound: Duration, found: &mut Findings) {
    longer(&format!("message_timeout of `{name}`"), config.get("message_timeout"), bound, found);
    if is_true(config, "failure_mode_allow") {
        found.error(
            format!("`{name}` has `failure_mode_allow: true`: a request that was not lowered can spend more than was granted"),
            "set it to false",
        );
    }
    forwards(name, config, found);
}

/// Without the reservation an answer cannot be booked.
fn forwards(name: &str, config: &Value, found: &mut Findings) {
    let spaces = config.pointer("/metadata_options/forwarding_namespaces/untyped").and_then(Value::as_array);
    if !spaces.is_some_and(|spaces| spaces.iter().any(|space| space == AUTHZ)) {
        found.error(
            format!("`{name}` does not forward the metadata of ext_authz, so no answer can be booked"),
            format!("add metadata_options: {{ forwarding_namespaces: {{ untyped: [{AUTHZ}] }} }}"),
        );
    }
}

/// Which filters the policy counts on.
fn phases(filters: &[Filter<'_>], policy: Option<&Policy>, found: &mut Findings) {
    let of =
        |meters: bool| filters.iter().any(|filter| filter.kind == Kind::Proc && is_meter(filter) == meters);
    if !of(true) {
        found.error(
            "no filter meters answers: every request is charged as if its usage had never been reported",
            "add ext_proc with `observability_mode: true` behind ext_authz",
        );
    }
    let Some(policy) = policy else { return };
    match (policy.envoy.request_phase, of(false)) {
        (true, false) => found.error(
            "the policy has `request_phase = true`, and no filter rewrites requests: what is granted less would not be held to it",
            "add the second ext_proc of deploy/envoy/envoy.yaml, or remove `request_phase`",
        ),
        (false, true) => found.warning(
            "a filter could rewrite requests, and the policy does not count on it: nothing is lowered, but refused",
            "set `request_phase = true` in [envoy] of the policy",
        ),
        (true, true) | (false, false) => {}
    }
}

/// Groq bills every attempt, and a reservation covers one.
fn retries(config: &Value, found: &mut Findings) {
    let mut is_retried = false;
    each(config, &mut |value| is_retried |= value.get("retry_policy").is_some());
    if is_retried {
        found.warning(
            "a route has `retry_policy`: Groq bills each attempt, and only one is reserved",
            "leave retries to the clients",
        );
    }
}

/// A time that has to be longer than the store may take: else Envoy gives up before Tollgate says that its store is out.
fn longer(what: &str, given: Option<&Value>, bound: Duration, found: &mut Findings) {
    let timeout = match given.and_then(Value::as_str) {
        Some(text) => match duration(text) {
            Some(timeout) => timeout,
            None => return found.error(format!("{what} is no duration: `{text}`"), "write it as 0.5s"),
        },
        None => DEFAULT_TIMEOUT,
    };
    if !timeout.is_zero() && timeout <= bound {
        found.error(
            format!("{what} is {} ms, and `store_timeout` is {} ms", timeout.as_millis(), bound.as_millis()),
            "make it longer than `store_timeout`, or Envoy gives up before Tollgate answers",
        );
    }
}

/// A duration as protobuf's JSON has it: `0.5s`.
fn duration(text: &str) -> Option<Duration> {
    let (seconds, fraction) =
        text.strip_suffix('s')?.split_once('.').unwrap_or((text.strip_suffix('s')?, ""));
    let nanos: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(Duration::new(seconds.parse().ok()?, nanos))
}

#[cfg(test)]
mod tests;
