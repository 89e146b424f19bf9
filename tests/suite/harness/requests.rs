//! Requests that many tests send, and what they read in answers.

use tollgate::rpc::{
    google_type::Money,
    proto::{self, policy_service_client::PolicyServiceClient},
};
use tonic::transport::Channel;

/// Money as the integer it is.
pub(crate) fn nanos(money: Option<Money>) -> u64 {
    let money = money.expect("an amount of money");
    assert_eq!(money.currency_code, "USD");
    u64::try_from(i128::from(money.units) * 1_000_000_000 + i128::from(money.nanos)).expect("not negative")
}

/// A chat request of `team`.
pub(crate) fn chat(
    team: &str,
    model: &str,
    input_tokens: i64,
    max_output_tokens: i64,
) -> proto::AuthorizeRequest {
    proto::AuthorizeRequest {
        caller: Some(proto::authorize_request::Caller::Team(team.to_owned())),
        model: model.to_owned(),
        operation: proto::Operation::ChatCompletion.into(),
        input_tokens,
        max_output_tokens,
        ..Default::default()
    }
}

/// What a chat request used.
pub(crate) fn used(reservation_id: &str, input_tokens: i64, output_tokens: i64) -> proto::RecordUsageRequest {
    proto::RecordUsageRequest {
        reservation_id: reservation_id.to_owned(),
        usage: Some(proto::Usage { input_tokens, output_tokens, ..Default::default() }),
        outcome: proto::Outcome::Completed.into(),
        ..Default::default()
    }
}

/// The spend of one team this month.
pub(crate) async fn team_spend(client: &mut PolicyServiceClient<Channel>, team: &str) -> proto::SpendReport {
    let request = proto::GetSpendRequest { team: team.to_owned(), ..Default::default() };
    let mut answer = client.get_spend(request).await.unwrap().into_inner();
    answer.teams.pop().expect("the team's report")
}
