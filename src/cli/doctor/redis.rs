//! Whether a Redis can be used, and does not forget.

use super::{Case, finding::Findings};
use crate::{
    cli::redis_access::redis_access,
    settings::RedisUrl,
    store::redis::{Examination, examine},
};

/// What a user of Redis may do who does all that Tollgate does, as docs/operations.md has it.
const RULE: &str =
    "~tollgate:* -@all +@read +@write +@scripting +@connection +time +info +role +config|get +cluster|slots";

/// By this much the server's clock may differ from this machine's before someone should know: budgets begin and end by the server's.
const MAX_CLOCK_MS: u64 = 2_000;
/// The commands that are shown of those that are denied.
const SHOWN: usize = 8;

pub(super) async fn probe(case: &Case, url: &RedisUrl) -> Findings {
    let mut found = Findings::on("store");
    // The name is part of the keys. Without a policy there is none, and any will do.
    let organization = case.policy.as_ref().map_or("unknown", |policy| &policy.organization.id);
    let shown = &case.settings.store;
    let access = match redis_access(&case.settings) {
        Ok(access) => access,
        Err(error) => {
            found.error(error.to_string(), "name files of PEM that this user may read");
            return found;
        }
    };
    let examined = match examine(url, access, organization).await {
        Ok(examined) => examined,
        Err(reason) => {
            let help = "check the address in `store`, that Redis runs there, and the password";
            found.error(format!("{shown} cannot be asked: {reason}"), help);
            return found;
        }
    };
    judge(&mut found, case, &examined);
    if found.are_good() {
        let micros = examined.round_trip.as_micros();
        let version = examined.version.as_deref().unwrap_or("a server");
        found.good(format!("{shown} is {version}, answers in {micros} µs and keeps what it is given"));
    }
    found
}

fn judge(found: &mut Findings, case: &Case, examined: &Examination) {
    let Examination { is_too_old, is_primary, hazards, .. } = examined;
    if *is_too_old {
        let version = examined.version.as_deref().unwrap_or("the server");
        found.error(format!("{version} is too old"), "use Redis 7 or later, or Valkey");
    }
    if !is_primary {
        found.error("the server is a replica of another, and takes no writes", "name the primary in `store`");
    }
    if let Err(error) = &examined.layout {
        found.error(error.to_string(), "");
    }
    for hazard in hazards {
        match case.settings.require_safe_redis && hazard.is_reason_to_refuse() {
            true => {
                found.error(hazard.to_string(), "`require_safe_redis` is set, so the service would not start")
            }
            false => found.warning(hazard.to_string(), ""),
        }
    }
    denied(found, &examined.denied);
    let (round_trip, bound) = (examined.round_trip, case.settings.store_timeout);
    let slow = format!("the quickest of a few answers took {} ms", round_trip.as_millis());
    let help = "bring Redis nearer to the service, or raise `store_timeout`";
    if round_trip >= bound {
        found.error(format!("{slow}, and `store_timeout` is {} ms", bound.as_millis()), help);
    } else if round_trip >= bound / 4 {
        found.warning(format!("{slow}, more than a quarter of `store_timeout`"), help);
    }
    let ahead = examined.clock_ahead_ms;
    if ahead.unsigned_abs() > MAX_CLOCK_MS {
        let way = if ahead > 0 { "ahead of" } else { "behind" };
        found.warning(
            format!("the clock of Redis is {} ms {way} that of this machine", ahead.unsigned_abs()),
            "let NTP set both: days and months of budgets are those of Redis, and tokens expire by this machine",
        );
    }
}

fn denied(found: &mut Findings, denied: &[String]) {
    if denied.is_empty() {
        return;
    }
    let mut shown: Vec<_> = denied.iter().take(SHOWN).map(|command| format!("`{command}`")).collect();
    if denied.len() > SHOWN {
        shown.push(format!("{} more", denied.len() - SHOWN));
    }
    found.error(
        format!("the user of Redis may not run {}", shown.join(", ")),
        format!("permit it by ACL SETUSER, with the rule that Tollgate needs: {RULE}"),
    );
}
