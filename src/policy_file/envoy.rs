//! Reads the Envoy section of a policy: `[envoy]`.

use std::{collections::HashMap, sync::Arc};

use super::{
    place::Place,
    section::{Located, Section},
};
use crate::domain::{
    key::{MAX_LABELS, is_label, label_rule},
    policy::envoy::{CallerSource, EnvoyPolicy, FreeGroup, OnOutage},
};
use crate::syntax::suggestion::did_you_mean;

/// The words of `callers`.
pub(super) const SOURCES: [&str; 4] = ["api_key", "header", "principal", "route"];
/// The most principals of a policy: far more than one proxy has workloads behind it.
pub(super) const MAX_PRINCIPALS: usize = 10_000;
/// The most bytes of a header's name or a principal.
pub(super) const MAX_BYTES: usize = 256;
/// The words of `on_outage`.
pub(super) const ON_OUTAGE: [(&str, OnOutage); 2] = [("error", OnOutage::Error), ("deny", OnOutage::Deny)];
/// Headers that requests need for other purposes.
const OTHER_HEADERS: [&str; 8] = [
    "accept",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
];
/// The most that `audio_bytes_per_second` may be.
pub(super) const MAX_AUDIO_BYTES_PER_SECOND: u64 = 1_000_000;

/// Reads `[envoy]`. `is_team` recognizes the policy's teams.
pub(super) fn read(section: Section<'_>, is_team: &dyn Fn(&str) -> bool) -> EnvoyPolicy {
    let default = EnvoyPolicy::default();
    let team_header = header(&section, "team_header");
    let user_header = header(&section, "user_header");
    if let (Some(team), Some(user)) = (&team_header, &user_header)
        && team.value == user.value
    {
        section.findings.error(&user.place, "the same header as `team_header`", "");
    }
    let label_headers = label_headers(&section);
    let principals = principals(&section, is_team);
    let callers = callers(&section, team_header, principals).unwrap_or(default.callers);
    let request_phase = section.boolean("request_phase").map(|l| l.value).unwrap_or_default();
    let include_usage = section.boolean("include_usage");
    if let Some(place) = include_usage.as_ref().filter(|l| l.value && !request_phase).map(|l| &l.place) {
        let help = "without `request_phase = true` nothing can change a request";
        section.findings.warning(place, "`include_usage` without `request_phase`", help);
    }
    let audio = section.count("audio_bytes_per_second");
    let policy = EnvoyPolicy {
        callers,
        user_header: user_header.map(|l| l.value),
        label_headers,
        free: free(&section).unwrap_or(default.free),
        request_phase,
        include_usage: include_usage.is_some_and(|l| l.value),
        audio_bytes_per_second: audio.map_or(default.audio_bytes_per_second, |l| l.value),
        on_outage: section.choice("on_outage", &ON_OUTAGE).map(|l| l.value).unwrap_or_default(),
    };
    section.finish();
    policy
}

fn callers(
    section: &Section<'_>,
    team_header: Option<Located<Arc<str>>>,
    principals: HashMap<Arc<str>, Arc<str>>,
) -> Option<Vec<CallerSource>> {
    let findings = section.findings;
    let listed = section.texts("callers");
    let uses =
        |name: &str| listed.as_ref().is_some_and(|l| l.value.iter().any(|source| source.value == name));
    if let Some(header) = team_header.as_ref().filter(|_| !uses("header")) {
        let help = "add \"header\" to `callers`, in its place in the order";
        findings.warning(&header.place, "`team_header` is never read", help);
    }
    if !principals.is_empty() && !uses("principal") {
        let help = "add \"principal\" to `callers`, in its place in the order";
        findings.warning(&section.place.key("principals"), "`principals` are never read", help);
    }
    let listed = listed?;
    if listed.value.is_empty() {
        findings.warning(&listed.place, "no caller is known: every request through Envoy is refused", "");
    }
    let mut sources = Vec::new();
    for Located { value, place } in listed.value {
        let source = match value {
            "api_key" => CallerSource::ApiKey,
            "route" => CallerSource::Route,
            "principal" => CallerSource::Principal(principals.clone()),
            "header" => match &team_header {
                Some(header) => CallerSource::Header(header.value.clone()),
                None => {
                    let help = "name the header: team_header = \"x-tollgate-team\"";
                    findings.error(&place, "\"header\" needs `team_header`", help);
                    continue;
                }
            },
            other => {
                let help = did_you_mean(other, SOURCES)
                    .unwrap_or_else(|| format!("the sources are {}", SOURCES.join(", ")));
                findings.error(&place, format!("`{other}` is no source of callers"), help);
                continue;
            }
        };
        if sources.contains(&source) {
            findings.warning(&place, format!("`{value}` is listed twice"), "");
        } else {
            sources.push(source);
        }
    }
    Some(sources)
}

fn principals(section: &Section<'_>, is_team: &dyn Fn(&str) -> bool) -> HashMap<Arc<str>, Arc<str>> {
    let mut principals = HashMap::new();
    for (name, Located { value: team, place }) in
        section.findings.while_few(section.named_texts("principals"))
    {
        if name.is_empty() || name.len() > MAX_BYTES {
            section.findings.error(&place, format!("a principal has 1 to {MAX_BYTES} bytes"), "");
        }
        if !is_team(team) {
            section.findings.error(&place, format!("the policy has no team `{team}`"), "");
        }
        principals.insert(Arc::from(name), Arc::from(team));
    }
    if principals.len() > MAX_PRINCIPALS {
        let message = format!("{} principals; at most {MAX_PRINCIPALS} are permitted", principals.len());
        section.findings.error(&section.place.key("principals"), message, "");
    }
    principals
}

fn label_headers(section: &Section<'_>) -> Vec<(Arc<str>, Arc<str>)> {
    let mut headers = Vec::new();
    for (label, Located { value, place }) in section.named_texts("label_headers") {
        if !is_label(label, "") {
            section.findings.error(&place, format!("`{label}` is not a label of requests"), label_rule());
        }
        headers.extend(header_name(section, value, &place).map(|header| (Arc::from(label), header)));
    }
    if headers.len() > MAX_LABELS {
        let message = format!("{} labels; at most {MAX_LABELS} are permitted", headers.len());
        section.findings.error(&section.place.key("label_headers"), message, "");
    }
    headers
}

fn header(section: &Section<'_>, key: &'static str) -> Option<Located<Arc<str>>> {
    let Located { value, place } = section.text(key)?;
    Some(Located { value: header_name(section, value, &place)?, place })
}

/// The name of a header, in lower case as Envoy has it.
fn header_name(section: &Section<'_>, value: &str, place: &Place) -> Option<Arc<str>> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if value.is_empty() || value.len() > MAX_BYTES || !value.bytes().all(sound) {
        section.findings.error(place, format!("`{value}` is not the name of a header"), "");
        return None;
    }
    if OTHER_HEADERS.contains(&value.to_ascii_lowercase().as_str()) {
        let help = "a header of its own, such as x-tollgate-team: it does not go on to Groq";
        section.findings.error(place, format!("`{value}` has another use"), help);
        return None;
    }
    Some(Arc::from(value.to_ascii_lowercase()))
}

fn free(section: &Section<'_>) -> Option<Vec<FreeGroup>> {
    let names = || FreeGroup::NAMES.iter().map(|(name, _)| *name);
    let mut groups = Vec::new();
    for Located { value, place } in section.texts("allow")?.value {
        match FreeGroup::NAMES.iter().find(|(name, _)| *name == value) {
            Some((_, group)) => groups.push(*group),
            None => {
                let help = did_you_mean(value, names()).unwrap_or_else(|| {
                    format!("what costs nothing: {}", names().collect::<Vec<_>>().join(", "))
                });
                section.findings.error(&place, format!("`{value}` cannot be allowed"), help);
            }
        }
    }
    Some(groups)
}
