//! Limitador's engine behind the smallest service of ours: one runtime, listener and connection to Redis per core, and nothing read
//! of a request but what the engine needs. `tollgate-peers check|reserve|cached [redis://…]`; without Redis, in memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a program for developers: it stops where it cannot measure"
)]

#[path = "../../support/rpc.rs"]
mod rpc;

use std::{collections::HashMap, env, sync::Arc};

use bytes::Bytes;
use limitador::{
    AsyncRateLimiter, RateLimiter,
    errors::LimitadorError,
    limit::{Context, Expression, Limit, Namespace},
    reservation::ReservationId,
    storage::redis::{AsyncRedisStorage, CachedRedisStorageBuilder},
};
use rpc::{Asked, Call, Handler, Unary, per_core, serve};
use tonic::Status;

/// The service's own allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NAMESPACE: &str = "bench";
/// Limits on every request, as many as `Authorize` has in the bench.
const LIMITS: u64 = 8;
/// More than any run uses.
const ENOUGH: u64 = 1_000_000_000_000;
/// As many tokens as the requests of the bench reserve and use.
const RESERVED: u64 = 1600;
const USED: u64 = 1500;

/// Three limits for all, and five for each team. Limits are the same to the engine unless their windows differ. With an id, their
/// keys in Redis are a quarter as long.
fn limits() -> impl Iterator<Item = Limit> {
    (0..LIMITS).map(|index| {
        let of_team = (index >= 3).then(|| Expression::parse("team").expect("a name"));
        Limit::with_id(format!("limit-{index}"), NAMESPACE, ENOUGH, 60 * (index + 1), [], of_team)
    })
}

enum Engine {
    InMemory(RateLimiter),
    OnRedis(AsyncRateLimiter),
}

type Answer<T> = Result<T, LimitadorError>;

impl Engine {
    fn in_memory() -> Self {
        let limiter = RateLimiter::new(1_000_000);
        for limit in limits() {
            limiter.add_limit(limit);
        }
        Self::InMemory(limiter)
    }

    async fn on_redis(url: &str, is_cached: bool) -> Self {
        let limiter = if is_cached {
            let storage = CachedRedisStorageBuilder::new(url).build().await.expect("Redis answers");
            AsyncRateLimiter::new_with_storage(Box::new(storage))
        } else {
            let storage = AsyncRedisStorage::new(url).await.expect("Redis answers");
            AsyncRateLimiter::new_with_storage(Box::new(storage))
        };
        for limit in limits() {
            limiter.add_limit(limit);
        }
        Self::OnRedis(limiter)
    }

    /// Whether a call is refused. It counts if it is not.
    async fn check(&self, context: &Context<'_>) -> Answer<bool> {
        let namespace = Namespace::from(NAMESPACE);
        let result = match self {
            Self::InMemory(limiter) => limiter.check_rate_limited_and_update(&namespace, context, 1),
            Self::OnRedis(limiter) => limiter.check_rate_limited_and_update(&namespace, context, 1).await,
        };
        Ok(result?.limited)
    }

    /// Holds the same amount of all limits; none if the call is refused.
    async fn reserve(&self, context: &Context<'_>) -> Answer<Option<ReservationId>> {
        let namespace = Namespace::from(NAMESPACE);
        let result = match self {
            Self::InMemory(limiter) => limiter.reserve(&namespace, context, RESERVED, None),
            Self::OnRedis(limiter) => limiter.reserve(&namespace, context, RESERVED, None).await,
        };
        Ok(result?.reservation_id)
    }

    /// Replaces what is held by what was used.
    async fn commit(&self, context: &Context<'_>, id: &ReservationId) -> Answer<bool> {
        let namespace = Namespace::from(NAMESPACE);
        let result = match self {
            Self::InMemory(limiter) => limiter.commit_reservation(&namespace, context, Some(id), USED),
            Self::OnRedis(limiter) => limiter.commit_reservation(&namespace, context, Some(id), USED).await,
        };
        Ok(result?.reservation_released)
    }
}

#[derive(Clone)]
struct Limitador {
    engine: Arc<Engine>,
    reserves: bool,
}

impl Handler for Limitador {
    const SERVICE: &'static str = "tollgate.bench.Limitador";

    async fn answer(&mut self, call: Call) -> Result<Bytes, Status> {
        let (team, rest) =
            field(&call.request).ok_or_else(|| Status::invalid_argument("the first field is no team"))?;
        let context = Context::from(HashMap::from([("team".to_owned(), team.to_owned())]));
        let answer = if call.asked == Asked::RecordUsage {
            let (id, _) = field(rest).ok_or_else(|| Status::invalid_argument("no reservation"))?;
            self.engine.commit(&context, &with_hyphens(id)).await.map(|released| settled(released))
        } else if self.reserves {
            self.engine.reserve(&context).await.map(|id| reserved(id.as_ref()))
        } else {
            self.engine.check(&context).await.map(checked)
        };
        answer.map_err(|error| Status::unavailable(error.to_string()))
    }
}

/// The text of the first field, and what follows it.
fn field(message: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = message.get(1..)?.split_first()?;
    let (text, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

/// `decision`, as `Authorize` answers.
fn checked(limited: bool) -> Bytes {
    Bytes::from_static(if limited { &[0x08, 0x02] } else { &[0x08, 0x01] })
}

/// `decision` and `reservation_id`, as `Authorize` answers: an id of 32 characters, without its hyphens.
fn reserved(id: Option<&ReservationId>) -> Bytes {
    let Some(id) = id else { return checked(true) };
    let digits = id.as_str().bytes().filter(|byte| *byte != b'-');
    [0x08, 0x01, 0x12, 32].into_iter().chain(digits).collect()
}

/// The id with its hyphens again, as the engine knows it.
fn with_hyphens(id: &str) -> ReservationId {
    let part = |range| id.get(range).unwrap_or_default();
    let parts = [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)];
    ReservationId::from(parts.join("-"))
}

/// An empty `cost`, the first field of what `RecordUsage` answers; nothing if there was no such reservation.
fn settled(released: bool) -> Bytes {
    Bytes::from_static(if released { &[0x0a, 0] } else { &[] })
}

fn main() {
    let mode = env::args().nth(1).unwrap_or_default();
    assert!(["check", "reserve", "cached"].contains(&mode.as_str()), "check, reserve or cached?");
    let (reserves, is_cached) = (mode == "reserve", mode == "cached");
    let Some(url) = env::args().nth(2) else {
        let limitador = Limitador { engine: Arc::new(Engine::in_memory()), reserves };
        return per_core(move |_, listener| serve(listener, Unary(limitador.clone())));
    };
    per_core(move |_, listener| {
        let url = url.clone();
        async move {
            let engine = Arc::new(Engine::on_redis(&url, is_cached).await);
            serve(listener, Unary(Limitador { engine, reserves })).await;
        }
    });
}
