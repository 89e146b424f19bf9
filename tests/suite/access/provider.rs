//! A real OpenID provider: its tokens, by its own flow, with the groups that it says.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::SystemTime,
};

use serde_json::Value;
use tollgate::{
    domain::Timestamp,
    rpc::proto::{GetSpendRequest, policy_service_client::PolicyServiceClient},
};
use tonic::{Code, transport::Channel};

use super::{by, reason};
use crate::{
    clients::{install_modules, skip},
    harness::{Server, StoreKind, chat, connect},
};

/// Ended when dropped, by its standard input at the latest.
pub(crate) struct Provider(Child);

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The provider, which knows a console at `console`, and what it says of itself; `Err` where it cannot be run here.
pub(crate) fn start(console: &str) -> Result<(Provider, Value), String> {
    start_for(console, 3_600, "")
}

/// The same, which vouches for people for `seconds`, and knows `another` administrator.
pub(crate) fn start_for(console: &str, seconds: u32, another: &str) -> Result<(Provider, Value), String> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let modules = {
        let _one = ONE_AT_A_TIME.lock().unwrap();
        install_modules("oidc", &["provider.mjs"])?
    };
    let child = Command::new("node")
        .arg(modules.join("provider.mjs"))
        .env("CONSOLE", console)
        .env("ID_TOKEN_SECONDS", seconds.to_string())
        .env("ANOTHER", another)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut provider = Provider(child);
    // It may say something about its settings first.
    let mut lines = BufReader::new(provider.0.stdout.take().unwrap()).lines();
    let said = lines.find_map(|line| serde_json::from_str(&line.unwrap()).ok());
    Ok((provider, said.expect("the provider ended")))
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_of_a_real_provider_become_roles() {
    let (_provider, said) = match tokio::task::spawn_blocking(|| start("http://127.0.0.1:1")).await.unwrap() {
        Ok(started) => started,
        Err(missing) => return skip("OpenID provider's", &missing),
    };
    let text = |name: &str| said[name].as_str().unwrap();
    let policy = format!(
        "[organization]\nid = \"acme\"\n[teams.chatbot]\nmodels = [\"*\"]\nmax_output_tokens = 99\n\
         [teams.research]\nmodels = [\"*\"]\n[[access.oidc]]\nissuer = \"{}\"\naudience = \"{}\"\nclaim = \"groups\"\n\
         [access.oidc.map.platform-admins]\nroles = [\"admin\"]\n\
         [access.oidc.map.finance]\nroles = [\"viewer\"]\nteams = [\"chatbot\"]\n",
        text("issuer"),
        text("audience"),
    );
    // The provider's tokens are of its own time.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let now = Timestamp(u64::try_from(now.as_millis()).unwrap());
    let server = Server::start(StoreKind::Embedded, &policy, now).await;
    let mut client = PolicyServiceClient::new(connect(server.address()).await);
    let token = |client: &str| said["tokens"][client].as_str().unwrap().to_owned();
    let spend = async |client: &mut PolicyServiceClient<Channel>, token: &str, team: &str| {
        let request = GetSpendRequest { team: team.to_owned(), ..Default::default() };
        client.get_spend(by(token, request)).await
    };

    // Signed by RSA, in a group of administrators.
    client.authorize(by(&token("platform"), chat("chatbot", "openai/gpt-oss-20b", 1, 1))).await.unwrap();
    assert!(spend(&mut client, &token("platform"), "").await.unwrap().into_inner().organization.is_some());
    // Signed by ECDSA, in two groups, of which one may see one team.
    let seen = spend(&mut client, &token("finance"), "").await.unwrap().into_inner();
    assert_eq!((seen.organization, seen.teams.len(), seen.teams[0].name.as_str()), (None, 1, "chatbot"));
    let refused = spend(&mut client, &token("finance"), "research").await.unwrap_err();
    assert_eq!(reason(&refused), (Code::PermissionDenied, "TEAM_NOT_PERMITTED".to_owned()));
    let refused = client
        .authorize(by(&token("finance"), chat("chatbot", "openai/gpt-oss-20b", 1, 1)))
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), (Code::PermissionDenied, "PERMISSION_MISSING".to_owned()));
    // In no group that the policy knows.
    let refused = spend(&mut client, &token("stranger"), "").await.unwrap_err();
    assert_eq!(reason(&refused), (Code::PermissionDenied, "PERMISSION_MISSING".to_owned()));
    // Ten minutes later they are worth nothing.
    server.clock.set(now.plus(3_600_000));
    let refused = spend(&mut client, &token("platform"), "").await.unwrap_err();
    assert_eq!(reason(&refused), (Code::Unauthenticated, "TOKEN_EXPIRED".to_owned()));
    assert!(server.stop().await);
}
