//! `tollgate.v1.OrganizationService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    page::{self, ListContext, PageRequest},
    proto::{
        ListOrganizationsRequest, ListOrganizationsResponse, Organization,
        organization_service_server::OrganizationService,
    },
    status::FieldErrors,
    status_service::StatusFacts,
};

/// The ids of the organizations that a caller is of, among the extensions of a request, where there are several.
#[derive(Clone, Debug)]
pub struct Memberships(pub Vec<Arc<str>>);

/// Serves `OrganizationService`.
#[derive(Clone, Debug)]
pub struct OrganizationRpc {
    facts: StatusFacts,
    /// Where the console is, without a slash at the end; `None`: it is not served, or it is not known by which name.
    console: Option<Arc<str>>,
}

impl OrganizationRpc {
    /// Tells of the organization whose policy is in force for `facts`, or of all [`Memberships`] of a caller, and that their pages are below
    /// `console`.
    #[must_use]
    pub const fn new(facts: StatusFacts, console: Option<Arc<str>>) -> Self {
        Self { facts, console }
    }
}

#[tonic::async_trait]
impl OrganizationService for OrganizationRpc {
    async fn list_organizations(
        &self,
        request: Request<ListOrganizationsRequest>,
    ) -> Result<Response<ListOrganizationsResponse>, Status> {
        let organization = Arc::clone(&self.facts.shared.live.peek().policy.organization.id);
        let now = self.facts.clock.now();
        let context = ListContext { organization: Arc::clone(&organization), now };
        let mut ids = match request.extensions().get() {
            Some(Memberships(ids)) => ids.clone(),
            None => vec![organization],
        };
        ids.sort_unstable();
        answer(request.into_inner(), &context, &ids, self.console.as_deref()).map(Response::new)
    }
}

fn answer(
    mut request: ListOrganizationsRequest,
    context: &ListContext,
    ids: &[Arc<str>],
    console: Option<&str>,
) -> Result<ListOrganizationsResponse, Status> {
    let mut errors = FieldErrors::default();
    let page = errors.page(&mut request, context);
    let PageRequest { size, after, tokens } = errors.or(page)?;
    let rest = ids.iter().filter(|id| after.as_ref().is_none_or(|after| *id > after));
    let (organizations, last) = page::fill(rest, size, |id| {
        let console_url = console.map(|console| format!("{console}/console/{id}/")).unwrap_or_default();
        (Arc::clone(id), Organization { id: id.to_string(), console_url })
    });
    Ok(ListOrganizationsResponse { organizations, next_page_token: tokens.next(last.as_ref()) })
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::domain::Timestamp;

    #[test]
    fn there_is_one_with_the_address_of_its_pages_where_that_is_known() {
        let id: Arc<str> = "acme".into();
        let context = ListContext { organization: Arc::clone(&id), now: Timestamp(1) };
        let ask = |request, console| answer(request, &context, &[Arc::clone(&id)], console);
        let of = |console_url: &str| ListOrganizationsResponse {
            organizations: vec![Organization { id: "acme".to_owned(), console_url: console_url.to_owned() }],
            next_page_token: String::new(),
        };
        let request = ListOrganizationsRequest::default();
        assert_eq!(ask(request.clone(), None).unwrap(), of(""));
        let console = Some("https://tollgate.example.com");
        assert_eq!(ask(request, console).unwrap(), of("https://tollgate.example.com/console/acme/"));
        for request in [
            ListOrganizationsRequest { page_size: -1, page_token: String::new() },
            ListOrganizationsRequest { page_size: 1, page_token: "none".to_owned() },
        ] {
            assert_eq!(ask(request, None).unwrap_err().code(), Code::InvalidArgument);
        }
    }
}
