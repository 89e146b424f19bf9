//! What a person typed into the form of a proposal.

use std::time::Duration;

use axum::extract::{FromRequest as _, Multipart, Request};
use prost::bytes::Bytes;
use tokio::time::timeout;

use crate::console::{
    fault::Fault,
    fields::{Sender, TOKEN},
};

/// The most bytes of the form: as many as the service takes of a policy, with the names of the fields.
pub(in super::super) const MAX_BYTES: usize = 32 << 20;
/// How long the form may take to arrive: its place is one of few.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest of the other fields, in bytes.
const MAX_SHORT: usize = 256;
/// How many days are played unless a person says otherwise.
const DAYS: u16 = 7;
/// The most days that the service plays.
pub(super) const MAX_DAYS: u16 = 400;

/// What was sent.
#[derive(Clone, Debug)]
pub(in super::super) struct Typed {
    /// The proposed policy: of the file if there is one, else of the text.
    pub(super) document: Bytes,
    /// Whether it came as a file.
    pub(super) is_file: bool,
    /// Over how many of the last days it is played; `None`: over none.
    pub(super) days: Option<u16>,
    /// How many days the form says.
    pub(super) shown_days: String,
    /// Whether those are so many as there may be.
    pub(super) has_days: bool,
    /// Whether anything was sent.
    pub(super) is_sent: bool,
}

impl Default for Typed {
    fn default() -> Self {
        Self {
            document: Bytes::new(),
            is_file: false,
            days: None,
            shown_days: DAYS.to_string(),
            has_days: true,
            is_sent: false,
        }
    }
}

impl Typed {
    /// Whether there is nothing to check, or a field says what cannot be.
    pub(super) fn is_faulty(&self) -> bool {
        self.document.is_empty() || !self.has_days
    }
}

/// Reads the form of `request`.
///
/// # Errors
/// It did not come from a page of ours, it is too long or too slow, or it is no form.
pub(super) async fn read(request: Request) -> Result<Typed, Fault> {
    let (parts, body) = request.into_parts();
    let sender = Sender::of(&parts)?;
    let unreadable = || Fault::unreadable_form(MAX_BYTES);
    let reading = async {
        let form = Multipart::from_request(Request::from_parts(parts, body), &()).await;
        fields(&sender, form.map_err(|_| unreadable())?).await
    };
    timeout(PATIENCE, reading).await.map_err(|_| unreadable())?
}

/// The token stands first, so that nothing long is read for others.
async fn fields(sender: &Sender, mut form: Multipart) -> Result<Typed, Fault> {
    let unreadable = |_| Fault::unreadable_form(MAX_BYTES);
    let (mut typed, mut is_held) = (Typed { is_sent: true, ..Typed::default() }, false);
    let mut is_asked = false;
    while let Some(mut field) = form.next_field().await.map_err(unreadable)? {
        let name = field.name().unwrap_or_default().to_owned();
        if name == TOKEN {
            sender.hold_to(short(&mut field).await?.as_bytes())?;
            is_held = true;
            continue;
        }
        if !is_held {
            // Programs need none.
            sender.hold_to(b"")?;
        }
        match &*name {
            "text" if !typed.is_file => typed.document = unix(field.bytes().await.map_err(unreadable)?),
            "file" => {
                let file = field.bytes().await.map_err(unreadable)?;
                if !file.is_empty() {
                    (typed.document, typed.is_file) = (file, true);
                }
            }
            "days" => typed.shown_days = short(&mut field).await?.trim().to_owned(),
            "replay" => is_asked = !short(&mut field).await?.is_empty(),
            _ => {}
        }
    }
    if !is_held {
        sender.hold_to(b"")?;
    }
    let days = typed.shown_days.parse().ok().filter(|days| (1..=MAX_DAYS).contains(days));
    (typed.has_days, typed.days) = (days.is_some() || !is_asked, days.filter(|_| is_asked));
    if typed.document.iter().all(u8::is_ascii_whitespace) {
        typed.document = Bytes::new();
    }
    Ok(typed)
}

/// A field that says little.
async fn short(field: &mut axum::extract::multipart::Field<'_>) -> Result<String, Fault> {
    let unreadable = || Fault::unreadable_form(MAX_BYTES);
    let mut bytes = Vec::new();
    while let Some(piece) = field.chunk().await.map_err(|_| unreadable())? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > MAX_SHORT {
            return Err(unreadable());
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Browsers send what is typed with the ends of lines of their protocol.
fn unix(text: Bytes) -> Bytes {
    if !text.contains(&b'\r') {
        return text;
    }
    let mut rest = text.iter().copied().peekable();
    let mut lines = Vec::with_capacity(text.len());
    while let Some(byte) = rest.next() {
        if byte != b'\r' || rest.peek() != Some(&b'\n') {
            lines.push(byte);
        }
    }
    lines.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_lines_are_those_of_a_file() {
        for (sent, read) in
            [("a\r\nb\r\n", "a\nb\n"), ("a\rb\n", "a\rb\n"), ("\r", "\r"), ("ä\r\n\r\n", "ä\n\n")]
        {
            assert_eq!(unix(Bytes::from(sent)), Bytes::from(read), "{sent:?}");
        }
    }
}
