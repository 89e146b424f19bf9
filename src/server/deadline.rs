//! The ends of a call's time: its caller's own deadline, `grpc-timeout`, and the drain of the service. Past either, the call is given
//! up and the caller is told.

use std::{
    convert::Infallible,
    future::{Future, pending},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper::{HeaderMap, Request, Response};
use tonic::body::Body;
use tower::Service;

use crate::{
    rpc::{deadline_exceeded, effect_of, shutting_down},
    runtime::Tasks,
};

/// A service whose calls end at their callers' deadlines, and when the tasks of this core are cut off. A stream has begun to be
/// answered long before; it has its own end.
#[derive(Clone, Debug)]
pub(super) struct Deadline<S> {
    pub(super) inner: S,
    pub(super) tasks: Tasks,
}

impl<S, B> Service<Request<B>> for Deadline<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let timeout = timeout(request.headers());
        let effect = effect_of(request.uri().path());
        let (call, tasks) = (self.inner.call(request), self.tasks.clone());
        Box::pin(async move {
            let deadline = async {
                match timeout {
                    Some(timeout) => tokio::time::sleep(timeout).await,
                    None => pending().await,
                }
            };
            // A call that is answered at once pays nothing for the others.
            tokio::select! {
                biased;
                answer = call => answer,
                () = deadline => Ok(deadline_exceeded().into_http()),
                () = tasks.cut_off() => Ok(shutting_down(effect).into_http()),
            }
        })
    }
}

/// `grpc-timeout` in gRPC's format: up to 8 digits and a unit. Anything else is no deadline.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let digits = (1..=8).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = number.parse().ok().filter(|_| digits)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read_as_grpc_writes_them() {
        for (text, expected) in [
            ("50m", Some(Duration::from_millis(50))),
            ("1S", Some(Duration::from_secs(1))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3_600))),
            ("7u", Some(Duration::from_micros(7))),
            ("7n", Some(Duration::from_nanos(7))),
            ("0m", Some(Duration::ZERO)),
            ("100000000m", None),
            ("m", None),
            ("", None),
            ("+1S", None),
            ("1s", None),
            ("1", None),
        ] {
            let headers = HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]);
            assert_eq!(timeout(&headers), expected, "{text}");
        }
        assert_eq!(timeout(&HeaderMap::new()), None);
    }
}
