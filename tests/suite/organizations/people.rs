//! People of an OpenID provider that stands in the policies of several organizations.

use std::time::SystemTime;

use jsonwebtoken::Algorithm;
use tempfile::TempDir;
use tollgate::rpc::proto::{
    GetSpendRequest, ListOrganizationsRequest, organization_service_client::OrganizationServiceClient,
};
use tonic::Code;

use super::to;
use crate::{
    access::{
        issuer::{Issuer, SigningKey},
        reason,
    },
    harness::{Process, connect},
};

fn policy_of(organization: &str, issuer: &Issuer) -> String {
    format!(
        "[organization]\nid = \"{organization}\"\n[teams.bot]\nmodels = [\"*\"]\nmax_output_tokens = 9\n\
         [[access.oidc]]\nissuer = \"{}\"\naudience = \"tollgate\"\n\
         [access.oidc.map.{organization}-staff]\nroles = [\"viewer\"]\n",
        issuer.url()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_of_the_organizations_in_which_they_have_a_role() {
    let key = SigningKey::new(Algorithm::ES256, "first");
    let issuer = Issuer::start(&[&key]).await;
    let (acme, globex) = (policy_of("acme", &issuer), policy_of("globex", &issuer));
    let directory = TempDir::new().unwrap();
    let policies = [("acme", acme.as_str()), ("globex", globex.as_str())];
    let process = Process::start_several(directory.path(), &policies, &["--admin-enabled=false"]).await;
    let mut client = process.client().await;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let token = |groups: &[&str]| issuer.token(&key, groups, now, |_| {});
    let of_one = token(&["globex-staff", "others"]);
    let spend = client.get_spend(to("", &of_one, GetSpendRequest::default())).await.unwrap().into_inner();
    assert_eq!(spend.organization.unwrap().name, "globex");
    let refused = client.get_spend(to("acme", &of_one, GetSpendRequest::default())).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::PermissionDenied, "ORGANIZATION_NOT_PERMITTED".to_owned()));

    let of_both = token(&["globex-staff", "acme-staff"]);
    let refused = client.get_spend(to("", &of_both, GetSpendRequest::default())).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::InvalidArgument, "ORGANIZATION_REQUIRED".to_owned()));
    for organization in ["acme", "globex"] {
        let spend = client.get_spend(to(organization, &of_both, GetSpendRequest::default())).await.unwrap();
        assert_eq!(spend.into_inner().organization.unwrap().name, organization);
    }
    let refused = client.get_spend(to("nowhere", &of_both, GetSpendRequest::default())).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::PermissionDenied, "ORGANIZATION_NOT_PERMITTED".to_owned()));

    let mut organizations = OrganizationServiceClient::new(connect(process.address()).await);
    for (token, expected) in [(&of_one, &["globex"][..]), (&of_both, &["acme", "globex"])] {
        let list = organizations.list_organizations(to("", token, ListOrganizationsRequest::default())).await;
        let ids: Vec<_> = list.unwrap().into_inner().organizations.into_iter().map(|one| one.id).collect();
        assert_eq!(ids, expected);
    }
    // In none: known to the provider, and of no organization.
    let refused =
        client.get_spend(to("", &token(&["others"]), GetSpendRequest::default())).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // One that another signed.
    let forged = SigningKey::new(Algorithm::ES256, "first");
    let forged = issuer.token(&forged, &["acme-staff", "globex-staff"], now, |_| {});
    let refused = client.get_spend(to("", &forged, GetSpendRequest::default())).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::Unauthenticated, "INVALID_TOKEN".to_owned()));
    process.stop().await;
}
