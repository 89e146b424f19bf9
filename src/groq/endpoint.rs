//! Groq's paths: each one is a metered operation, free, or unknown.

use crate::domain::{policy::envoy::FreeGroup, request::Operation};

/// The kind of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// It costs money.
    Metered(Operation),
    /// It costs nothing.
    Free(FreeGroup),
}

/// The kind of `method` on `path`; `None` if Groq does not have it, or is not known to have it. `path` may include a query.
///
/// Paths are compared exactly. Any other spelling (`//`, `%2F`, `..`) is unknown, so a difference in interpretation cannot
/// let anything pass.
#[must_use]
pub fn endpoint(method: &str, path: &str) -> Option<Endpoint> {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let rest = path.strip_prefix("/openai/v1/")?;
    let metered = |operation| Some(Endpoint::Metered(operation));
    let free = |group| Some(Endpoint::Free(group));
    match (method, rest) {
        ("POST", "chat/completions") => metered(Operation::Chat),
        ("POST", "responses") => metered(Operation::Responses),
        ("POST", "embeddings") => metered(Operation::Embeddings),
        ("POST", "audio/transcriptions") => metered(Operation::Transcription),
        ("POST", "audio/translations") => metered(Operation::Translation),
        ("POST", "audio/speech") => metered(Operation::Speech),
        ("POST", "batches") => metered(Operation::Batch),
        ("GET", "batches") => free(FreeGroup::Batches),
        ("GET" | "POST", "files") => free(FreeGroup::Files),
        ("GET", "models") => free(FreeGroup::Models),
        _ => match (method, rest.split_once('/')?) {
            // A model's name may itself contain a slash.
            ("GET", ("models", name)) if is_model(name) => free(FreeGroup::Models),
            ("GET" | "DELETE", ("files", id)) if is_id(id) => free(FreeGroup::Files),
            ("GET", ("files", rest)) if rest.strip_suffix("/content").is_some_and(is_id) => {
                free(FreeGroup::Files)
            }
            ("GET", ("batches", id)) if is_id(id) => free(FreeGroup::Batches),
            ("POST", ("batches", rest)) if rest.strip_suffix("/cancel").is_some_and(is_id) => {
                free(FreeGroup::Batches)
            }
            _ => None,
        },
    }
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// An owner and a name at most, and no `..`.
fn is_model(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain);
    text.split('/').count() <= 2 && text.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_one_thing() {
        let free = |group| Some(Endpoint::Free(group));
        for (method, path, expected) in [
            ("POST", "/openai/v1/chat/completions", Some(Endpoint::Metered(Operation::Chat))),
            ("POST", "/openai/v1/chat/completions?x=/models", Some(Endpoint::Metered(Operation::Chat))),
            ("POST", "/openai/v1/responses", Some(Endpoint::Metered(Operation::Responses))),
            ("POST", "/openai/v1/embeddings", Some(Endpoint::Metered(Operation::Embeddings))),
            ("POST", "/openai/v1/audio/transcriptions", Some(Endpoint::Metered(Operation::Transcription))),
            ("POST", "/openai/v1/audio/translations", Some(Endpoint::Metered(Operation::Translation))),
            ("POST", "/openai/v1/audio/speech", Some(Endpoint::Metered(Operation::Speech))),
            ("POST", "/openai/v1/batches", Some(Endpoint::Metered(Operation::Batch))),
            ("GET", "/openai/v1/models", free(FreeGroup::Models)),
            ("GET", "/openai/v1/models/openai/gpt-oss-20b", free(FreeGroup::Models)),
            ("GET", "/openai/v1/batches/batch_01", free(FreeGroup::Batches)),
            ("POST", "/openai/v1/batches/batch_01/cancel", free(FreeGroup::Batches)),
            ("POST", "/openai/v1/files", free(FreeGroup::Files)),
            ("DELETE", "/openai/v1/files/file_01", free(FreeGroup::Files)),
            ("GET", "/openai/v1/files/file_01/content", free(FreeGroup::Files)),
        ] {
            assert_eq!(endpoint(method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn what_is_not_known_is_nothing() {
        for (method, path) in [
            ("GET", "/openai/v1/chat/completions"),
            ("post", "/openai/v1/chat/completions"),
            ("POST", "/openai/v1/chat/completions/"),
            ("POST", "/openai/v1//chat/completions"),
            ("POST", "/openai/v1/chat%2Fcompletions"),
            ("POST", "/openai/v1/models/../chat/completions"),
            ("GET", "/openai/v1/models/../chat/completions"),
            ("GET", "/openai/v1/models/a/b/c"),
            ("GET", "/openai/v1/files/../models"),
            ("POST", "/openai/v1/fine_tunings"),
            ("POST", "/v1/chat/completions"),
            ("POST", "/openai/v1/"),
            ("POST", ""),
        ] {
            assert_eq!(endpoint(method, path), None, "{method} {path}");
        }
    }
}
