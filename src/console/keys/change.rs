//! Changes, rotates and ends keys.

use axum::{
    Extension,
    extract::Path,
    response::{IntoResponse as _, Redirect, Response},
};
use prost_types::FieldMask;

use super::{
    confirm,
    once::Once,
    rows::address,
    show::{self, Beside, Found},
    typed::{Typed, field_of, name_of},
};
use crate::{
    console::{fault::Fault, fields::Fields, refusal::Faults, view::View},
    domain::rbac::Permission,
    rpc::proto::{
        RevokeKeyRequest, RevokeKeySecretRequest, RotateKeyRequest, RotateKeyResponse, UpdateKeyRequest,
        VirtualKey,
    },
};

/// Puts what was filled in into the key, unless another changed the key since the form was shown.
pub(super) async fn update(
    Extension(view): Extension<View>,
    Path((_, name)): Path<(String, String)>,
    fields: Fields,
) -> Result<Response, Fault> {
    let mut typed = Typed::sent(&fields);
    typed.set("name", &name);
    if typed.get("etag").is_empty() {
        // Without one, the form would be of any version of the key.
        typed.set("etag", "none");
    }
    let found = show::gather(&view, &name, typed.get("team")).await?;
    let now = Typed::of_key(&view, &found.key);
    let typed = typed.or(&now);
    let paths = typed.differing(&now);
    let (key, faults) = typed.read(&view);
    let may = view.may_for(Permission::ManageKeys, &found.key.team);
    if may && paths.is_empty() && typed.get("etag") == found.key.etag {
        return Ok(back(&view, &found.key, "unchanged"));
    }
    let validate_only = !faults.is_empty();
    let request = UpdateKeyRequest { update_mask: Some(mask(&paths)), key: Some(key), validate_only };
    let told = match view.api().keys().update_key(request).await {
        Ok(_) if !validate_only => return Ok(back(&view, &found.key, "changed")),
        Ok(_) => Faults::default(),
        Err(status) => Faults::told(status, field_of)?,
    };
    let mut faults = faults.and(told);
    if faults.is("KEY_CHANGED") {
        for path in paths {
            let has = now.get(name_of(path)).replace('\n', ", ");
            let has =
                if has.is_empty() { "has nothing here now".to_owned() } else { format!("has `{has}` now") };
            faults.add(name_of(path), &format!("the key {has}"));
        }
    }
    let code = faults.http();
    let beside = Beside { change: Some((typed, faults)), ..Beside::default() };
    Ok((code, show::body(&view, &found, &beside)).into_response())
}

/// Without a path, all that is set would be changed.
fn mask(paths: &[&str]) -> FieldMask {
    let paths = if paths.is_empty() { &["etag"] } else { paths };
    FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }
}

/// Gives the key another secret, which is on the page that answers, and nowhere else.
pub(super) async fn rotate(
    Extension(view): Extension<View>,
    Path((_, name)): Path<(String, String)>,
    fields: Fields,
) -> Result<Response, Fault> {
    let (team, overlap) = (fields.text("team"), fields.text("overlap"));
    let found = show::gather(&view, &name, team).await?;
    let newest = found.key.secrets.last().map(|secret| secret.secret_id.as_str()).unwrap_or_default();
    let mut faults = Faults::default();
    let seconds = overlap.parse::<i64>();
    // Who may not is refused by the service, which records it.
    let may = view.may_for(Permission::RotateKeys, &found.key.team);
    if may && seconds.is_err() {
        faults.add("overlap", "is one of these lengths of time");
    }
    // A page that is loaded again sends its form again, which would end a secret that was just handed out.
    if may && fields.text("newest") != newest {
        faults.add(
            "overlap",
            "the key was rotated since this form was shown, perhaps by this form: its secret is not shown again. Rotate it once \
             more if that secret was not stored",
        );
    }
    if faults.is_empty() {
        let overlap = seconds.ok().map(|seconds| prost_types::Duration { seconds, nanos: 0 });
        let request = RotateKeyRequest { name, overlap, force: !fields.text("force").is_empty() };
        match view.api().keys().rotate_key(request).await {
            Ok(answer) => return Ok(made(&view, answer.into_inner()).await),
            Err(status) => {
                faults = Faults::told(status, |field| (field == "overlap").then_some("overlap"))?;
            }
        }
    }
    let code = faults.http();
    let beside = Beside { rotate: Some((overlap.to_owned(), faults)), ..Beside::default() };
    Ok((code, show::body(&view, &found, &beside)).into_response())
}

/// The page of the key with its new secret, even if nothing else can be read: it cannot be told again.
async fn made(view: &View, answer: RotateKeyResponse) -> Response {
    let key = answer.key.unwrap_or_default();
    let found = show::gather(view, &key.name, &key.team).await.unwrap_or_else(|_| Found::alone(key));
    let once = Once { done: "has another secret", secret: answer.secret };
    show::body(view, &found, &Beside { once: Some(once), ..Beside::default() }).into_response()
}

/// Ends the key.
pub(super) async fn revoke(
    Extension(view): Extension<View>,
    Path((_, name)): Path<(String, String)>,
    fields: Fields,
) -> Result<Response, Fault> {
    // First, so that there is a page to tell of an outage in between.
    let found = show::gather(&view, &name, fields.text("team")).await?;
    match view.api().keys().revoke_key(RevokeKeyRequest { name }).await {
        Ok(answer) => Ok(back(&view, &answer.into_inner().key.unwrap_or_default(), "revoked")),
        Err(status) => {
            let faults = Faults::told(status, |_| None)?;
            Ok((faults.http(), confirm::revoke(&view, &found.key, &faults)).into_response())
        }
    }
}

/// Ends one of the key's secrets.
pub(super) async fn revoke_secret(
    Extension(view): Extension<View>,
    Path((_, name, secret_id)): Path<(String, String, String)>,
    fields: Fields,
) -> Result<Response, Fault> {
    let found = show::gather(&view, &name, fields.text("team")).await?;
    let force = !fields.text("force").is_empty();
    let request = RevokeKeySecretRequest { name, secret_id: secret_id.clone(), force };
    match view.api().keys().revoke_key_secret(request).await {
        Ok(answer) => Ok(back(&view, &answer.into_inner().key.unwrap_or_default(), "secret-ended")),
        Err(status) => {
            let faults = Faults::told(status, |_| None)?;
            let page = confirm::revoke_secret(&view, &found.key, &secret_id, &faults);
            Ok((faults.http(), page).into_response())
        }
    }
}

/// To the key, which says what was done.
fn back(view: &View, key: &VirtualKey, done: &str) -> Response {
    Redirect::to(&address(view, key, &[("done", done)])).into_response()
}
