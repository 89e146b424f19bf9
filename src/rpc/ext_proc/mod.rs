//! `envoy.service.ext_proc.v3.ExternalProcessor`: follows each HTTP exchange, and settles its reservation by what it sees.

mod exchange;
mod settlement;

use std::{pin::Pin, time::Duration};

use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, error, warn};

use self::{
    exchange::{Exchange, Step},
    settlement::{End, Report},
};
use super::{
    admission::Admission,
    envoy::service::ext_proc::v3::{
        ProcessingRequest, ProcessingResponse, external_processor_server::ExternalProcessor,
    },
};
use crate::{
    authorizer::{Authorizer, Failure},
    domain::request::Outcome,
    store::{Store, StoreError},
};

/// Answers to one exchange that wait for Envoy to take them; it waits for each before it sends the next step.
const REPLIES: usize = 4;
/// The first and the longest pause between attempts to settle while the store does not answer.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a settlement is tried. Then the reservation's expiry decides what it is charged.
const PATIENCE: Duration = Duration::from_secs(600);
/// Settlements that wait for the store on one core; each holds a few hundred bytes.
const MAX_PENDING: usize = 100_000;

/// The exchanges and settlements of one core that are under way.
#[derive(Clone, Debug, Default)]
pub struct Settling {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Settling {
    /// Waits until all have ended. Those whose store does not answer are tried once more and given up.
    pub async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Serves `ExternalProcessor` through an authorizer.
#[derive(Clone, Debug)]
pub struct ProcessRpc<S> {
    authorizer: Authorizer<S>,
    settling: Settling,
}

impl<S> ProcessRpc<S> {
    /// Serves through `authorizer`. What is under way is waited for with `settling`.
    #[must_use]
    pub const fn new(authorizer: Authorizer<S>, settling: Settling) -> Self {
        Self { authorizer, settling }
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
        let (replies, receiver) = mpsc::channel(REPLIES);
        // A task of its own: Envoy ends the call by a reset, and what follows from that has still to be done.
        self.settling.tasks.spawn(follow(self.clone(), request.into_inner(), replies));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Follows one exchange to its end. The channel has one sender, this task, and one receiver, the call; it is closed when
/// either is gone, which ends the exchange.
async fn follow<S: Store + Clone>(
    rpc: ProcessRpc<S>,
    mut steps: Streaming<ProcessingRequest>,
    replies: mpsc::Sender<Result<ProcessingResponse, Status>>,
) {
    let mut exchange = Exchange::default();
    // The end of the stream and its reset are the same: the exchange is over.
    while let Some(Ok(message)) = steps.next().await {
        let Step { reply, end } = exchange.step(message);
        if let Some(end) = end {
            rpc.spawn_settlement(end);
        }
        if let Some(reply) = reply
            && replies.send(Ok(reply)).await.is_err()
        {
            break;
        }
    }
    if let Some(end) = exchange.close() {
        rpc.spawn_settlement(end);
    }
}

impl<S: Store + Clone> ProcessRpc<S> {
    /// Settles apart from the exchange, which goes on: Envoy is not to wait for the store.
    fn spawn_settlement(&self, (admission, end): (Admission, End)) {
        if let End::Refused { status: 401, .. } = end {
            error!("Groq refuses the upstream key (401): give a valid one under [groq] in the policy");
        }
        let Some(report) = Report::of(&admission, &end) else { return };
        if self.settling.tasks.len() > MAX_PENDING {
            warn!(reservation = %admission.reservation, "too many settlements wait; this one is left to its expiry");
            return;
        }
        self.settling.tasks.spawn(settle(
            self.authorizer.clone(),
            admission,
            report,
            self.settling.stop.clone(),
        ));
    }
}

/// Settles, and tries again for as long as the store does not answer.
async fn settle<S: Store + Clone>(
    authorizer: Authorizer<S>,
    admission: Admission,
    report: Report,
    stop: CancellationToken,
) {
    let id = admission.reservation;
    let mut pause = FIRST_PAUSE;
    let mut waited = Duration::ZERO;
    let Report { mut outcome, mut usage, upstream_delay_ms } = report;
    loop {
        let last = stop.is_cancelled() || waited >= PATIENCE;
        match authorizer.settle(id, usage.clone(), outcome, upstream_delay_ms).await {
            Ok(booked) => {
                debug!(reservation = %id, cost_nanos = booked.cost.nanos(), ?outcome, "exchange settled");
                return;
            }
            Err(Failure::Store(StoreError::Unavailable)) if !last => {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stop.cancelled() => {}
                }
                waited += pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            // Usage that has no price is not lost: the team's rule for what nobody reported decides.
            Err(failure @ (Failure::NotPriced(_) | Failure::UnknownTool(_))) if usage.is_some() => {
                error!(reservation = %id, %failure, "the usage that Groq reports cannot be booked");
                (usage, outcome) = (None, Outcome::Aborted);
            }
            Err(failure) => {
                error!(reservation = %id, %failure, "an exchange is not settled; its reservation's expiry decides");
                return;
            }
        }
    }
}
