//! `tollgate.v1.KeyService`.

use std::sync::Arc;

use serde_json::Value;
use tonic::{Request, Response, Status};

use super::{
    access, audited, key_answer, key_parse,
    page::ListContext,
    proto::{
        CreateKeyRequest, CreateKeyResponse, GetKeyRequest, GetKeyResponse, ListKeysRequest,
        ListKeysResponse, RevokeKeyRequest, RevokeKeyResponse, RevokeKeySecretRequest,
        RevokeKeySecretResponse, RotateKeyRequest, RotateKeyResponse, UpdateKeyRequest, UpdateKeyResponse,
        key_service_server::KeyService,
    },
    recorded::Recorder,
    status::{self, FieldErrors},
};
use crate::{
    access::{OtherTeam, Refusal},
    audit::{Change, action},
    control::{ChangedKey, KeyError, Keys},
    domain::{
        actor::Actor,
        key::VirtualKey,
        rbac::{Permission, TeamScope},
    },
    store::Store,
};

/// Serves `KeyService`.
#[derive(Clone, Debug)]
pub struct KeyRpc<S> {
    keys: Keys<S>,
    recorder: Recorder,
}

impl<S> KeyRpc<S> {
    /// Serves `keys`, and makes changes with `recorder`.
    #[must_use]
    pub const fn new(keys: Keys<S>, recorder: Recorder) -> Self {
        Self { keys, recorder }
    }
}

/// Who does what to which key.
struct KeyCommand {
    actor: Actor,
    action: &'static str,
    name: String,
}

impl KeyCommand {
    /// What is recorded about it, if anything may have changed.
    fn outcome<T>(self, done: &Result<(ChangedKey, T), KeyError>) -> Option<Change> {
        let (before, after, outcome) = match done {
            // A key that was already revoked stays as it is.
            Ok((changed, _)) if changed.before.is_none() && self.action != action::KEY_CREATE => return None,
            Ok((changed, _)) => {
                let after =
                    changed.key.stored.as_ref().map_or(Value::Null, |stored| audited::key(&stored.record));
                (changed.before.as_deref().map_or(Value::Null, audited::key), after, "done")
            }
            Err(KeyError::Store(_)) => (Value::Null, Value::Null, "unknown"),
            Err(_) => return None,
        };
        Some(Change { actor: self.actor, action: self.action, subject: self.name, before, after, outcome })
    }
}

/// The status of a key that could not be created or changed. The fields of the domain are those of the request's `key`.
fn refused(error: &KeyError) -> Status {
    let KeyError::Invalid(breaches) = error else { return status::key_failure(error) };
    let mut errors = FieldErrors::default();
    breaches.iter().for_each(|breach| errors.add(&key_parse::in_key(breach.field), breach.message.clone()));
    errors.into_status()
}

impl<S: Store + Clone> KeyRpc<S> {
    /// Whether the caller has `permission` on the created key called `name`. For a key outside the caller's teams the answer
    /// reveals nothing, not even whether it exists.
    async fn reaches(&self, scope: &TeamScope, name: &str, permission: Permission) -> Result<(), Status> {
        if *scope == TeamScope::All {
            return Ok(());
        }
        match self.keys.created_key(name).await {
            Ok(key) if scope.holds(&key.team) => Ok(()),
            Err(KeyError::NotCreated(_)) if self.is_declared(scope, name) => {
                // A caller responsible for a declared key learns that it is changed elsewhere.
                Err(status::key_failure(&KeyError::NotCreated(name.to_owned())))
            }
            Ok(_) | Err(KeyError::NotCreated(_)) => {
                Err(access::status(Refusal::OtherTeam(permission, OtherTeam::Key(name.to_owned()))))
            }
            Err(error) => Err(status::unread_key(&error)),
        }
    }

    fn is_declared(&self, scope: &TeamScope, name: &str) -> bool {
        self.keys.declared_keys(name).iter().any(|key| scope.holds(&key.team))
    }

    /// Makes a change and records it.
    async fn change<T: Send + 'static>(
        &self,
        command: KeyCommand,
        change: impl Future<Output = Result<(ChangedKey, T), KeyError>> + Send + 'static,
    ) -> Result<(ChangedKey, T), Status> {
        let done = self.recorder.carry_out(change, |done| command.outcome(done)).await?;
        done.map_err(|error| refused(&error))
    }

    async fn show(&self, key: Arc<VirtualKey>) -> super::proto::VirtualKey {
        key_answer::key(self.keys.report_changed(key).await)
    }
}

#[tonic::async_trait]
impl<S: Store + Clone> KeyService for KeyRpc<S> {
    async fn create_key(
        &self,
        request: Request<CreateKeyRequest>,
    ) -> Result<Response<CreateKeyResponse>, Status> {
        let scope =
            access::session(request.extensions()).scope(Permission::ManageKeys).map_err(access::status)?;
        let actor = access::session(request.extensions()).actor();
        let request = request.into_inner();
        let validate_only = request.validate_only;
        let new = key_parse::create(request)?;
        access::within(&scope, &new.team, Permission::ManageKeys)?;
        if validate_only {
            let key = self.keys.check_new_key(new).await.map_err(|error| refused(&error))?;
            let key = Some(self.show(key).await);
            return Ok(Response::new(CreateKeyResponse { key, secret: String::new() }));
        }
        let command = KeyCommand { actor, action: action::KEY_CREATE, name: new.name.clone() };
        let keys = self.keys.clone();
        let (changed, secret) = self.change(command, async move { keys.create_key(new).await }).await?;
        let key = Some(self.show(changed.key).await);
        Ok(Response::new(CreateKeyResponse { key, secret: secret.expose().to_owned() }))
    }

    async fn get_key(&self, request: Request<GetKeyRequest>) -> Result<Response<GetKeyResponse>, Status> {
        let scope =
            access::session(request.extensions()).scope(Permission::ReadKeys).map_err(access::status)?;
        let (name, team) = key_parse::get(request.into_inner())?;
        let found = self.keys.get_key(&name, &team, &scope).await;
        let report = found.map_err(|error| match error {
            // A key outside the caller's teams is refused the same way.
            KeyError::Unknown(_) if scope != TeamScope::All => {
                access::status(Refusal::OtherTeam(Permission::ReadKeys, OtherTeam::Key(name.clone())))
            }
            error => status::unread_key(&error),
        })?;
        Ok(Response::new(GetKeyResponse { key: Some(key_answer::key(report)) }))
    }

    async fn list_keys(
        &self,
        request: Request<ListKeysRequest>,
    ) -> Result<Response<ListKeysResponse>, Status> {
        let scope =
            access::session(request.extensions()).scope(Permission::ReadKeys).map_err(access::status)?;
        let context = ListContext { organization: self.keys.organization(), now: self.keys.now() };
        let (mut query, tokens) = key_parse::list(request.into_inner(), &context)?;
        if query.team.is_empty() {
            // A caller with exactly one team means that one; with several, the request has to name one.
            query.team = scope.only_team().map(ToString::to_string).unwrap_or_default();
        }
        access::within(&scope, &query.team, Permission::ReadKeys)?;
        let page = self.keys.list_keys(&query).await.map_err(|error| status::unread_key(&error))?;
        Ok(Response::new(key_answer::page(page, &tokens)))
    }

    async fn update_key(
        &self,
        request: Request<UpdateKeyRequest>,
    ) -> Result<Response<UpdateKeyResponse>, Status> {
        let scope =
            access::session(request.extensions()).scope(Permission::ManageKeys).map_err(access::status)?;
        let actor = access::session(request.extensions()).actor();
        let request = request.into_inner();
        let validate_only = request.validate_only;
        let (name, change) = key_parse::update(request)?;
        self.reaches(&scope, &name, Permission::ManageKeys).await?;
        if validate_only {
            let key = self.keys.check_update(&name, &change).await.map_err(|error| refused(&error))?;
            return Ok(Response::new(UpdateKeyResponse { key: Some(self.show(key).await) }));
        }
        let command = KeyCommand { actor, action: action::KEY_UPDATE, name: name.clone() };
        let keys = self.keys.clone();
        let update = async move { keys.update_key(&name, &change).await.map(|key| (key, ())) };
        let (changed, ()) = self.change(command, update).await?;
        let key = Some(self.show(changed.key).await);
        Ok(Response::new(UpdateKeyResponse { key }))
    }

    async fn rotate_key(
        &self,
        request: Request<RotateKeyRequest>,
    ) -> Result<Response<RotateKeyResponse>, Status> {
        let scope =
            access::session(request.extensions()).scope(Permission::RotateKeys).map_err(access::status)?;
        let actor = access::session(request.extensions()).actor();
        let key_parse::Rotation { name, overlap_ms, force } = key_parse::rotate(request.into_inner())?;
        self.reaches(&scope, &name, Permission::RotateKeys).await?;
        let command = KeyCommand { actor, action: action::KEY_ROTATE, name: name.clone() };
        let keys = self.keys.clone();
        let rotate = async move { keys.rotate_key(&name, overlap_ms, force).await };
        let (changed, secret) = self.change(command, rotate).await?;
        let key = Some(self.show(changed.key).await);
        Ok(Response::new(RotateKeyResponse { key, secret: secret.expose().to_owned() }))
    }

    async fn revoke_key(
        &self,
        request: Request<RevokeKeyRequest>,
    ) -> Result<Response<RevokeKeyResponse>, Status> {
        let scope =
            access::session(request.extensions()).scope(Permission::RotateKeys).map_err(access::status)?;
        let actor = access::session(request.extensions()).actor();
        let name = key_parse::revoke(request.into_inner())?;
        self.reaches(&scope, &name, Permission::RotateKeys).await?;
        let command = KeyCommand { actor, action: action::KEY_REVOKE, name: name.clone() };
        let keys = self.keys.clone();
        let revoke = async move { keys.revoke_key(&name).await.map(|key| (key, ())) };
        let (changed, ()) = self.change(command, revoke).await?;
        let key = Some(self.show(changed.key).await);
        Ok(Response::new(RevokeKeyResponse { key }))
    }

    async fn revoke_key_secret(
        &self,
        request: Request<RevokeKeySecretRequest>,
    ) -> Result<Response<RevokeKeySecretResponse>, Status> {
        let scope =
            access::session(request.extensions()).scope(Permission::RotateKeys).map_err(access::status)?;
        let actor = access::session(request.extensions()).actor();
        let key_parse::SecretRevocation { name, secret, force } =
            key_parse::revoke_secret(request.into_inner())?;
        self.reaches(&scope, &name, Permission::RotateKeys).await?;
        let command = KeyCommand { actor, action: action::KEY_REVOKE_SECRET, name: name.clone() };
        let keys = self.keys.clone();
        let revoke = async move { keys.revoke_secret(&name, secret, force).await.map(|key| (key, ())) };
        let (changed, ()) = self.change(command, revoke).await?;
        let key = Some(self.show(changed.key).await);
        Ok(Response::new(RevokeKeySecretResponse { key }))
    }
}
