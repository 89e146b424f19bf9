//! Reads the fields of a multipart form, but only the size of a file.
//!
//! Strict on purpose: anything that another reader could split differently is refused. Some readers end a line at a bare
//! line feed, so none is allowed where a line that matters could begin.

use super::{error::ApiError, request::GroqRequest};

/// Parts of one form; the API has fewer than twenty.
const MAX_PARTS: usize = 64;
/// Bytes of a boundary, by RFC 2046.
const MAX_BOUNDARY: usize = 70;
/// Bytes of the headers of a part.
const MAX_PART_HEADERS: usize = 4096;
/// The end of a part's headers.
const BLANK_LINE: &[u8] = b"\r\n\r\n";

/// The form of an audio request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    model: Option<String>,
    file_bytes: Option<u64>,
    has_url: bool,
    seen: Vec<String>,
}

impl Form {
    pub(super) fn request(self) -> Result<GroqRequest, ApiError> {
        let audio_bytes = match (self.file_bytes, self.has_url) {
            (Some(bytes), false) => bytes,
            (_, true) => {
                let message = "how long the audio behind `url` is cannot be told; send it as `file`";
                return Err(ApiError::invalid("url", message));
            }
            (None, false) => return Err(ApiError::invalid("file", "`file` is required: the audio")),
        };
        Ok(GroqRequest {
            model: self.model.unwrap_or_default(),
            choices: 1,
            audio_bytes,
            ..GroqRequest::default()
        })
    }

    fn take(&mut self, part: &Part<'_>) -> Result<(), ApiError> {
        let name = part.name.to_uppercase().to_lowercase();
        if name != part.name {
            return Err(fault("the name of a field must be in lower case"));
        }
        // A list has a name with this ending and one field per item.
        let is_list = name.ends_with("[]");
        if !is_list && self.seen.contains(&name) {
            let shown = name.chars().take(64).collect::<String>();
            return Err(fault(format!("the form has the field `{shown}` twice")));
        }
        match (name.as_str(), part.is_file) {
            ("model", false) => {
                let text = std::str::from_utf8(part.content).map_err(|_| fault("`model` is not UTF-8"))?;
                self.model = Some(text.to_owned());
            }
            ("file", true) => self.file_bytes = Some(u64::try_from(part.content.len()).unwrap_or(u64::MAX)),
            ("url", false) => self.has_url = !part.content.is_empty(),
            ("model" | "url", true) => return Err(fault(format!("`{name}` must not be a file"))),
            ("file", false) => return Err(fault("`file` must be a file: it has no `filename`")),
            _ => {}
        }
        self.seen.push(name);
        Ok(())
    }
}

struct Part<'a> {
    name: &'a str,
    is_file: bool,
    content: &'a [u8],
}

fn fault(message: impl Into<String>) -> ApiError {
    ApiError::invalid("", message)
}

/// Reads the whole form.
pub(super) fn read(content_type: &str, body: &[u8]) -> Result<Form, ApiError> {
    let boundary = boundary(content_type)?;
    let opening = format!("--{boundary}");
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = body
        .strip_prefix(opening.as_bytes())
        .ok_or_else(|| fault("the form does not begin with the boundary that `content-type` names"))?;
    let mut form = Form::default();
    for _ in 0..MAX_PARTS {
        if let Some(epilogue) = rest.strip_prefix(b"--") {
            return match epilogue {
                b"" | b"\r\n" => Ok(form),
                _ => Err(fault("something follows the end of the form")),
            };
        }
        let part = rest.strip_prefix(b"\r\n").ok_or_else(|| fault("a boundary does not end its line"))?;
        let end = find(part, delimiter.as_bytes()).ok_or_else(|| fault("the form has no end"))?;
        let (part, after) = part.split_at(end);
        let part = parse_part(part)?;
        if hides_boundary(part.content, opening.as_bytes()) {
            return Err(fault("a field holds its form's own boundary"));
        }
        form.take(&part)?;
        rest = after.get(delimiter.len()..).unwrap_or_default();
    }
    Err(fault(format!("the form has more than {MAX_PARTS} fields")))
}

/// The boundary in a `content-type`.
fn boundary(content_type: &str) -> Result<&str, ApiError> {
    let mut parameters = content_type.split(';').map(str::trim);
    let kind = parameters.next().unwrap_or_default();
    if !kind.eq_ignore_ascii_case("multipart/form-data") {
        return Err(fault("audio is sent as `multipart/form-data`"));
    }
    let mut boundaries = parameters.filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.eq_ignore_ascii_case("boundary").then_some(value)
    });
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&byte);
    let boundary = boundaries
        .next()
        .map(|value| value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value));
    match (boundary, boundaries.next()) {
        (Some(boundary), None)
            if (1..=MAX_BOUNDARY).contains(&boundary.len()) && boundary.bytes().all(plain) =>
        {
            Ok(boundary)
        }
        _ => Err(fault("`content-type` names no boundary")),
    }
}

fn parse_part(part: &[u8]) -> Result<Part<'_>, ApiError> {
    let head = part.get(..part.len().min(MAX_PART_HEADERS)).unwrap_or(part);
    let end = find(head, BLANK_LINE).ok_or_else(|| fault("the headers of a field have no end"))?;
    let headers = head.get(..end).and_then(|headers| std::str::from_utf8(headers).ok());
    let headers = headers.ok_or_else(|| fault("the headers of a field are not UTF-8"))?;
    if headers.split("\r\n").any(|line| line.chars().any(char::is_control)) {
        return Err(fault("the headers of a field hold a control character"));
    }
    let content = part.get(end + BLANK_LINE.len()..).unwrap_or_default();
    let mut dispositions = headers.split("\r\n").filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then(|| value.trim())
    });
    let (Some(disposition), None) = (dispositions.next(), dispositions.next()) else {
        return Err(fault("a field has no `content-disposition`, or two"));
    };
    let (name, is_file) =
        names(disposition).ok_or_else(|| fault("a `content-disposition` cannot be read"))?;
    Ok(Part { name, is_file, content })
}

/// Whether a reader with other line endings would find a boundary in `content`.
fn hides_boundary(content: &[u8], opening: &[u8]) -> bool {
    let mut from = 0;
    while let Some(at) = content.get(from..).and_then(|rest| find(rest, opening)) {
        let at = from + at;
        let before = at.checked_sub(1).and_then(|before| content.get(before));
        if matches!(before, None | Some(b'\n' | b'\r')) {
            return true;
        }
        from = at + 1;
    }
    false
}

/// The `name` of a `content-disposition`, and whether there is a `filename`.
fn names(disposition: &str) -> Option<(&str, bool)> {
    let mut rest = disposition.strip_prefix("form-data")?;
    let (mut name, mut is_file) = (None, false);
    while !rest.is_empty() {
        rest = rest.strip_prefix(';')?.trim_start_matches(' ');
        let (key, value) = rest.split_once('=')?;
        let value = match value.strip_prefix('"') {
            Some(quoted) => {
                let end = quoted.find('"')?;
                let (text, after) = quoted.split_at(end);
                rest = after.strip_prefix('"')?;
                text
            }
            None => {
                let end = value.find(';').unwrap_or(value.len());
                let (text, after) = value.split_at(end);
                rest = after;
                text
            }
        };
        match key {
            // A backslash would make it ambiguous.
            "name" if name.is_none() && !value.contains('\\') && !value.is_empty() => name = Some(value),
            "filename" | "filename*" => is_file = true,
            _ => return None,
        }
    }
    Some((name?, is_file))
}

/// Where `needle` begins in `hay`. Searches for the first byte of `needle`, and compares the rest only there.
fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    let (first, _) = needle.split_first()?;
    let mut from = 0;
    loop {
        let at = from + hay.get(from..)?.iter().position(|byte| byte == first)?;
        if hay.get(at..)?.starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=XX";

    fn form(parts: &[(&str, &str)]) -> Vec<u8> {
        let parts = parts.iter().map(|(disposition, content)| {
            format!("--XX\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n")
        });
        format!("{}--XX--\r\n", parts.collect::<String>()).into_bytes()
    }

    fn request(body: &[u8]) -> Result<GroqRequest, ApiError> {
        read(TYPE, body).and_then(Form::request)
    }

    #[test]
    fn reads_the_fields_and_the_size_of_the_file() {
        for parts in [
            [("name=\"model\"", "whisper-large-v3"), ("name=\"file\"; filename=\"a;b.wav\"", "12\r\n--X45")],
            [("name=\"file\"; filename=\"a.wav\"", "12\r\n--X45"), ("name=\"model\"", "whisper-large-v3")],
        ] {
            let read = request(&form(&parts)).unwrap();
            assert_eq!((read.model.as_str(), read.audio_bytes), ("whisper-large-v3", 9));
        }
        let quoted = "multipart/form-data; boundary=\"XX\"";
        assert!(read(quoted, &form(&[("name=\"model\"", "m")])).is_ok());
    }

    #[test]
    fn lists_come_item_by_item() {
        let item = ("name=\"timestamp_granularities[]\"", "word");
        let file = ("name=\"file\"; filename=\"a\"", "1");
        assert!(request(&form(&[item, item, file, ("name=\"model\"", "m")])).is_ok());
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused() {
        let (model, file) = (("name=\"model\"", "m"), ("name=\"file\"; filename=\"a\"", "1"));
        for (parts, message) in [
            (vec![model, model, file], "twice"),
            (vec![("name=\"Model\"", "m"), file], "lower case"),
            (vec![("name=\"mo\\del\"", "m"), file], "content-disposition"),
            (vec![("name=\"model\"; name=\"x\"", "m"), file], "content-disposition"),
            (vec![("name=\"model\"; filename=\"x\"", "m"), file], "must not be a file"),
            (vec![model, ("name=\"file\"", "1")], "must be a file"),
            (vec![model], "`file` is required"),
            (vec![model, ("name=\"url\"", "http://x")], "`url`"),
        ] {
            let error = request(&form(&parts)).unwrap_err();
            assert!(error.status == 400 && error.message.contains(message), "{message}: {}", error.message);
        }
    }

    /// Many readers end a line at a bare line feed.
    #[test]
    fn what_a_bare_line_feed_could_hide_is_refused() {
        let (model, file) = (("name=\"model\"", "turbo"), ("name=\"file\"; filename=\"a\"", "1"));
        let hidden = "--XX\r\nX-A: b\nContent-Disposition: form-data; name=\"model\"\r\n\
                      Content-Disposition: form-data; name=\"prompt\"\r\n\r\nlarge\r\n";
        let body = [hidden.as_bytes(), &form(&[model, file])].concat();
        assert!(request(&body).unwrap_err().message.contains("control character"));
        for smuggled in ["audio\n--XX\nContent-Disposition: form-data", "audio\r--XX--"] {
            let body = form(&[("name=\"file\"; filename=\"a\"", smuggled), model]);
            assert!(request(&body).unwrap_err().message.contains("boundary"), "{smuggled}");
        }
        let harmless = form(&[("name=\"file\"; filename=\"a\"", "audio--XX--"), model]);
        assert!(request(&harmless).is_ok());
    }

    #[test]
    fn a_form_that_is_cut_anywhere_is_refused() {
        let whole = form(&[("name=\"model\"", "m"), ("name=\"file\"; filename=\"a\"", "123")]);
        assert!(request(&whole).is_ok());
        // It is complete even without the last line break.
        for end in 0..whole.len() - 2 {
            assert!(request(&whole[..end]).is_err(), "cut at {end}");
        }
        assert!(request(&[whole, b"x".to_vec()].concat()).is_err());
    }

    #[test]
    fn the_content_type_must_name_one_boundary() {
        let body = form(&[("name=\"model\"", "m")]);
        for kind in [
            "",
            "application/json",
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=XX; boundary=YY",
            "multipart/form-data; boundary=YY",
            "multipart/form-data; boundary=\"X X\"",
        ] {
            assert!(read(kind, &body).is_err(), "{kind}");
        }
    }
}
