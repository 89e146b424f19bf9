//! Envoy, Groq projects, and who may ask.

use super::{ANY, Form, Kind, SHA256, Shared, TEAM, Table, at_most, count, form, free, key, sized, words};
use crate::{
    domain::{
        key::{MAX_LABEL_KEY, MAX_LABELS},
        policy::{envoy::FreeGroup, upstream::MAX_PLACES},
        rbac::Role,
    },
    policy_file::{
        access::{MAX_BYTES, MAX_ENTRIES, MAX_ISSUERS},
        envoy::{self, MAX_AUDIO_BYTES_PER_SECOND, MAX_PRINCIPALS, ON_OUTAGE, SOURCES},
    },
};

const HEADER: Form = form("header's name", "^[A-Za-z0-9_-]{1,256}$");
const TOKEN_NAME: Form = form("name", "^[a-z0-9][a-z0-9_-]{0,63}$");

fn roles() -> Vec<&'static str> {
    Role::ALL.map(Role::name).to_vec()
}

pub(super) static ENVOY: Table = Table {
    name: "envoy",
    doc: "How requests that come through Envoy are handled.",
    keys: &[
        key(
            "callers",
            Kind::Choices(|| SOURCES.to_vec(), ANY),
            "where the caller is looked for, in this order. The first that names a caller decides",
        )
        .or("[\"api_key\"]"),
        key(
            "team_header",
            Kind::Text(HEADER),
            "for `header`: what holds the name of a team. Let Envoy strip it from clients",
        ),
        key(
            "principals",
            Kind::NamedTexts(sized("identity", envoy::MAX_BYTES), TEAM, at_most(MAX_PRINCIPALS)),
            "for `principal`: the team of each identity that a client certificate proves",
        ),
        key("user_header", Kind::Text(HEADER), "names the end user, before the body's `user`"),
        key(
            "label_headers",
            Kind::NamedTexts(sized("label", MAX_LABEL_KEY), HEADER, at_most(MAX_LABELS)),
            "the header that has each label, such as `cost_center = \"x-cost-center\"`. Let Envoy set them, or strip them from clients",
        ),
        key(
            "allow",
            Kind::Choices(|| words(&FreeGroup::NAMES), ANY),
            "what known callers may ask for free",
        )
        .or("[\"models\"]"),
        key(
            "request_phase",
            Kind::Boolean,
            "Envoy passes requests through the filter that writes in what was granted. Without it nothing is clamped",
        )
        .or("false"),
        key("include_usage", Kind::Boolean, "the request phase makes streams end with their usage").or("false"),
        key(
            "audio_bytes_per_second",
            count(1, MAX_AUDIO_BYTES_PER_SECOND),
            "converts the size of audio into a duration where only the size is known",
        )
        .or("4000"),
        key(
            "on_outage",
            Kind::Choice(|| words(&ON_OUTAGE)),
            "while the store is down, for teams whose `on_store_outage` is `\"deny\"`: let the filter's `failure_mode_allow` decide, or answer 503",
        )
        .or("\"error\""),
    ],
    shared: &[],
};

pub(super) static PROJECT: Table = Table {
    name: "project",
    doc: "A Groq project, whose keys replace those of clients.",
    keys: &[
        key("keys", Kind::Tables(&KEY_PLACE, at_most(MAX_PLACES)), "where the project's Groq keys are")
            .or_else("where [`groq_keys`](settings.md#groqs-keys) of the settings says"),
        key("teams", Kind::Texts(TEAM, ANY), "the teams whose requests are sent with them")
            .or_else("all that no other project names"),
    ],
    shared: &[],
};

static KEY_PLACE: Table = Table {
    name: "key_place",
    doc: "Where one Groq key is, or several: exactly one of these.",
    keys: &[
        key("env", Kind::Text(free("variable")), "an environment variable that holds a key"),
        key("file", Kind::Text(free("path")), "a file that holds a key and nothing else"),
        key("directory", Kind::Text(free("path")), "a directory with such files"),
    ],
    shared: &[],
};

pub(super) static ACCESS: Table = Table {
    name: "access",
    doc: "Who may ask. With this table, only callers that it names may.",
    keys: &[
        key("tokens", Kind::Named(TOKEN_NAME, &TOKEN, at_most(MAX_ENTRIES)), "by name: service tokens"),
        key(
            "certificates",
            Kind::Named(sized("identity", MAX_BYTES), &GRANT, at_most(MAX_ENTRIES)),
            "by identity, in full as in the certificate: clients with certificates",
        ),
        key("oidc", Kind::Tables(&ISSUER, at_most(MAX_ISSUERS)), "OpenID providers"),
    ],
    shared: &[],
};

static TOKEN: Table = Table {
    name: "token",
    doc: "A service token, and what it may do.",
    keys: &[
        key("sha256", Kind::Text(SHA256), "the digest of a service token, which begins with `tgs_`")
            .required(),
        key("expires", Kind::Date, "when the token ends").or_else("never"),
    ],
    shared: &[GRANTED],
};

const GRANTED: Shared = Shared { label: "`roles`, `teams`", table: &GRANT, doc: "[what it may do](#access)" };

static GRANT: Table = Table {
    name: "grant",
    doc: "What a caller may do.",
    keys: &[
        key("roles", Kind::Choices(roles, ANY), "the [roles](access.md#roles)").required(),
        key(
            "teams",
            Kind::Texts(TEAM, ANY),
            "the teams to which `viewer`, `gateway` and `team-admin` apply; required with `team-admin`, not possible with \
             the others",
        )
        .or_else("all"),
    ],
    shared: &[],
};

static ISSUER: Table = Table {
    name: "issuer",
    doc: "An OpenID provider.",
    keys: &[
        key(
            "issuer",
            Kind::Text(sized("URL", MAX_BYTES)),
            "as tokens have it in `iss`; https, or http on loopback",
        )
        .required(),
        key("audience", Kind::Text(sized("string", MAX_BYTES)), "what tokens for Tollgate have in `aud`")
            .required(),
        key(
            "claim",
            Kind::Text(sized("name", MAX_BYTES)),
            "the claim whose values `map` lists; `a.b` also means `b` within `a`",
        )
        .or("\"groups\""),
        key(
            "map",
            Kind::Named(sized("value", MAX_BYTES), &GRANT, at_most(MAX_ENTRIES)),
            "by value of the claim, such as a group: what it may do",
        )
        .required(),
    ],
    shared: &[],
};
