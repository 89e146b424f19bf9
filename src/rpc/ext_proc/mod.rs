//! `envoy.service.ext_proc.v3.ExternalProcessor`: follows each HTTP exchange, and settles its reservation by what it sees.

mod exchange;
mod settlement;

use std::{pin::Pin, sync::Arc};

use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, warn};

use self::{
    exchange::{Exchange, Step},
    settlement::{End, is_unread, report_of},
};
use super::{
    access,
    envoy::service::ext_proc::v3::{
        ProcessingRequest, ProcessingResponse, external_processor_server::ExternalProcessor,
    },
    filter_context::FilterContext,
    settling::{self, UnreadUsage},
};
use crate::{
    access::{OtherTeam, Reach},
    audit::Audit,
    authorizer::Authorizer,
    domain::{name::MAX_NAME_BYTES, rbac::Permission},
    store::Store,
    upstream::UpstreamKeys,
};

/// Answers to one exchange that wait for Envoy to take them; Envoy waits for each before it sends the next step.
const REPLIES: usize = 4;

/// Its one RPC.
const PATH: &str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";

/// Serves `ExternalProcessor` through an authorizer.
#[derive(Clone, Debug)]
pub struct ProcessRpc<S> {
    authorizer: Authorizer<S>,
    upstream: Arc<UpstreamKeys>,
    audit: Audit,
    unread: Arc<UnreadUsage>,
}

impl<S> ProcessRpc<S> {
    /// Serves through `authorizer`, and tells `upstream` about a key that Groq refuses. Reports for a team that the proxy may
    /// not act for are recorded in `audit`.
    #[must_use]
    pub fn new(authorizer: Authorizer<S>, upstream: Arc<UpstreamKeys>, audit: Audit) -> Self {
        Self { authorizer, upstream, audit, unread: Arc::default() }
    }
}

type Replies = Pin<Box<dyn Stream<Item = Result<ProcessingResponse, Status>> + Send>>;

#[tonic::async_trait]
impl<S: Store + Clone> ExternalProcessor for ProcessRpc<S> {
    type ProcessStream = Replies;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Replies>, Status> {
        let reach = access::session(request.extensions())
            .reach(Permission::Record, PATH, self.audit.clone())
            .map_err(access::status)?;
        let (replies, receiver) = mpsc::channel(REPLIES);
        // A separate task: Envoy ends the call with a reset, and the consequences still have to be handled.
        self.authorizer.settler().tasks().spawn(follow(self.clone(), request.into_inner(), replies, reach));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Follows one exchange to its end. The channel has one sender, this task, and one receiver, the call; it closes when either
/// is gone, which ends the exchange.
async fn follow<S: Store + Clone>(
    rpc: ProcessRpc<S>,
    mut steps: Streaming<ProcessingRequest>,
    replies: mpsc::Sender<Result<ProcessingResponse, Status>>,
    reach: Reach,
) {
    let mut exchange = Exchange::default();
    loop {
        let message = tokio::select! {
            // The end of the stream and its reset mean the same: the exchange is over.
            step = steps.next() => match step {
                Some(Ok(message)) => message,
                // Its sender is told what is wrong; after a reset, no one listens. It must not wait for room among the replies.
                Some(Err(status)) => {
                    let _ = replies.try_send(Err(status));
                    break;
                }
                None => break,
            },
            // The stream ends with OK, not with an error: Envoy then lets Groq's answer pass to the client as it is, where an
            // error would cut it off.
            () = rpc.authorizer.settler().tasks().cut_off() => {
                exchange.lose();
                break;
            }
        };
        let Step { reply, end } = exchange.step(message);
        if let Some(end) = end {
            rpc.settle(end, &reach);
        }
        if let Some(reply) = reply
            && replies.send(Ok(reply)).await.is_err()
        {
            break;
        }
    }
    if let Some(end) = exchange.close() {
        rpc.settle(end, &reach);
    }
}

impl<S: Store + Clone> ProcessRpc<S> {
    /// Settles apart from the exchange, which continues: Envoy must not wait for the store.
    ///
    /// The caller states what was admitted, so its team is checked here, and again in the reservation itself.
    fn settle(&self, (context, end): (FilterContext, End), reach: &Reach) {
        if !reach.scope.holds(&context.team) {
            debug!(reservation_id = %context.reservation.id(), "an exchange is of a team that its proxy may not report for");
            // The value comes from the proxy, and no team has a longer name.
            let is_name = context.team.len() <= MAX_NAME_BYTES;
            reach.refuse(&if is_name { OtherTeam::Team(context.team) } else { OtherTeam::Unnamed });
            return;
        }
        if let End::Refused { status: 401, .. } = end {
            self.upstream.refused(&context.upstream_key, self.authorizer.store().now());
        }
        if let End::Answered(_) = end {
            self.upstream.worked(&context.upstream_key, self.authorizer.store().now());
        }
        if let End::Answered(reading) = &end
            && is_unread(&context, reading)
            && let Some(left_out) = self.unread.to_warn_of()
        {
            warn!(
                reservation_id = %context.reservation.id(), team = context.team, model = context.model,
                operation = context.operation.name(), left_out,
                "an answer's usage cannot be read, or not all of it; the stated rule decides what is charged"
            );
        }
        if let Some(report) = report_of(&context, &end) {
            settling::settle(self.authorizer.clone(), context.reservation, report, reach.clone());
        }
    }
}
