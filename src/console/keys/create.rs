//! Creates a key. Its secret is on the page that answers the form, and nowhere else.

use axum::{
    Extension,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use maud::Markup;

use super::{
    form, list,
    once::Once,
    show::{self, Beside, Found},
    typed::{Typed, field_of},
};
use crate::{
    console::{fault::Fault, fields::Fields, refusal::Faults, view::View},
    rpc::proto::{CreateKeyRequest, CreateKeyResponse},
};

/// Answers the form.
pub(super) async fn create(Extension(view): Extension<View>, fields: Fields) -> Result<Response, Fault> {
    let typed = Typed::sent(&fields);
    let (key, faults) = typed.read(&view);
    let only_check = !fields.text("check").is_empty() || !faults.is_empty();
    let request = CreateKeyRequest { key: Some(key), validate_only: only_check };
    match view.api().keys().create_key(request).await {
        Ok(answer) if !only_check => Ok(made(&view, answer.into_inner()).await),
        Ok(_) => Ok(again(&view, &typed, &faults).await),
        Err(status) => {
            let mut told = Faults::told(status, field_of)?;
            if told.is("KEY_EXISTS") {
                told.add("name", "is the name of a key already");
            }
            // What cannot be read says more at its field than that nothing stands there.
            Ok(again(&view, &typed, &faults.and(told)).await)
        }
    }
}

/// The page of the key with its secret. It is shown even if nothing else can be read: it cannot be told again.
async fn made(view: &View, answer: CreateKeyResponse) -> Response {
    let key = answer.key.unwrap_or_default();
    let found = show::gather(view, &key.name, &key.team).await.unwrap_or_else(|_| Found::alone(key));
    let once = Once { done: "is created", secret: answer.secret };
    show::body(view, &found, &Beside { once: Some(once), ..Beside::default() }).into_response()
}

/// The form as it was filled in.
async fn again(view: &View, typed: &Typed, faults: &Faults) -> Response {
    let form: Markup = form::create(view, typed, faults, faults.is_empty());
    let code: StatusCode = faults.http();
    (code, list::with_form(view, &form).await).into_response()
}
