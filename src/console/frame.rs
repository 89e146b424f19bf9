//! What stands around every page.

use maud::{DOCTYPE, Markup, html};

use super::{alerts::OpenCount, assets, pauses, text::time, view::View};
use crate::{access::SignedIn, domain::rbac::Permission};

/// The pages that the head of every page leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    /// The page is none of them, or below one that it does not name.
    None,
    Overview,
    Decisions,
    Teams,
    Keys,
    Pauses,
    Policy,
    Reports,
    Alerts,
    Audit,
}

struct Link {
    tab: Tab,
    name: &'static str,
    path: &'static str,
    /// Without this, the page would be empty.
    needs: Permission,
}

const LINKS: [Link; 9] = [
    Link { tab: Tab::Overview, name: "Overview", path: "/", needs: Permission::ReadSpend },
    Link { tab: Tab::Decisions, name: "Decisions", path: "/decisions", needs: Permission::ReadDecisions },
    Link { tab: Tab::Teams, name: "Teams", path: "/teams", needs: Permission::ReadTeamPolicy },
    Link { tab: Tab::Keys, name: "Keys", path: "/keys", needs: Permission::ReadKeys },
    Link { tab: Tab::Pauses, name: "Pauses", path: "/pauses", needs: Permission::ReadPauses },
    Link { tab: Tab::Policy, name: "Policy", path: "/policy", needs: Permission::ReadPolicy },
    Link { tab: Tab::Reports, name: "Reports", path: "/reports", needs: Permission::ReadSpend },
    Link { tab: Tab::Alerts, name: "Alerts", path: "/alerts", needs: Permission::ReadAlerts },
    Link { tab: Tab::Audit, name: "Audit", path: "/audit", needs: Permission::ReadAudit },
];

/// A whole page.
pub(super) fn page(view: &View, tab: Tab, title: &str, body: &Markup) -> Markup {
    let organization = &view.snapshot().policy.organization.id;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Tollgate" }
                link rel="icon" href=(assets::ICON.address()) type="image/svg+xml";
                link rel="stylesheet" href=(assets::STYLE.address());
                script src=(assets::SCRIPT.address()) type="module" {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                (bar(view, tab, organization))
                main #main {
                    @if view.caller().is_none() { (open_to_anyone()) }
                    (body)
                }
                (foot(view))
            }
        }
    }
}

fn bar(view: &View, tab: Tab, organization: &str) -> Markup {
    html! {
        header.bar {
            div.bar-in {
                a.brand href=(view.address("/")) {
                    (mark()) " Tollgate " span.org { (organization) }
                }
                nav.nav aria-label="Pages" {
                    ul #pages data-live {
                        @for link in LINKS.iter().filter(|link| view.may(link.needs)) {
                            li {
                                a href=(view.address(link.path)) aria-current=[(link.tab == tab).then_some("page")] {
                                    (link.name) (count(view, link.tab))
                                }
                            }
                        }
                    }
                }
                @if let Some(caller) = view.caller() {
                    div.who {
                        span.name.quiet.small { (view.session().and_then(SignedIn::name).unwrap_or(&caller.name)) }
                        @if let Some(session) = view.session() {
                            form method="post" action="/auth/sign-out" {
                                input type="hidden" name="form_token" value=(session.form_token());
                                button { "Sign out" }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// How many things a page has that hold at the moment.
fn count(view: &View, tab: Tab) -> Markup {
    let count = match tab {
        Tab::Pauses => Some(pauses::count(view)).filter(|count| *count > 0).map(|count| count.to_string()),
        Tab::Alerts => view.open_alerts().and_then(OpenCount::text),
        _ => None,
    };
    html! { @if let Some(count) = count { " " span.count { (count) } } }
}

fn foot(view: &View) -> Markup {
    let zone = view.zone().iana_name().unwrap_or("UTC");
    let document = view.snapshot().policy.revision.to_string();
    html! {
        footer.foot {
            p #page-made data-live {
                span { "Times are of " (zone) }
                " " span { "Policy " code { (document) } }
                " " span { "Page made " (time::second(view.now(), view.now())) }
            }
        }
    }
}

/// In development mode, on every page.
fn open_to_anyone() -> Markup {
    html! {
        div.banner {
            p {
                strong { "Anyone who reaches this address sees and changes everything here." }
                " The policy has no " code { "[access]" } ", which would say who may."
            }
        }
    }
}

pub(super) fn mark() -> Markup {
    html! {
        svg.brand-mark viewBox="0 0 18 18" aria-hidden="true" {
            path d="M2 2.5h2v13H2zM5.5 5h11v2.5h-11zM13.5 9h2v6.5h-2z" {}
        }
    }
}
