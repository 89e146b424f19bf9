//! Keys that teams declare, and who may see them: each its own, and of others' nothing, not even that there are any.

use tollgate::rpc::proto::{
    GetKeyRequest, KeyState, ListKeysRequest, RevokeKeyRequest, RotateKeyRequest, UpdateKeyRequest,
    VirtualKey, key_service_client::KeyServiceClient,
};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

use super::{by, digest, reason};
use crate::harness::{START, Server, StoreKind, connect, new_key};

/// Two teams that declare keys of one name and of names of their own, and whoever may see one of them, or both.
fn policy() -> String {
    let mut policy = "[organization]\nid = \"acme\"\n".to_owned();
    for team in ["own", "other"] {
        policy += &format!("[teams.{team}]\nmodels = [\"*\"]\n");
        for name in ["web", &format!("{team}-prod-declared")] {
            let sha256 = digest(&format!("{team}/{name}"));
            policy += &format!("[teams.{team}.keys.{name}]\nsha256 = \"{sha256}\"\n");
        }
    }
    for (name, role, teams) in [
        ("admin", "admin", ""),
        ("lead", "team-admin", "teams = [\"own\"]\n"),
        ("both", "team-admin", "teams = [\"own\", \"other\"]\n"),
    ] {
        let sha256 = digest(&format!("tgs_{name}"));
        policy += &format!("[access.tokens.{name}]\nsha256 = \"{sha256}\"\nroles = [\"{role}\"]\n{teams}");
    }
    policy
}

async fn get(
    keys: &mut KeyServiceClient<Channel>,
    who: &str,
    team: &str,
    name: &str,
) -> Result<VirtualKey, Status> {
    let request = GetKeyRequest { name: name.to_owned(), team: team.to_owned() };
    keys.get_key(by(&format!("tgs_{who}"), request)).await.map(|answer| answer.into_inner().key.unwrap())
}

/// What `lead` hears who wants to change a key.
async fn changes(keys: &mut KeyServiceClient<Channel>, name: &str) -> [Status; 3] {
    let (token, name) = ("tgs_lead", name.to_owned());
    let key = Some(VirtualKey { name: name.clone(), ..Default::default() });
    let update_mask = Some(prost_types::FieldMask { paths: vec!["labels".to_owned()] });
    let rotate = RotateKeyRequest { name: name.clone(), ..Default::default() };
    let revoke = RevokeKeyRequest { name };
    [
        keys.update_key(by(token, UpdateKeyRequest { key, update_mask, ..Default::default() }))
            .await
            .unwrap_err(),
        keys.rotate_key(by(token, rotate)).await.unwrap_err(),
        keys.revoke_key(by(token, revoke)).await.unwrap_err(),
    ]
}

fn not_permitted() -> (Code, String) {
    (Code::PermissionDenied, "TEAM_NOT_PERMITTED".to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_declared_keys_each_sees_those_of_its_teams() {
    let server = Server::start(StoreKind::Embedded, &policy(), START).await;
    let mut keys = KeyServiceClient::new(connect(server.address()).await);
    for (who, team, expected) in [
        ("lead", "", Ok("own/own-prod-declared own/web")),
        ("lead", "own", Ok("own/own-prod-declared own/web")),
        ("lead", "other", Err(())),
        ("both", "other", Ok("other/other-prod-declared other/web")),
        ("admin", "", Ok("other/other-prod-declared own/own-prod-declared other/web own/web")),
    ] {
        let request = ListKeysRequest { team: team.to_owned(), ..Default::default() };
        let listed = keys.list_keys(by(&format!("tgs_{who}"), request)).await;
        let listed = listed.map(|answer| {
            let keys = answer.into_inner().keys.into_iter();
            keys.map(|key| format!("{}/{}", key.team, key.name)).collect::<Vec<_>>().join(" ")
        });
        match expected {
            Ok(expected) => assert_eq!(listed.unwrap(), expected, "{who} {team}"),
            Err(()) => assert_eq!(reason(&listed.unwrap_err()), not_permitted(), "{who} {team}"),
        }
    }
    // That another team has a key of the same name is told to those alone whom both concern.
    assert_eq!(get(&mut keys, "lead", "", "web").await.unwrap().team, "own");
    for who in ["both", "admin"] {
        let status = get(&mut keys, who, "", "web").await.unwrap_err();
        let details = status.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "team", "{status:?}");
        assert_eq!(get(&mut keys, who, "other", "web").await.unwrap().team, "other");
    }
    let mut refused = Vec::new();
    for (team, name) in [("", "nothing"), ("", "other-prod-declared"), ("other", "web"), ("nobody", "web")] {
        let status = get(&mut keys, "lead", team, name).await.unwrap_err();
        assert_eq!(reason(&status), not_permitted());
        refused.push(status.message().to_owned());
    }
    refused.dedup();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn declaring_a_key_gives_no_right_over_a_created_one_of_its_name() {
    let server = Server::start(StoreKind::Embedded, &policy(), START).await;
    let mut keys = KeyServiceClient::new(connect(server.address()).await);
    let name = "other-prod-created";
    keys.create_key(by("tgs_admin", new_key(name, "other"))).await.unwrap();
    let declared = digest("the secret of whoever edits the file");
    let policy = format!("{}[teams.own.keys.{name}]\nsha256 = \"{declared}\"\n", policy());
    server.set_policy(&policy).await;
    // Of one's own declared keys one hears where they are changed.
    for status in changes(&mut keys, "web").await {
        assert_eq!(reason(&status), (Code::NotFound, "UNKNOWN_KEY".to_owned()));
        assert!(status.message().contains("keys in the policy file are changed there"), "{status:?}");
    }
    for name in [name, "other-prod-declared", "nothing"] {
        for status in changes(&mut keys, name).await {
            assert_eq!(reason(&status), not_permitted(), "{name}");
        }
    }
    assert_eq!(get(&mut keys, "lead", "", name).await.unwrap().team, "own");
    let created = get(&mut keys, "admin", "", name).await.unwrap();
    assert_eq!((created.team.as_str(), created.state()), ("other", KeyState::Active));
    assert_eq!(created.secrets.len(), 1);
    assert!(server.stop().await);
}
