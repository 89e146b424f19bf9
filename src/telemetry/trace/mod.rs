//! Traces: a span for a call that its caller traces, or that the dice picked, and its children. A call that is not traced has neither
//! a span nor a context, and pays a look at one byte.
//!
//! The span of a call is the current one while its future is polled, so nothing has to hand it down.

mod parent;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{self, Poll},
    time::Duration,
};

use opentelemetry::{
    Context, KeyValue,
    trace::{
        Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags,
        TraceId, TraceState, Tracer as _, TracerProvider as _,
    },
};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span};

use super::{MetersError, Push, meters::resource};

const MILLION: u64 = 1_000_000;
/// The step of Weyl's sequence in splitmix.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Where traces go. Clones share it; by default there are none.
#[derive(Clone, Default)]
pub struct Tracing(Option<Arc<Inner>>);

struct Inner {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    /// This many of every million calls without a trace are traced.
    share: u32,
    /// The state of the dice.
    dice: AtomicU64,
}

/// The tracer of the current call, for its children.
struct OfCall(SdkTracer);

impl fmt::Debug for Tracing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tracing").field(&self.0.is_some()).finish()
    }
}

/// A call that is traced.
#[derive(Debug)]
pub struct TracedCall(Context);

/// A span within the current call; it ends when this is dropped. Boxed, as it is part of futures that are usually not traced.
#[derive(Debug)]
pub struct Child(Option<Box<Span>>);

/// What names a span to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span.
    pub span_id: [u8; 8],
}

impl Tracing {
    /// Traces for the collector `push`, and `share` of every million calls that bring none. To be called within a runtime.
    ///
    /// # Errors
    /// The exporter cannot be set up.
    pub fn start(push: Option<&Push>, share: u32) -> Result<Self, MetersError> {
        let Some(push) = push.filter(|push| push.traces) else { return Ok(Self::default()) };
        let provider = SdkTracerProvider::builder()
            .with_resource(resource())
            // Whether a call is traced is decided before there is a span.
            .with_sampler(Sampler::AlwaysOn)
            .with_batch_exporter(push.span_exporter()?)
            .build();
        Ok(Self::of(provider, share))
    }

    fn of(provider: SdkTracerProvider, share: u32) -> Self {
        let tracer = provider.tracer("tollgate");
        let dice = AtomicU64::new(u64::from(std::process::id()).wrapping_mul(GOLDEN));
        Self(Some(Arc::new(Inner { provider, tracer, share, dice })))
    }

    /// Whether calls can be traced at all.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Traces a call of `rpc` (`package.Service/Method`) if its caller does, or if the dice say so.
    #[must_use]
    pub fn begin(
        &self,
        rpc: &str,
        traceparent: Option<&[u8]>,
        tracestate: Option<&str>,
    ) -> Option<TracedCall> {
        let inner = self.0.as_ref()?;
        let parent = match traceparent {
            Some(header) if parent::is_sampled(header) => parent::parse(header, tracestate),
            // Its caller has decided.
            Some(header) if parent::parse(header, None).is_some() => return None,
            _ => None,
        };
        if parent.is_none() && !inner.picks() {
            return None;
        }
        let parent =
            parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
        Some(inner.call(rpc, &parent))
    }

    /// Sends what was not sent yet, and ends. It waits for the collector, so it is not for a thread of a runtime.
    pub fn end(&self, patience: Duration) {
        if let Some(inner) = &self.0 {
            // The exporter has logged why spans are lost.
            let _ = inner.provider.shutdown_with_timeout(patience);
        }
    }
}

impl Inner {
    fn call(&self, rpc: &str, parent: &Context) -> TracedCall {
        let builder = SpanBuilder::from_name(rpc.to_owned()).with_kind(SpanKind::Server).with_attributes([
            KeyValue::new("rpc.system.name", "grpc"),
            KeyValue::new("rpc.method", rpc.to_owned()),
        ]);
        let span = self.tracer.build_with_context(builder, parent);
        TracedCall(Context::new().with_value(OfCall(self.tracer.clone())).with_span(span))
    }

    fn picks(&self) -> bool {
        if self.share == 0 {
            return false;
        }
        let state = self.dice.fetch_add(GOLDEN, Ordering::Relaxed);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (u128::from(mixed ^ (mixed >> 31)) * u128::from(MILLION)) >> 64 < u128::from(self.share)
    }
}

impl TracedCall {
    /// `call`, with the span as the current one while it is polled.
    pub fn within<F: Future>(&self, call: F) -> Within<F> {
        Within { call: Box::pin(call), context: self.0.clone() }
    }

    /// What names its span.
    #[must_use]
    pub fn names(&self) -> TraceContext {
        names(self.0.span().span_context())
    }

    /// It was answered with this code of gRPC.
    pub fn ends_with(&self, code: &'static str) {
        let span = self.0.span();
        span.set_attribute(KeyValue::new("rpc.response.status_code", code));
        if code != "OK" {
            span.set_status(Status::error(code));
        }
        span.end();
    }
}

/// A future that is polled within a traced call.
#[derive(Debug)]
pub struct Within<F> {
    call: Pin<Box<F>>,
    context: Context,
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let _current = self.context.clone().attach();
        self.call.as_mut().poll(cx)
    }
}

fn names(context: &SpanContext) -> TraceContext {
    TraceContext { trace_id: context.trace_id().to_bytes(), span_id: context.span_id().to_bytes() }
}

/// Whether the current call is traced.
#[must_use]
pub fn is_traced() -> bool {
    Context::map_current(Context::has_active_span)
}

/// What names the span of the current call, if it is traced.
#[must_use]
pub fn current() -> Option<TraceContext> {
    Context::map_current(|context| context.has_active_span().then(|| names(context.span().span_context())))
}

/// Begins a span within the current call, if that is traced.
#[must_use]
pub fn child(name: &'static str) -> Child {
    Child(Context::map_current(|context| {
        let OfCall(tracer) = context.get::<OfCall>()?;
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Internal);
        Some(Box::new(tracer.build_with_context(builder, context)))
    }))
}

impl Child {
    /// Says more about it.
    pub fn say(&mut self, attribute: &'static str, value: &'static str) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(attribute, value));
        }
    }
}

/// Says more about the current call, if it is traced: `attributes` is not asked otherwise.
pub fn annotate(attributes: impl FnOnce() -> Vec<KeyValue>) {
    Context::map_current(|context| {
        if context.has_active_span() {
            context.span().set_attributes(attributes());
        }
    });
}

/// Links the current call, if it is traced, to another one.
pub fn link(other: TraceContext) {
    Context::map_current(|context| {
        if context.has_active_span() {
            let (trace, span) = (TraceId::from_bytes(other.trace_id), SpanId::from_bytes(other.span_id));
            let other = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default());
            context.span().add_link(other, Vec::new());
        }
    });
}

impl TraceContext {
    /// The bytes of both ids.
    pub const LENGTH: usize = 24;

    /// Both ids, the trace's first.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        let (trace, span) = bytes.split_at_mut(self.trace_id.len());
        trace.copy_from_slice(&self.trace_id);
        span.copy_from_slice(&self.span_id);
        bytes
    }

    /// The inverse of [`Self::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::LENGTH]) -> Option<Self> {
        let (trace, span) = bytes.split_first_chunk()?;
        Some(Self { trace_id: *trace, span_id: span.try_into().ok()? })
    }

    /// The trace's id as logs have it.
    #[must_use]
    pub fn trace(&self) -> String {
        TraceId::from_bytes(self.trace_id).to_string()
    }

    /// The span's id as logs have it.
    #[must_use]
    pub fn span(&self) -> String {
        SpanId::from_bytes(self.span_id).to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use opentelemetry_sdk::{
        error::OTelSdkResult,
        trace::{SpanData, SpanExporter},
    };

    use super::*;

    /// Keeps what is exported.
    #[derive(Clone, Debug, Default)]
    struct Kept(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().unwrap().extend(batch);
            Ok(())
        }
    }

    const PARENT: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const UNSAMPLED: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    fn tracing(share: u32) -> (Tracing, Kept) {
        let exporter = Kept::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        (Tracing::of(provider, share), exporter)
    }

    #[tokio::test]
    async fn a_call_of_a_traced_caller_has_a_span_with_children_and_links() {
        let (tracing, exporter) = tracing(0);
        let call = tracing.begin("a.B/C", Some(PARENT), None).unwrap();
        let other = TraceContext { trace_id: [1; 16], span_id: [2; 8] };
        call.within(async {
            let mut reserve = child("store reserve");
            tokio::task::yield_now().await;
            reserve.say("db.system.name", "redis");
            drop(reserve);
            annotate(|| vec![KeyValue::new("tollgate.team", "t")]);
            link(other);
            assert_eq!(current(), Some(call.names()));
        })
        .await;
        assert_eq!(current(), None);
        call.ends_with("OK");
        let spans = exporter.0.lock().unwrap();
        let [child, server] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!((&*child.name, &*server.name), ("store reserve", "a.B/C"));
        assert_eq!(child.parent_span_id, server.span_context.span_id());
        assert_eq!(server.parent_span_id.to_string(), "b7ad6b7169203331");
        assert_eq!(server.span_context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(server.links.links[0].span_context.trace_id().to_bytes(), [1; 16]);
        let has = |name: &str| server.attributes.iter().any(|attribute| attribute.key.as_str() == name);
        assert!(has("tollgate.team") && has("rpc.method") && has("rpc.response.status_code"));
    }

    #[tokio::test]
    async fn a_call_that_is_not_traced_has_nothing() {
        let (tracing, exporter) = tracing(0);
        for parent in [None, Some(UNSAMPLED), Some(&b"nonsense"[..]), Some(&b""[..])] {
            assert!(tracing.begin("a.B/C", parent, None).is_none());
        }
        assert!(Tracing::default().begin("a.B/C", Some(PARENT), None).is_none());
        assert!(child("x").0.is_none() && current().is_none());
        annotate(|| panic!("there is no span"));
        link(TraceContext { trace_id: [1; 16], span_id: [2; 8] });
        assert!(exporter.0.lock().unwrap().is_empty());
    }

    #[test]
    fn the_dice_pick_a_share_of_the_calls_without_a_trace() {
        let picked = |share| {
            let (tracing, _) = tracing(share);
            (0..2_000).filter(|_| tracing.begin("a.B/C", None, None).is_some()).count()
        };
        assert_eq!((picked(0), picked(1_000_000)), (0, 2_000));
        assert!((60..140).contains(&picked(50_000)));
        let (tracing, _) = tracing(1_000_000);
        assert!(tracing.begin("a.B/C", Some(UNSAMPLED), None).is_none(), "its caller has decided");
    }
}
