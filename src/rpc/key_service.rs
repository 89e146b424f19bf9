//! `tollgate.v1.KeyService`.

use tonic::{Request, Response, Status};

use super::{
    Peer, key_answer, key_parse,
    proto::{
        CreateKeyRequest, CreateKeyResponse, GetKeyRequest, GetKeyResponse, ListKeysRequest,
        ListKeysResponse, RevokeKeyRequest, RevokeKeyResponse, RotateKeyRequest, RotateKeyResponse,
        UpdateKeyRequest, UpdateKeyResponse, key_service_server::KeyService,
    },
    status,
};
use crate::{
    authorizer::{Authorizer, KeyError, Versioned},
    store::Store,
};

/// Serves `KeyService` through an authorizer.
#[derive(Clone, Debug)]
pub struct KeyRpc<S> {
    authorizer: Authorizer<S>,
}

impl<S> KeyRpc<S> {
    /// Serves through `authorizer`.
    #[must_use]
    pub const fn new(authorizer: Authorizer<S>) -> Self {
        Self { authorizer }
    }
}

/// Whether the caller may manage keys: as long as nobody says who calls, only from this machine.
fn permit<T>(request: Request<T>) -> Result<T, Status> {
    let local = request.extensions().get::<Peer>().is_some_and(|peer| peer.is_loopback);
    if local {
        Ok(request.into_inner())
    } else {
        Err(status::not_permitted("keys are managed from the service's own machine"))
    }
}

impl<S: Store + Clone> KeyRpc<S> {
    async fn show(&self, changed: Result<Versioned, KeyError>) -> Result<super::proto::Key, Status> {
        let key = changed.map_err(|error| status::key_failure(&error))?;
        // The change is made: where its use cannot be read now, it is shown without.
        let report = match self.authorizer.report_key(key.clone()).await {
            Ok(report) => report,
            Err(_) => self.authorizer.bare_report(key),
        };
        Ok(key_answer::key(report))
    }
}

#[tonic::async_trait]
impl<S: Store + Clone> KeyService for KeyRpc<S> {
    async fn create_key(
        &self,
        request: Request<CreateKeyRequest>,
    ) -> Result<Response<CreateKeyResponse>, Status> {
        let new = key_parse::create(permit(request)?)?;
        let made = self.authorizer.create_key(new).await;
        let (key, secret) = made.map_err(|error| status::key_failure(&error))?;
        let key = Some(self.show(Ok(key)).await?);
        Ok(Response::new(CreateKeyResponse { key, secret: secret.expose().to_owned() }))
    }

    async fn get_key(&self, request: Request<GetKeyRequest>) -> Result<Response<GetKeyResponse>, Status> {
        let name = key_parse::name(permit(request)?.name)?;
        let report = self.authorizer.get_key(&name).await.map_err(|error| status::key_failure(&error))?;
        Ok(Response::new(GetKeyResponse { key: Some(key_answer::key(report)) }))
    }

    async fn list_keys(
        &self,
        request: Request<ListKeysRequest>,
    ) -> Result<Response<ListKeysResponse>, Status> {
        let query = key_parse::list(permit(request)?)?;
        let page = self.authorizer.list_keys(&query).await.map_err(|error| status::key_failure(&error))?;
        Ok(Response::new(key_answer::page(page)))
    }

    async fn update_key(
        &self,
        request: Request<UpdateKeyRequest>,
    ) -> Result<Response<UpdateKeyResponse>, Status> {
        let (name, change) = key_parse::update(permit(request)?)?;
        let key = Some(self.show(self.authorizer.update_key(&name, &change).await).await?);
        Ok(Response::new(UpdateKeyResponse { key }))
    }

    async fn rotate_key(
        &self,
        request: Request<RotateKeyRequest>,
    ) -> Result<Response<RotateKeyResponse>, Status> {
        let key_parse::Rotation { name, overlap_ms, force } = key_parse::rotate(permit(request)?)?;
        let rotated = self.authorizer.rotate_key(&name, overlap_ms, force).await;
        let (key, secret) = rotated.map_err(|error| status::key_failure(&error))?;
        let key = Some(self.show(Ok(key)).await?);
        Ok(Response::new(RotateKeyResponse { key, secret: secret.expose().to_owned() }))
    }

    async fn revoke_key(
        &self,
        request: Request<RevokeKeyRequest>,
    ) -> Result<Response<RevokeKeyResponse>, Status> {
        let key_parse::Revocation { name, secret, force } = key_parse::revoke(permit(request)?)?;
        let key = Some(self.show(self.authorizer.revoke_key(&name, secret, force).await).await?);
        Ok(Response::new(RevokeKeyResponse { key }))
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn only_this_machine_may() {
        let from = |peer: Option<&str>| {
            let mut request = Request::new(());
            if let Some(peer) = peer {
                request.extensions_mut().insert(Peer::plain(Some(peer.parse().unwrap())));
            }
            permit(request).map_err(|status| status.code())
        };
        for peer in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(from(Some(peer)), Ok(()), "{peer}");
        }
        for peer in ["192.0.2.1:1", "10.0.0.1:1", "[2001:db8::1]:1", "[::ffff:192.0.2.1]:1", "0.0.0.0:1"] {
            assert_eq!(from(Some(peer)), Err(Code::PermissionDenied), "{peer}");
        }
        assert_eq!(from(None), Err(Code::PermissionDenied));
    }
}
