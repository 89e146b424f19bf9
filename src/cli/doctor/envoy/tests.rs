use super::*;
use crate::policy_file::parse_policy;

const SHIPPED: &str = include_str!("../../../../deploy/envoy/envoy.yaml");
const POLICY: &str = include_str!("../../../../deploy/envoy/policy.toml");

/// What is said of the shipped configuration with `from` in place of `to`, as `severity message`.
fn judged(changes: &[(&str, &str)], policy: &str, bound: u64) -> Vec<String> {
    let mut text = SHIPPED.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "the shipped configuration has no {from}");
        text = text.replacen(from, to, 1);
    }
    let config: Value = serde_saphyr::from_str(&text).unwrap();
    let policy = parse_policy(policy, "policy.toml").policy.unwrap();
    let mut found = Findings::on("envoy");
    judge(&config, Some(&policy), Duration::from_millis(bound), &mut found);
    found.into_vec().into_iter().map(|found| format!("{} {}", found.severity.name(), found.message)).collect()
}

#[test]
fn the_shipped_configuration_is_sound() {
    assert_eq!(judged(&[], POLICY, 250), [""; 0]);
}

#[test]
fn each_thing_that_is_missing_is_said() {
    let authz = "name: envoy.filters.http.ext_authz\n            typed_config";
    for (change, severity, word) in [
        ((authz, "name: decide\n            typed_config"), "error", "is called `decide`"),
        (("ext_authz.v3.ExtAuthz\n", "rbac.v3.RBAC\n"), "error", "no listener has the filter ext_authz"),
        (
            ("timeout: 0.5s\n              # No decision", "timeout: 0.2s\n              #"),
            "error",
            "grpc_service.timeout",
        ),
        (
            ("timeout: 0.5s\n              # No decision", "timeout: soon\n              #"),
            "error",
            "no duration: `soon`",
        ),
        (
            ("message_timeout: 0.5s", "message_timeout: 0.25s"),
            "error",
            "message_timeout of `tollgate.request`",
        ),
        (("              message_timeout: 0.5s\n", ""), "error", "is 200 ms, and `store_timeout` is 250 ms"),
        (
            (
                "failure_mode_allow: false\n              status_on_error",
                "failure_mode_allow: true\n              status_on_error",
            ),
            "warning",
            "every request passes",
        ),
        (("allow_partial_message: false", "allow_partial_message: true"), "error", "half a body"),
        (("pack_as_bytes: true", "pack_as_bytes: false"), "error", "pack_as_bytes"),
        (("max_request_bytes: 4259840", "max_request_bytes: 65536"), "warning", "answered 413"),
        (("max_request_bytes: 4259840", "max_request_bytes: 99999999"), "warning", "Tollgate takes 33554432"),
        (("max_request_bytes: 4259840", "other: 1"), "error", "no `max_request_bytes`"),
        (("with_request_body:", "without_request_body:"), "error", "cannot see what is asked for"),
        (("observability_mode: true", "observability_mode: false"), "error", "no filter meters answers"),
        (("response_body_mode: STREAMED", "response_body_mode: NONE"), "error", "as they pass"),
        (("untyped: [envoy.filters.http.ext_authz]", "untyped: []"), "error", "does not forward"),
        (
            ("deferred_close_timeout: 1s", "deferred_close_timeout: 0s"),
            "warning",
            "the end of an answer is lost",
        ),
        (("timeout: 0s\n", "retry_policy: { num_retries: 1 }\n"), "warning", "bills each attempt"),
        (("http_filters:", "filters:"), "error", "no `http_filters`"),
    ] {
        let found = judged(&[change], POLICY, 250);
        let is_said = |line: &String| line.starts_with(severity) && line.contains(word);
        assert!(found.iter().any(is_said), "{change:?}: {found:?}");
    }
}

#[test]
fn the_policy_and_the_filters_count_on_each_other() {
    let without = POLICY.replace("request_phase = true", "request_phase = false");
    let without = without.replace("include_usage = true", "include_usage = false");
    assert!(judged(&[], &without, 250).iter().any(|line| line.starts_with("warning a filter could rewrite")));
    // The third filter becomes a second meter.
    let no_phase = [("message_timeout: 0.5s", "observability_mode: true")];
    let found = judged(&no_phase, POLICY, 250);
    assert!(found.iter().any(|line| line.contains("no filter rewrites requests")), "{found:?}");
}

#[test]
fn times_have_to_be_longer_than_the_store_may_take() {
    assert_eq!(judged(&[], POLICY, 499), [""; 0]);
    let found = judged(&[], POLICY, 500);
    assert_eq!(found.len(), 2, "{found:?}");
    for (text, millis) in [
        ("0.5s", Some(500)),
        ("2s", Some(2_000)),
        ("0s", Some(0)),
        ("1.25s", Some(1_250)),
        ("5", None),
        ("xs", None),
    ] {
        assert_eq!(duration(text), millis.map(Duration::from_millis), "{text}");
    }
}

#[test]
fn a_file_that_is_none_is_refused_within_bounds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("envoy.yaml");
    let bomb: String = std::iter::once("a0: &a0 [x, x]\n".to_owned())
        .chain((1..40).map(|n| format!("a{n}: &a{n} [*a{m}, *a{m}, *a{m}, *a{m}]\n", m = n - 1)))
        .collect();
    for text in ["a: [", &bomb] {
        fs::write(&path, text).unwrap();
        let fault = read(&path).unwrap_err();
        assert!(!fault.contains('\n') && fault.len() < 300, "{fault}");
    }
    assert!(read(&directory.path().join("none")).is_err());
    fs::write(&path, "{\"static_resources\": {}}").unwrap();
    assert!(read(&path).is_ok(), "JSON");
}
