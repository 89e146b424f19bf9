//! The page by which people come in.

use std::sync::Arc;

use maud::{DOCTYPE, Markup, html};

use super::{Door, way_in};
use crate::console::{assets, frame::mark};

/// Why a person sees the page, above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Banner {
    None,
    /// The session is over.
    Ended,
    /// They signed out.
    SignedOut,
    /// The answer of their provider is of no sign-in that began here.
    Lost,
    /// The provider sent something else than it should.
    Odd,
    /// The provider did not let them in.
    Denied,
    /// The provider does not answer, or what it says cannot be checked.
    Unavailable,
    /// What the provider says is not taken.
    NotTaken,
    /// A page of another site sent it.
    Foreign,
    /// Cookies would cross a network without TLS.
    Insecure,
    /// They have too many groups for a cookie.
    TooLarge,
}

impl Banner {
    /// What happened, and what to do.
    const fn text(self) -> Option<(&'static str, &'static str)> {
        Some(match self {
            Self::None => return None,
            Self::Ended => ("Your session ended.", "Sign in, and you will be where you were."),
            Self::SignedOut => ("You signed out.", "At your provider you may still be signed in."),
            Self::Lost => (
                "This sign-in does not count any more.",
                "It began in another browser, or more than ten minutes ago. Start again.",
            ),
            Self::Odd => ("The provider's answer is not one that it would send.", "Start again."),
            Self::Denied => ("Your provider did not let you in.", "Start again, or ask those who run it."),
            Self::Unavailable => (
                "Your provider does not answer as it should.",
                "Try again in a moment. The log of Tollgate says what is wrong.",
            ),
            Self::NotTaken => (
                "What your provider says of you is not taken.",
                "Start again. The log of Tollgate says what is wrong.",
            ),
            Self::Foreign => {
                ("This form was not sent by a page of the console.", "Nothing was changed. Start again.")
            }
            Self::Insecure => (
                "The console is not reached through TLS.",
                "No one signs in over a network that others can read. Use https, or the machine itself.",
            ),
            Self::TooLarge => (
                "You have too many groups for a session.",
                "Let the provider name fewer of those that the policy maps to roles.",
            ),
        })
    }
}

/// What the page shows.
pub(super) struct Shown<'a> {
    pub(super) banner: Banner,
    /// Where the person was.
    pub(super) return_to: Option<&'a str>,
    /// What is wrong with the token.
    pub(super) fault: Option<&'static str>,
}

impl Door {
    /// The page, for a person who is not signed in.
    pub(super) fn page(&self, shown: &Shown<'_>) -> Markup {
        let provider = self.0.provider.as_ref();
        let is_way = shown.banner != Banner::Insecure;
        self.framed(html! {
            @if let Some((what, then)) = shown.banner.text() {
                div.banner role="status" { p { strong { (what) } " " (then) } }
            }
            h1 { "Sign in" }
            @if is_way && let Some(provider) = provider {
                p.quiet { "Your groups there decide which teams you see." }
                p.gap { a.button.primary href=(start(shown.return_to)) { "Continue at " (provider.host()) } }
                details open[shown.fault.is_some()] {
                    summary { "With a service token instead" }
                    (with_token(shown))
                }
            } @else if is_way {
                (with_token(shown))
            }
        })
    }

    /// For a person that the provider knows, and the policy gives no role.
    pub(super) fn no_role(&self, name: &str, host: &str) -> Markup {
        self.framed(html! {
            h1 { "No role" }
            p { (host) " knows you as " strong { (name) } ", and none of your groups has a role here." }
            p.gap.quiet { "Those who write the policy give one in " code { "[[access.oidc]]" } "." }
            p.gap { a.button href=(way_in(Some(("with", "another")), None)) { "Sign in as another" } }
        })
    }

    /// Without `[access]`, anyone is let in.
    pub(super) fn no_need(&self) -> Markup {
        self.framed(html! {
            div.banner {
                p {
                    strong { "Anyone who reaches this address sees and changes everything here." }
                    " The policy has no " code { "[access]" } ", which would say who may."
                }
            }
            h1 { "Nothing to sign in to" }
            p.gap { a.button.primary href="/" { "To the console" } }
        })
    }

    /// The organization that people come to; where there are several, they are not shown to strangers.
    fn organization(&self) -> Arc<str> {
        match self.organizations() {
            1 => self.guard().organization(),
            _ => "".into(),
        }
    }

    fn framed(&self, body: Markup) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { "Sign in · Tollgate" }
                    link rel="icon" href=(assets::ICON.address()) type="image/svg+xml";
                    link rel="stylesheet" href=(assets::STYLE.address());
                }
                body.door {
                    main {
                        p.brand { (mark()) " Tollgate " span.org { (self.organization()) } }
                        (body)
                    }
                    footer.foot {
                        p {
                            span { "Tollgate " (env!("CARGO_PKG_VERSION")) }
                            " " span { "Signing in and out is in the audit log" }
                        }
                    }
                }
            }
        }
    }
}

/// Where signing in through the provider begins. A link and no form: browsers hold the target of a form to this site, and the
/// provider is another one.
fn start(return_to: Option<&str>) -> String {
    way_in(Some(("with", "provider")), return_to)
}

fn with_token(shown: &Shown<'_>) -> Markup {
    html! {
        form method="post" action="/auth/token" {
            @if let Some(return_to) = shown.return_to {
                input type="hidden" name="return_to" value=(return_to);
            }
            div.field {
                label for="token" { "Service token" }
                input #token name="token" type="password" autocomplete="off" spellcheck="false" placeholder="tgs_…" required
                    aria-invalid=[shown.fault.map(|_| "true")] aria-describedby=[shown.fault.map(|_| "token-f")];
                @if let Some(fault) = shown.fault {
                    span #token-f.fault { (fault) }
                }
            }
            button { "Sign in with the token" }
        }
    }
}
