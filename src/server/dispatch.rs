//! Which service a call is for.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use hyper::{Request, Response};
use tokio_util::either::Either;
use tonic::{body::Body, server::NamedService, service::Routes};
use tower::Service;

/// Calls of two services, and of all others through `routes`: the general router costs a decision a tenth of its time.
#[derive(Clone, Debug)]
pub(super) struct Dispatch<A, B> {
    pub(super) first: A,
    pub(super) second: B,
    pub(super) routes: Routes,
}

impl<A, B> Service<Request<Body>> for Dispatch<A, B>
where
    A: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + NamedService,
    B: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + NamedService,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<A::Future, Either<B::Future, <Routes as Service<Request<Body>>>::Future>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // All of them always are.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match service_of(request.uri().path()) {
            Some(name) if name == A::NAME => Either::Left(self.first.call(request)),
            Some(name) if name == B::NAME => Either::Right(Either::Left(self.second.call(request))),
            _ => Either::Right(Either::Right(self.routes.call(request))),
        }
    }
}

/// `package.Service` of `/package.Service/Method`.
fn service_of(path: &str) -> Option<&str> {
    let (name, method) = path.strip_prefix('/')?.split_once('/')?;
    (!method.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_service() {
        assert_eq!(service_of("/a.v1.Service/Call"), Some("a.v1.Service"));
        for path in ["", "/", "a.v1.Service/Call", "/a.v1.Service", "/a.v1.Service/"] {
            assert_eq!(service_of(path), None, "{path}");
        }
        assert_eq!(service_of("//Call"), Some(""));
    }
}
