//! Signing out, and the end of the session that a browser had before another.

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};

use super::{
    Door, SIGN_OUT,
    answer::see_other,
    asked::{Asked, value},
    page::Banner,
};
use crate::{
    access::SignedIn,
    audit::action,
    console::{address::Way, body},
};

/// The most bytes of its form.
const MAX_FORM: usize = 1_024;

impl Door {
    /// The session that the browser has, even if it cannot be resumed: of one that is idle, or whose provider is to be asked again, there
    /// may be a copy that can.
    fn found(&self, asked: &Asked, way: &Way) -> Option<SignedIn> {
        asked.cookie(way.session()).and_then(|cookie| self.0.sessions.read(cookie))
    }

    /// Ends the session that the browser has, if it has one.
    pub(super) fn end(&self, asked: &Asked, way: &Way) {
        if let Some(signed_in) = self.found(asked, way) {
            self.0.sessions.end(&signed_in);
            let door = self.of(self.0.sessions.organizations().of_session(&signed_in));
            let holder = door.guard().holder(&signed_in);
            door.record(action::SESSION_END, &holder, asked.from(), &signed_in);
        }
    }
}

/// `POST /auth/sign-out`.
pub(super) async fn sign_out(State(door): State<Door>, request: Request) -> Response {
    let mut asked: Asked = request.into();
    let way = match door.way(&asked) {
        Ok(way) => way,
        Err(answer) => return *answer,
    };
    // Its cookie does not come with the form of another site, and would be deleted all the same.
    if !way.is_from_own_page(&asked.headers) && !Way::is_from_no_page(&asked.headers) {
        door.count(SIGN_OUT, "FOREIGN_REQUEST");
        return door.refused(StatusCode::FORBIDDEN, Banner::Foreign, None);
    }
    if let Some(signed_in) = door.found(&asked, &way) {
        let form = body::whole(std::mem::take(&mut asked.body), MAX_FORM).await.unwrap_or_default();
        let token = value(&form, "form_token").unwrap_or_default();
        if !way.is_from_own_page(&asked.headers) || !signed_in.knows_form(&token) {
            door.count(SIGN_OUT, "FOREIGN_REQUEST");
            return door.refused(StatusCode::FORBIDDEN, Banner::Foreign, None);
        }
        door.end(&asked, &way);
    }
    see_other("/auth/sign-in?why=signed-out", &[way.cookie(way.session(), "", Some(0))])
}
