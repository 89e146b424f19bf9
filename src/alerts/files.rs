//! What the files of a receiver's settings say: its address, and the secrets that sign. They are read each time.

use std::{fs, io::Read as _, path::Path};

use super::{
    body::ALERTMANAGER_PATH,
    send::SendError,
    signature::SigningSecret,
    target::{Target, host_of},
};
use crate::settings::{ReceiverKind, ReceiverSettings, ReceiverUrl};

/// The most bytes of a secret's or an address's file.
const MAX_FILE: usize = 4_096;

/// What the files of a receiver say. Of a file system that hangs it is not waited for.
pub(super) async fn read(receiver: &ReceiverSettings) -> Result<(String, Vec<SigningSecret>), SendError> {
    let all = |receiver: &ReceiverSettings| {
        let url = url(receiver)?;
        Target::read(&url)?;
        Ok((url, secrets(receiver)?))
    };
    if receiver.secret_files.is_empty() && matches!(receiver.url, ReceiverUrl::Here(_)) {
        return all(receiver);
    }
    let own = receiver.clone();
    let read = tokio::task::spawn_blocking(move || all(&own));
    let read = tokio::time::timeout(receiver.timeout, read).await.map_err(|_| SendError::Timeout)?;
    read.map_err(|_| SendError::Broken)?
}

fn url(receiver: &ReceiverSettings) -> Result<String, SendError> {
    let url = match &receiver.url {
        ReceiverUrl::Here(url) => url.clone(),
        ReceiverUrl::File(path) => text(path)?,
    };
    let url = url.trim();
    if receiver.kind == ReceiverKind::Alertmanager && url.contains(['?', '#']) {
        return Err(SendError::Query);
    }
    Ok(match receiver.kind {
        ReceiverKind::Alertmanager => format!("{}{ALERTMANAGER_PATH}", url.trim_end_matches('/')),
        ReceiverKind::Webhook | ReceiverKind::Slack => url.to_owned(),
    })
}

/// The secrets whose files are there: while one replaces the other, one of them may not be.
fn secrets(receiver: &ReceiverSettings) -> Result<Vec<SigningSecret>, SendError> {
    // One that cannot be looked at is not one that is not there.
    let there = receiver.secret_files.iter().filter(|path| path.try_exists().unwrap_or(true));
    let secrets: Vec<_> = there
        .map(|path| SigningSecret::read(&text(path)?).map_err(|_| SendError::Secret))
        .collect::<Result<_, _>>()?;
    if secrets.is_empty() && !receiver.secret_files.is_empty() {
        return Err(SendError::File(None, "no file of a secret is there".to_owned()));
    }
    Ok(secrets)
}

fn text(path: &Path) -> Result<String, SendError> {
    let unreadable = |reason: String| SendError::File(Some(path.to_owned()), reason);
    let read = || {
        let mut text = String::new();
        let most = u64::try_from(MAX_FILE).unwrap_or(u64::MAX).saturating_add(1);
        fs::File::open(path)?.take(most).read_to_string(&mut text).map(|_| text)
    };
    let text = read().map_err(|error: std::io::Error| unreadable(error.to_string()))?;
    if text.len() > MAX_FILE {
        Err(unreadable("longer than an address or a secret".to_owned()))
    } else {
        Ok(text)
    }
}

/// The host of a receiver's address, and nothing else of it; empty where its file cannot be read.
pub(super) async fn host(receiver: &ReceiverSettings) -> String {
    let own = receiver.clone();
    let read = tokio::task::spawn_blocking(move || url(&own).ok().and_then(|url| host_of(&url)));
    let read = tokio::time::timeout(receiver.timeout, read).await;
    read.ok().and_then(Result::ok).flatten().unwrap_or_default()
}
