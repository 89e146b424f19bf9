//! What holds of a key's record whatever was written to it since: that the key was revoked, or one of its secrets.

use tracing::error;

use super::{KEY, entry};
use crate::{domain::key::KeyRecord, store::CarriedOver};

/// What becomes of the record `name` as it was when a store forgot it, where it was written since. A key that was revoked stays revoked,
/// and a secret that was ended stays ended. Of anything else the later write counts.
#[must_use]
pub fn carried_over(name: &str, forgotten: &[u8], present: &[u8]) -> CarriedOver {
    let forgotten = entry::from_bytes::<KeyRecord>(forgotten).ok();
    let Some(forgotten) = forgotten.filter(|record| name.starts_with(KEY) && record.ends()) else {
        return CarriedOver::Nothing;
    };
    let present = entry::from_bytes::<KeyRecord>(present).ok();
    let Some(mut record) = present.filter(|present| present.is_of_same_key(&forgotten)) else {
        return CarriedOver::Another;
    };
    let before = record.clone();
    record.end_as(&forgotten);
    if record == before {
        return CarriedOver::Nothing;
    }
    match entry::to_bytes(&record) {
        Ok(value) => CarriedOver::Value(value.into()),
        Err(error) => {
            error!(key = %record.name, %error, "a key's record cannot be written");
            CarriedOver::Another
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(rest: &str) -> Vec<u8> {
        let hash = "00".repeat(32);
        let secret = format!(r#"{{"id":"0000000000000001","hash":"{hash}","created_at":1}}"#);
        let start = r#""v":1,"critical":true,"name":"a-prod-x","team":"a","limits":{}"#;
        format!("{{{start},\"created_at\":1{rest},\"secrets\":[{secret}]}}").into_bytes()
    }

    #[test]
    fn a_revocation_is_carried_over_and_nothing_else() {
        let (revoked, present) = (key(r#","revoked_at":7"#), key(r#","expires_at":9"#));
        let both = key(r#","expires_at":9,"revoked_at":7"#);
        assert_eq!(carried_over("key/a-prod-x", &revoked, &present), CarriedOver::Value(both.clone().into()));
        for (name, forgotten, present, expected) in [
            ("key/a-prod-x", &revoked, &both, CarriedOver::Nothing),
            ("key/a-prod-x", &present, &key(""), CarriedOver::Nothing),
            ("pause/organization", &revoked, &present, CarriedOver::Nothing),
            ("key/a-prod-x", &revoked, &Vec::new(), CarriedOver::Another),
        ] {
            assert_eq!(carried_over(name, forgotten, present), expected);
        }
        let later = String::from_utf8(present).unwrap().replacen("\"created_at\":1", "\"created_at\":2", 1);
        assert_eq!(carried_over("key/a-prod-x", &revoked, later.as_bytes()), CarriedOver::Another);
    }
}
