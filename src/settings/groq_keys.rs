//! Where Groq's keys are: `[groq_keys]`, which stands in the settings file only.

use std::{collections::BTreeMap, path::PathBuf};

use toml_edit::{Item, TableLike, Value};

use super::SettingsError;
use crate::domain::{
    name,
    policy::upstream::{GroqKeys, KeyPlace, MAX_PLACES},
};

/// The key of the table.
pub(super) const GROQ_KEYS: &str = "groq_keys";
/// The most projects: as many as the organizations of one deployment may have together.
const MAX_PROJECTS: usize = 1_000;
/// What stands between an organization and its project.
const OF: char = '/';

/// What a file says of them, by project: the key and the value of each place, or what is wrong.
pub(super) type GivenGroqKeys = BTreeMap<String, Result<Vec<(String, String)>, String>>;

/// The places in a TOML document.
pub(super) fn of_document(document: &dyn TableLike) -> Result<GivenGroqKeys, String> {
    let Some(item) = document.get(GROQ_KEYS) else { return Ok(GivenGroqKeys::new()) };
    let table = item.as_table_like().ok_or("`groq_keys` is a table of projects: [groq_keys]")?;
    Ok(table.iter().map(|(project, item)| (project.to_owned(), places(item))).collect())
}

fn places(item: &Item) -> Result<Vec<(String, String)>, String> {
    let list = item.as_array().ok_or("write a list of places: [{ file = \"/run/secrets/groq\" }]")?;
    if list.is_empty() || list.len() > MAX_PLACES {
        return Err(format!("{} places: 1 to {MAX_PLACES} are permitted", list.len()));
    }
    list.iter().map(place).collect()
}

fn place(value: &Value) -> Result<(String, String), String> {
    let one = "a place is one of { file = … }, { directory = … } and { env = … }";
    let table = value.as_inline_table().filter(|table| table.len() == 1).ok_or(one)?;
    let (key, value) = table.iter().next().ok_or(one)?;
    let value = value.as_str().ok_or_else(|| format!("`{key}` is a text in quotes"))?;
    // The value is not shown: it may be the key itself.
    if value.is_empty() || value.starts_with("gsk_") {
        return Err(format!("`{key}`: say where the key is, never the key itself"));
    }
    match key {
        "file" | "directory" | "env" => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{key}`: {one}")),
    }
}

/// Reads them all. `path`: the settings file.
///
/// # Errors
/// The first that is wrong.
pub(super) fn read(given: GivenGroqKeys, path: &str) -> Result<GroqKeys, SettingsError> {
    if given.len() > MAX_PROJECTS {
        let origin = format!("`{GROQ_KEYS}` in `{path}`");
        let reason = format!("{} projects are more than {MAX_PROJECTS}", given.len());
        return Err(SettingsError::Invalid { origin, reason });
    }
    let mut keys = GroqKeys::default();
    for (of, places) in given {
        let invalid = |reason: String| SettingsError::Invalid {
            origin: format!("`{GROQ_KEYS}.{of}` in `{path}`"),
            reason,
        };
        let (organization, project) = of.split_once(OF).unwrap_or(("", &of));
        if !organization.is_empty() && !name::is_name(organization) || !name::is_name(project) {
            return Err(invalid(
                "write PROJECT, or \"ORGANIZATION/PROJECT\", as their policies name them".to_owned(),
            ));
        }
        let places = places.map_err(invalid)?.into_iter().map(|(key, value)| match key.as_str() {
            "env" => KeyPlace::Environment(value),
            "directory" => KeyPlace::Directory(PathBuf::from(value)),
            _ => KeyPlace::File(PathBuf::from(value)),
        });
        keys.insert(organization, project, places.collect());
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<GroqKeys, String> {
        let document = toml_edit::ImDocument::parse(text).unwrap();
        read(of_document(document.as_table())?, "t.toml").map_err(|error| error.to_string())
    }

    #[test]
    fn keys_are_found_by_project_and_those_of_an_organization_first() {
        let keys = read_text(
            "[groq_keys]\nmain = [{ file = \"/a\" }, { env = \"KEY\" }]\n\"acme/main\" = [{ directory = \"/d\" }]\n",
        );
        let keys = keys.unwrap();
        let any = [KeyPlace::File("/a".into()), KeyPlace::Environment("KEY".to_owned())];
        assert_eq!(keys.of("other", "main"), Some(&any[..]));
        assert_eq!(keys.of("acme", "main"), Some(&[KeyPlace::Directory("/d".into())][..]));
        assert_eq!(keys.of("acme", "lab"), None);
    }

    #[test]
    fn what_is_no_place_is_refused_and_a_key_is_never_shown() {
        for (text, error) in [
            ("groq_keys = 3", "is a table of projects"),
            ("[groq_keys]\nMain = [{ file = \"/a\" }]", "write PROJECT, or \"ORGANIZATION/PROJECT\""),
            ("[groq_keys]\n\"a/b/c\" = [{ file = \"/a\" }]", "write PROJECT"),
            ("[groq_keys]\nmain = \"/a\"", "`groq_keys.main` in `t.toml`: write a list of places"),
            ("[groq_keys]\nmain = []", "0 places: 1 to 8"),
            ("[groq_keys]\nmain = [{ file = \"/a\", env = \"B\" }]", "a place is one of"),
            ("[groq_keys]\nmain = [{ path = \"/a\" }]", "`path`: a place is one of"),
            ("[groq_keys]\nmain = [{ env = 3 }]", "`env` is a text"),
            ("[groq_keys]\nmain = [{ env = \"gsk_secret\" }]", "never the key itself"),
        ] {
            let read = read_text(text).unwrap_err();
            assert!(read.contains(error) && !read.contains("gsk_secret"), "{text}: {read}");
        }
    }
}
