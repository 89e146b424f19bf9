//! The fields of a key's forms.

use maud::{Markup, html};

use super::{
    limits,
    typed::{BOUNDS, Typed, name_of},
};
use crate::{
    console::{
        fields::TOKEN,
        parts::{Control, Kind},
        refusal::Faults,
        text::number,
        view::View,
    },
    domain::{key::KeyLimits, limit::Quantity, limit_kind::LimitKind, rbac::Permission},
};

/// More teams than a list of choices is of use for.
const MAX_CHOICES: usize = 100;

/// What proves that a form is of this page.
pub(super) fn token(view: &View) -> Markup {
    html! { input type="hidden" name=(TOKEN) value=(view.form_token().unwrap_or_default()); }
}

/// The form that creates a key; for those who may, of any team.
pub(super) fn create(view: &View, typed: &Typed, faults: &Faults, sound: bool) -> Markup {
    let teams = view.teams(Permission::ManageKeys);
    // Only one team's bounds can be shown in its fields.
    let team = if teams.len() == 1 { teams.first().copied().unwrap_or_default() } else { typed.get("team") };
    let of_team = limits::of_team(view, team);
    html! {
        section {
            form.panel method="post" action=(format!("{}#create", view.address("/keys"))) {
                (token(view))
                h2 #create { "Create a key" }
                (faults.banner())
                @if sound {
                    div.banner.banner-ok role="status" {
                        p { strong { "This can be created." } " Nothing was created yet." }
                    }
                }
                p.quiet.prose { "A key narrows what its team may do, never widens it. What is left empty is the team's." }
                div.fields.gap {
                    (Control {
                        id: "create-name", name: "name", label: "Name", value: typed.get("name"), most: 64, required: true,
                        hint: "{team}-{environment}-{purpose}, such as chatbot-prod-web; never given twice",
                        fault: faults.of("name"), ..Control::default()
                    })
                    (team_field("create-team", &teams, typed.get("team"), faults.of("team"), None))
                    (limit_fields(typed, faults, (team, of_team.as_ref()), "create"))
                    (other_fields(view, typed, faults, of_team.as_ref(), "create"))
                }
                div.actions {
                    button.primary { "Create" }
                    button name="check" value="1" { "Check only" }
                    span.quiet.small { "The secret is shown once, on the next page." }
                }
            }
        }
    }
}

/// The fields of everything that can be changed.
pub(super) fn changes(view: &View, typed: &Typed, faults: &Faults, team: &str) -> Markup {
    let of_team = limits::of_team(view, team);
    html! {
        div.fields.gap {
            (limit_fields(typed, faults, (team, of_team.as_ref()), "change"))
            (other_fields(view, typed, faults, of_team.as_ref(), "change"))
        }
    }
}

/// Chooses a team. `all`: the words for all of them, if that can be asked for.
pub(super) fn team_field(
    id: &str,
    teams: &[&str],
    value: &str,
    fault: Option<&str>,
    all: Option<&str>,
) -> Markup {
    let control = Control { id, name: "team", label: "Team", value, fault, ..Control::default() };
    if teams.len() > MAX_CHOICES {
        let placeholder = all.unwrap_or_default();
        return html! { (Control { most: 64, required: all.is_none(), placeholder, ..control }) };
    }
    let all = all.map(|words| ("", words));
    let choices: Vec<_> = all.into_iter().chain(teams.iter().map(|team| (*team, *team))).collect();
    html! { (Control { kind: Kind::Choice(&choices), ..control }) }
}

const fn label(kind: LimitKind) -> &'static str {
    match kind {
        LimitKind::MonthlyBudget => "Dollars a month",
        LimitKind::WeeklyBudget => "Dollars a week",
        LimitKind::DailyBudget => "Dollars a day",
        LimitKind::RequestsPerMinute => "Requests in any minute",
        LimitKind::TokensPerMinute => "Tokens in any minute",
        _ => "Requests at once",
    }
}

fn limit_fields(
    typed: &Typed,
    faults: &Faults,
    (team, has): (&str, Option<&KeyLimits>),
    form: &str,
) -> Markup {
    html! {
        @for kind in BOUNDS {
            @let name = name_of(kind.path());
            @let is_money = kind.quantity() == Quantity::NanoUsd;
            @let of_team = has.and_then(|has| has.bound(kind)).map(|bound| limits::amount(kind, bound.into()));
            @let hint = of_team.as_ref().map(|amount| format!("{team} has {amount}")).unwrap_or_default();
            (Control {
                id: &format!("{form}-{name}"), name, label: label(kind), value: typed.get(name),
                kind: if is_money { Kind::Money } else { Kind::Count },
                placeholder: of_team.as_deref().unwrap_or_default().trim_start_matches('$'),
                hint: &hint, fault: faults.of(name), ..Control::default()
            })
        }
    }
}

fn other_fields(view: &View, typed: &Typed, faults: &Faults, team: Option<&KeyLimits>, form: &str) -> Markup {
    let most = team.and_then(|team| team.max_output_tokens).and_then(|most| i64::try_from(most).ok());
    let most = most.map(number::count).unwrap_or_default();
    let models = team.map(|team| team.models.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    let zone = format!("in {}; empty: never", view.zone().iana_name().unwrap_or("UTC"));
    let id = |name: &str| format!("{form}-{name}");
    let control = |name: &'static str, label: &'static str| Control {
        name,
        label,
        value: typed.get(name),
        fault: faults.of(name),
        ..Control::default()
    };
    html! {
        (Control {
            id: &id("max_output_tokens"), kind: Kind::Count, placeholder: &most,
            ..control("max_output_tokens", "Output tokens of one request")
        })
        (Control { id: &id("expire_time"), kind: Kind::Instant, hint: &zone, ..control("expire_time", "Expires") })
        (Control {
            id: &id("models"), kind: Kind::Lines(3), placeholder: models.as_deref().unwrap_or_default(),
            hint: "one on each line; the beginning of names with * at the end", ..control("models", "Models")
        })
        (Control {
            id: &id("labels"), kind: Kind::Lines(3), hint: "one name=value on each line", ..control("labels", "Labels")
        })
    }
}
