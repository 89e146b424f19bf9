//! Speech to text, and text to speech.

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use serde_json::{Value, json};

use super::{Call, body, directive::Directive, errors, errors::ApiError, text};

const DEFAULT_DURATION: f64 = 12.5;

const TEXT: &str = "What was said.";

/// Transcriptions and translations: a form with the audio and a few fields.
pub(crate) async fn transcribe(call: &Call<'_>) -> Result<Response, ApiError> {
    let form = Form::of(call)?;
    let field = |name: &str| form.field(name);
    let model = field("model").ok_or_else(|| errors::invalid_request("property 'model' is missing"))?;
    let format = field("response_format").unwrap_or("json");
    let directive = Directive::in_text(field("prompt").unwrap_or_default());
    let mut bill = call.begin(model, &directive).await?;
    let seconds = directive.duration.unwrap_or(DEFAULT_DURATION);
    let response = match format {
        "text" => {
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            body::answer(call, Body::from(TEXT), plain)
        }
        "json" => body::json(call, &directive, &json!({"text": TEXT, "x_groq": {"id": request_id(call)}})),
        "verbose_json" => body::json(call, &directive, &verbose(call, seconds)),
        other => return Err(refuse(bill, other)),
    };
    bill.settle_audio(billed_ms(seconds));
    Ok(response)
}

fn refuse(mut bill: super::Bill, format: &str) -> ApiError {
    bill.waive();
    errors::invalid_request(format!(
        "response_format `{format}` is not one of the following: [\"json\",\"text\",\"verbose_json\"]"
    ))
}

fn request_id(call: &Call<'_>) -> String {
    format!("req_{}", call.number)
}

fn verbose(call: &Call<'_>, seconds: f64) -> Value {
    json!({
        "task": "transcribe",
        "language": "English",
        "duration": seconds,
        "text": TEXT,
        "segments": [{
            "id": 0, "seek": 0, "start": 0, "end": seconds, "text": TEXT, "tokens": [50_365, 708, 390],
            "temperature": 0, "avg_logprob": -0.09, "compression_ratio": 1.6, "no_speech_prob": 0.01,
        }],
        "x_groq": {"id": request_id(call)},
    })
}

/// The whole milliseconds that are begun. A float's error, far below a microsecond, does not begin one.
fn billed_ms(seconds: f64) -> u64 {
    std::time::Duration::try_from_secs_f64(seconds).map_or(0, |duration| {
        let micros = (duration + std::time::Duration::from_nanos(500)).as_micros();
        u64::try_from(micros.div_ceil(1000)).unwrap_or(u64::MAX)
    })
}

/// Speech: a second of silence, whatever the text.
pub(crate) async fn speak(call: &Call<'_>) -> Result<Response, ApiError> {
    let request = call.json()?;
    let (model, input) = (text(&request, "model")?, text(&request, "input")?);
    let directive = Directive::in_text(input);
    let mut bill = call.begin(model, &directive).await?;
    bill.settle_characters(u64::try_from(input.chars().count()).unwrap_or(u64::MAX));
    Ok(body::answer(call, Body::from(silence()), HeaderValue::from_static("audio/wav")))
}

/// A WAV file: one second, 8 kHz, mono, 8 bits.
fn silence() -> Vec<u8> {
    const RATE: u32 = 8_000;
    const LENGTH: u32 = 8_000;
    let mut file = Vec::with_capacity(44 + 8_000);
    file.extend(b"RIFF");
    file.extend((36 + LENGTH).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16_u32.to_le_bytes());
    // The format (PCM), one channel, the rates by sample and by byte, a byte a frame, 8 bits a sample.
    file.extend([1, 0, 1, 0]);
    file.extend(RATE.to_le_bytes());
    file.extend(RATE.to_le_bytes());
    file.extend([1, 0, 8, 0]);
    file.extend(b"data");
    file.extend(LENGTH.to_le_bytes());
    file.resize(file.len() + 8_000, 128);
    file
}

/// A multipart form, as far as its short text fields go.
struct Form<'a> {
    body: &'a [u8],
    boundary: Vec<u8>,
}

impl<'a> Form<'a> {
    fn of(call: &Call<'a>) -> Result<Self, ApiError> {
        let content_type = call.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let boundary = content_type
            .filter(|value| value.starts_with("multipart/form-data"))
            .and_then(|value| value.split_once("boundary="))
            .map(|(_, rest)| rest.split(';').next().unwrap_or_default().trim_matches('"'))
            .ok_or_else(|| errors::invalid_request("request Content-Type isn't multipart/form-data"))?;
        Ok(Self { body: call.body, boundary: format!("\r\n--{boundary}").into_bytes() })
    }

    /// The value between the blank line after the field's headers and the next boundary.
    fn field(&self, name: &str) -> Option<&'a str> {
        let headers = find(self.body, format!("name=\"{name}\"").as_bytes())?;
        let rest = self.body.get(headers..)?;
        let value = rest.get(find(rest, b"\r\n\r\n")? + 4..)?;
        std::str::from_utf8(value.get(..find(value, &self.boundary)?)?).ok()
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::billed_ms;

    #[test]
    fn a_begun_millisecond_is_billed_and_a_rounding_error_is_not() {
        for (seconds, ms) in
            [(12.5, 12_500), (12.345, 12_345), (0.1 + 0.2, 300), (10.000_1, 10_001), (0.0, 0)]
        {
            assert_eq!(billed_ms(seconds), ms, "{seconds} s");
        }
    }
}
