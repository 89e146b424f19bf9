//! W3C trace context: the header `traceparent`.

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId};

/// `00-`, 32 digits of the trace, 16 of the span, 2 of flags.
const LENGTH: usize = 55;
/// The bytes of a `tracestate` that is handed on: as many as the specification wants at least.
const MAX_STATE: usize = 512;

/// Whether `traceparent` says that its trace is recorded. Anything that is no header of a known shape is not; a later version may be
/// longer.
pub(super) fn is_sampled(traceparent: &[u8]) -> bool {
    let flags = traceparent.get(LENGTH - 1).and_then(|digit| (*digit as char).to_digit(16));
    flags.is_some_and(|flags| flags & 1 == 1)
}

/// The span that `traceparent` names, with the vendors' part in `tracestate`.
pub(super) fn parse(traceparent: &[u8], tracestate: Option<&str>) -> Option<SpanContext> {
    let text = std::str::from_utf8(traceparent).ok()?;
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let sizes = [version, trace, span, flags].map(str::len);
    let is_version = version != "ff" && (version != "00" || parts.next().is_none());
    let is_hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if sizes != [2, 32, 16, 2] || !is_version || ![version, trace, span, flags].into_iter().all(is_hex) {
        return None;
    }
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()? & 1);
    let state = tracestate.filter(|text| text.len() <= MAX_STATE);
    let state = state.and_then(|text| text.parse().ok()).unwrap_or_default();
    let context = SpanContext::new(trace, span, flags, true, state);
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_parent_is_read_as_the_specification_has_it() {
        let context = parse(GOOD.as_bytes(), Some("a=1,b=2")).unwrap();
        assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.span_id().to_string(), "b7ad6b7169203331");
        assert!(context.is_sampled() && context.is_remote() && is_sampled(GOOD.as_bytes()));
        assert_eq!(context.trace_state().get("b"), Some("2"));
        let long = format!("a={}", "1".repeat(MAX_STATE));
        assert_eq!(parse(GOOD.as_bytes(), Some(&long)).unwrap().trace_state().get("a"), None);
        let unsampled = GOOD.replace("-01", "-00");
        assert!(
            !is_sampled(unsampled.as_bytes()) && !parse(unsampled.as_bytes(), None).unwrap().is_sampled()
        );
        // A later version may say more.
        let later = format!("{}-more", GOOD.replacen("00", "01", 1));
        assert!(parse(later.as_bytes(), None).is_some());
    }

    #[test]
    fn what_is_no_parent_begins_a_trace_of_its_own() {
        for bad in [
            String::new(),
            GOOD[..54].to_owned(),
            format!("{GOOD}-more"),
            GOOD.replacen("00", "ff", 1),
            GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            GOOD.to_uppercase(),
            GOOD.replace('-', "_"),
            "é".repeat(30),
        ] {
            assert!(parse(bad.as_bytes(), None).is_none(), "{bad}");
        }
    }
}
