//! Pauses, resumes, and lifts cooldowns.

use axum::{
    Extension,
    response::{IntoResponse as _, Redirect, Response},
};

use super::{
    cooldowns::tier,
    page::{Sent, with_form},
    target::named,
};
use crate::{
    console::{fault::Fault, fields::Fields, refusal::Faults, view::View},
    rpc::proto::{LiftCooldownRequest, PauseRequest, ResumeRequest, ServiceTier},
};

/// The field of a form for a field of a request.
fn field_of(path: &str) -> Option<&'static str> {
    match path {
        "target" => Some("kind"),
        "target.team" | "target.key" | "target.model" => Some("name"),
        "reason" => Some("reason"),
        _ => None,
    }
}

/// Pauses what the form names.
pub(super) async fn pause(Extension(view): Extension<View>, fields: Fields) -> Result<Response, Fault> {
    let [kind, name, reason] = ["kind", "name", "reason"].map(|field| fields.text(field).to_owned());
    let mut faults = Faults::default();
    if kind == "organization" && !name.is_empty() {
        faults.add(
            "name",
            "the whole organization has no name here; leave it empty, or choose what has this name",
        );
    }
    if faults.is_empty() {
        let request = PauseRequest { target: named(&fields), reason: reason.clone() };
        match view.api().pauses().pause(request).await {
            Ok(_) => return Ok(done(&view, "paused")),
            Err(status) => faults = Faults::told(status, field_of)?,
        }
    }
    if faults.is("UNKNOWN_TARGET") {
        faults.add("name", &format!("there is no {kind} of this name"));
    }
    Ok(with_form(&view, &Sent::Pause { kind, name, reason, faults }).await)
}

/// Ends the pause of what the form names.
pub(super) async fn resume(Extension(view): Extension<View>, fields: Fields) -> Result<Response, Fault> {
    let [kind, name, reason] = ["kind", "name", "reason"].map(|field| fields.text(field).to_owned());
    let request = ResumeRequest { target: named(&fields), reason: reason.clone() };
    match view.api().pauses().resume(request).await {
        Ok(answer) if answer.get_ref().ended_pause.is_none() => Ok(done(&view, "was-not-paused")),
        Ok(_) => Ok(done(&view, "resumed")),
        Err(status) => {
            let faults = Faults::told(status, field_of)?;
            Ok(with_form(&view, &Sent::Resume { kind, name, reason, faults }).await)
        }
    }
}

/// Lifts the cooldown of a model in a project and a service tier.
pub(super) async fn lift(Extension(view): Extension<View>, fields: Fields) -> Result<Response, Fault> {
    let [project, model, service_tier, reason] =
        ["project", "model", "service_tier", "reason"].map(|field| fields.text(field).to_owned());
    let tiers = [ServiceTier::OnDemand, ServiceTier::Flex, ServiceTier::Auto, ServiceTier::Performance];
    let of_tier = tiers.into_iter().find(|of| tier(*of) == service_tier);
    let request = LiftCooldownRequest {
        project: project.clone(),
        model: model.clone(),
        service_tier: of_tier.unwrap_or_default().into(),
        reason: reason.clone(),
    };
    match view.api().upstream().lift_cooldown(request).await {
        Ok(_) => Ok(done(&view, "lifted")),
        Err(status) => {
            let faults = Faults::told(status, field_of)?;
            Ok(with_form(&view, &Sent::Lift { project, model, service_tier, reason, faults }).await)
        }
    }
}

/// To the page, which says what was done.
fn done(view: &View, done: &str) -> Response {
    Redirect::to(&view.query("/pauses", &[("done", done)])).into_response()
}
