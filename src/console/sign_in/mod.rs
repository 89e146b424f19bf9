//! Signing in and out: `/auth/…`. Sessions and the provider are [`crate::access`]'s; this is their HTTP.
//!
//! ```text
//! GET  /auth/sign-in                 the page; with `?with=` leaves for the provider: see [`Asked::prompt`]
//! POST /auth/token                   with a service token
//! GET  /auth/callback                back from the provider
//! POST /auth/sign-out
//! ```

mod answer;
mod asked;
mod page;
mod sign_out;
mod whose;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header::SET_COOKIE},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tracing::{debug, error};

use self::{
    answer::{closed, see_other, shown},
    asked::{Asked, value},
    page::{Banner, Shown},
    sign_out::sign_out,
};
use super::{
    address::{ConsoleAddress, NoWay, Way, cookie},
    body,
};
use crate::{
    access::{
        BeginError, CALLBACK, Ended, Guard, Kind, Peer, Refusal, Resumed, Return, SealError, Sessions,
        SignIn, SignInError, SignedIn, Who, return_address,
    },
    audit::{Change, action},
    domain::{actor::Actor, rbac::Principal},
};

const SIGN_IN: &str = "/auth/sign-in";
const TOKEN: &str = "/auth/token";
const SIGN_OUT: &str = "/auth/sign-out";
/// The most bytes of a form: a token, and where to return to.
const MAX_FORM: usize = 16 * 1024;

/// Where people come in and go out. Clones share it.
#[derive(Clone, Debug)]
pub struct Door(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    sessions: Sessions,
    /// `None`: people sign in with service tokens alone.
    provider: Option<SignIn>,
    address: ConsoleAddress,
}

/// The address of the page, with what it is told.
fn way_in(told: Option<(&str, &str)>, return_to: Option<&str>) -> String {
    let return_to = return_to.map(|address| ("return_to", address));
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(told.into_iter().chain(return_to));
    let query = query.finish();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{SIGN_IN}{mark}{query}")
}

impl Door {
    /// The door of a console at `address`, into `sessions`, by `provider` as well as by service tokens.
    #[must_use]
    pub fn new(sessions: Sessions, provider: Option<SignIn>, address: ConsoleAddress) -> Self {
        Self(Arc::new(Parts { sessions, provider, address }))
    }

    /// Its addresses.
    pub fn router(self) -> Router {
        Router::new()
            .route(SIGN_IN, get(show))
            .route(TOKEN, post(by_token))
            .route(CALLBACK, get(arrive))
            .route(SIGN_OUT, post(sign_out))
            .with_state(self)
    }

    /// The session of a request, if its cookie is one. `None`: it has no cookie.
    ///
    /// # Errors
    /// The session is over, or the cookie never was one.
    pub fn session(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Option<Result<Resumed, Ended>> {
        let way = self.0.address.way(headers, peer).ok()?;
        Some(self.0.sessions.resume(cookie(headers, way.session())?))
    }

    /// The header that gives a renewed session to the browser.
    #[must_use]
    pub fn renewed(&self, headers: &HeaderMap, peer: Option<&Peer>, cookie: &str) -> Option<HeaderValue> {
        let way = self.0.address.way(headers, peer).ok()?;
        way.cookie(way.session(), cookie, None).parse().ok()
    }

    /// Where a browser without a session goes from the page at `address`; for `stale` sessions the provider is first asked without
    /// the person noticing.
    #[must_use]
    pub fn detour(&self, address: &str, ended: Option<&Ended>) -> String {
        let why = match ended {
            Some(Ended::Stale(_)) if self.0.provider.is_some() => Some(("with", "silent")),
            Some(_) => Some(("why", "ended")),
            None => None,
        };
        way_in(why, return_address(address))
    }

    pub(super) fn guard(&self) -> &Guard {
        self.0.sessions.guard()
    }

    /// Whether a change with these headers, from `peer`, was sent by a page of the console.
    pub(super) fn is_from_own_page(&self, headers: &HeaderMap, peer: Option<&Peer>) -> bool {
        let way = match self.guard().knows_callers() {
            true => self.0.address.way(headers, peer).ok(),
            // There is no session, and no cookie that others could read.
            false => Some(self.0.address.open_way(headers, peer)),
        };
        way.is_some_and(|way| way.is_from_own_page(headers))
    }

    /// Whether a session still holds, with the roles of the policy in force.
    pub(super) fn still_knows(&self, signed_in: &SignedIn) -> bool {
        self.0.sessions.holds(signed_in)
    }

    /// What forms hold of a reader without a session: see [`Sessions::form_tokens`].
    pub(super) fn form_tokens(&self, organization: &str, name: &str) -> Vec<String> {
        self.0.sessions.form_tokens(organization, name)
    }

    /// Whether the settings say where the console is.
    pub(super) fn is_named(&self) -> bool {
        self.0.address.is_named()
    }

    /// Whether a request with these headers is for another place than the settings say.
    pub(super) fn is_elsewhere(&self, headers: &HeaderMap) -> bool {
        self.0.address.is_elsewhere(headers)
    }

    /// How a request came, or the answer to one that is not served.
    fn way(&self, asked: &Asked) -> Result<Way, Box<Response>> {
        self.0.address.way(&asked.headers, asked.peer.as_ref()).map_err(|no_way| {
            Box::new(match no_way {
                NoWay::ForeignHost => {
                    let text = "this `Host` is not the console's: use the address in console_url\n";
                    closed((StatusCode::MISDIRECTED_REQUEST, text).into_response())
                }
                NoWay::Insecure => self.refused(StatusCode::FORBIDDEN, Banner::Insecure, None),
            })
        })
    }

    fn refused(&self, status: StatusCode, banner: Banner, return_to: Option<&str>) -> Response {
        shown(status, self.page(&Shown { banner, return_to, fault: None }))
    }

    fn count(&self, path: &str, reason: &'static str) {
        self.guard().refusals().add(path, reason);
        debug!(page = path, reason, "sign-in refused");
    }

    fn record(
        &self,
        action: &'static str,
        caller: &Principal,
        from: Option<SocketAddr>,
        signed_in: &SignedIn,
    ) {
        self.guard().audit().changed(Change {
            actor: Actor::caller(Some(caller), from),
            action,
            subject: signed_in.id(),
            before: Value::Null,
            after: Value::Null,
            outcome: "done",
        });
    }
}

/// `GET /auth/sign-in`.
async fn show(State(door): State<Door>, request: Request) -> Response {
    let asked: Asked = request.into();
    let return_to = asked.query("return_to");
    let return_to = return_to.as_deref().and_then(return_address);
    let door = door.toward(return_to);
    if !door.guard().knows_callers() {
        return shown(StatusCode::OK, door.no_need());
    }
    let way = match door.way(&asked) {
        Ok(way) => way,
        Err(answer) => return *answer,
    };
    if let (Some(provider), Some(prompt)) = (&door.0.provider, asked.prompt()) {
        return match provider.leave(return_to, prompt).await {
            Ok(leave) => {
                let cookie = way.cookie(way.attempt(), &leave.cookie, Some(SignIn::LIFETIME_SECONDS));
                see_other(&leave.address, &[cookie])
            }
            Err(error) => {
                debug!(%error, "sign-in refused");
                door.refused(StatusCode::BAD_GATEWAY, Banner::Unavailable, return_to)
            }
        };
    }
    // A person who comes by an old link is in already.
    if asked.cookie(way.session()).is_some_and(|cookie| door.0.sessions.resume(cookie).is_ok()) {
        return see_other(&door.inside(return_to), &[]);
    }
    let banner = match asked.query("why").as_deref() {
        Some("ended") => Banner::Ended,
        Some("signed-out") => Banner::SignedOut,
        _ => Banner::None,
    };
    door.refused(StatusCode::OK, banner, return_to)
}

/// `POST /auth/token`.
async fn by_token(State(door): State<Door>, request: Request) -> Response {
    let mut asked: Asked = request.into();
    let way = match door.way(&asked) {
        Ok(way) => way,
        Err(answer) => return *answer,
    };
    // A page of another site could sign its visitor in as someone else, to see what they do then.
    if !way.is_from_own_page(&asked.headers) && !Way::is_from_no_page(&asked.headers) {
        door.count(TOKEN, "FOREIGN_REQUEST");
        return door.refused(StatusCode::FORBIDDEN, Banner::Foreign, None);
    }
    let Some(form) = body::whole(std::mem::take(&mut asked.body), MAX_FORM).await else {
        return door.refused(StatusCode::PAYLOAD_TOO_LARGE, Banner::Odd, None);
    };
    let return_to = value(&form, "return_to");
    let return_to = return_to.as_deref().and_then(return_address);
    let token = value(&form, "token").unwrap_or_default();
    match door.0.sessions.organizations().by_service_token(token.trim(), return_to) {
        Ok((guard, principal, who)) => {
            let door = door.of(&guard);
            let begun = door.0.sessions.begin(who, None);
            door.let_in(&asked, &way, &principal, begun, return_to)
        }
        Err(refusal) => {
            door.count(TOKEN, refusal.reason());
            let fault = match &refusal {
                Refusal::NotConfigured => return shown(StatusCode::OK, door.no_need()),
                Refusal::Malformed(_) => "A service token begins with tgs_.",
                refusal if refusal.reason() == "TOKEN_EXPIRED" => "This token has expired.",
                _ => "The policy does not have this token.",
            };
            shown(
                StatusCode::UNAUTHORIZED,
                door.page(&Shown { banner: Banner::None, return_to, fault: Some(fault) }),
            )
        }
    }
}

/// `GET /auth/callback`.
async fn arrive(State(door): State<Door>, request: Request) -> Response {
    let asked: Asked = request.into();
    let way = match door.way(&asked) {
        Ok(way) => way,
        Err(answer) => return *answer,
    };
    let over = way.cookie(way.attempt(), "", Some(0));
    let Some(provider) = &door.0.provider else {
        return door.refused(StatusCode::NOT_FOUND, Banner::Lost, None);
    };
    let (query, attempt) = (asked.query.clone(), asked.cookie(way.attempt()).map(str::to_owned));
    let address = asked.from().map(|address| address.ip());
    let mut answer = match provider.arrive(&query, attempt.as_deref(), address).await {
        Ok(arrived) => door.of(&arrived.guard).arrived(&asked, &way, arrived, provider.host()),
        Err(SignInError::MustAsk { return_to }) => {
            see_other(&door.detour(return_to.as_deref().unwrap_or_default(), Some(&Ended::Old)), &[])
        }
        Err(error) => {
            let (status, banner, reason) = judged(&error);
            door.count(CALLBACK, reason);
            debug!(page = CALLBACK, %error, "sign-in refused");
            door.refused(status, banner, None)
        }
    };
    // One answer for one attempt.
    if let Ok(over) = over.parse() {
        answer.headers_mut().append(SET_COOKIE, over);
    }
    answer
}

/// What a person is told of an error, and by which name it is counted.
const fn judged(error: &SignInError) -> (StatusCode, Banner, &'static str) {
    match error {
        SignInError::Lost => (StatusCode::BAD_REQUEST, Banner::Lost, "SIGN_IN_LOST"),
        SignInError::Odd(_) => (StatusCode::BAD_REQUEST, Banner::Odd, "SIGN_IN_ODD"),
        SignInError::Denied(_) | SignInError::MustAsk { .. } => {
            (StatusCode::FORBIDDEN, Banner::Denied, "SIGN_IN_DENIED")
        }
        SignInError::Unavailable | SignInError::Begin(_) => {
            (StatusCode::BAD_GATEWAY, Banner::Unavailable, "ISSUER_UNAVAILABLE")
        }
        SignInError::Refused(refusal) => match refusal.kind() {
            Kind::Unavailable => (StatusCode::BAD_GATEWAY, Banner::Unavailable, refusal.reason()),
            _ => (StatusCode::FORBIDDEN, Banner::NotTaken, refusal.reason()),
        },
    }
}

impl Door {
    /// A person came back from the provider at `host`.
    fn arrived(&self, asked: &Asked, way: &Way, arrived: Return, host: &str) -> Response {
        let Return { principal, person, own, until, return_to, is_silent, .. } = arrived;
        if principal.grants.is_empty() {
            self.count(CALLBACK, "NO_ROLE");
            self.guard().audit().denied(&principal, || Change {
                actor: Actor::caller(Some(&principal), asked.from()),
                action: action::SESSION_BEGIN,
                subject: String::new(),
                before: Value::Null,
                after: json!({ "name": person.name }),
                outcome: "NO_ROLE",
            });
            return shown(StatusCode::FORBIDDEN, self.no_role(&person.name, host));
        }
        let return_to = return_to.as_deref().and_then(return_address);
        // The same person at the same browser: their session continues, and the forms of their other pages are good.
        let old = asked.cookie(way.session()).filter(|_| is_silent);
        match old.map(|old| self.0.sessions.prove_again(old, &person, until)) {
            Some(Ok(Some((_, cookie)))) => {
                see_other(&self.inside(return_to), &[way.cookie(way.session(), &cookie, None)])
            }
            _ => {
                let begin = |person| self.0.sessions.begin(Who::Person(person), Some(until));
                let begun = match begin(person) {
                    // What other organizations map keeps no one out of this one.
                    Err(BeginError::Seal(SealError::TooLong)) => begin(own),
                    begun => begun,
                };
                self.let_in(asked, way, &principal, begun, return_to)
            }
        }
    }

    /// Lets a person in, with a session that is always a new one.
    fn let_in(
        &self,
        asked: &Asked,
        way: &Way,
        principal: &Principal,
        begun: Result<(SignedIn, String), BeginError>,
        return_to: Option<&str>,
    ) -> Response {
        match begun {
            Ok((signed_in, cookie)) => {
                self.end(asked, way);
                self.record(action::SESSION_BEGIN, principal, asked.from(), &signed_in);
                see_other(&self.inside(return_to), &[way.cookie(way.session(), &cookie, None)])
            }
            Err(error) => {
                error!(%error, "a session cannot be made");
                let banner = match error {
                    BeginError::Seal(SealError::TooLong) => Banner::TooLarge,
                    BeginError::Seal(_) | BeginError::NoEntropy(_) => Banner::Unavailable,
                };
                self.refused(StatusCode::INTERNAL_SERVER_ERROR, banner, return_to)
            }
        }
    }
}
