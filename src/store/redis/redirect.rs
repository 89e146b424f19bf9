//! Calls to a node that a slot is being moved to: only those that its present owner sends there.

use std::time::Duration;

use redis::{Cmd, ErrorKind, Pipeline, RedisError, Value};
use tokio::{sync::Mutex, time::timeout};

use super::{
    dialer::{Address, Dialer, Link},
    fault::{self, Remedy},
    keeper::{Ready, is_broken, load, redirected},
    script::Script,
};
use crate::syntax::redis_url::RedisNode;

/// The node that was named last, with a connection to it. It is locked while a connection is made, within the deadline of a call.
pub(super) struct Asked {
    dialer: Dialer,
    last: Mutex<Option<(RedisNode, Ready)>>,
}

impl Asked {
    pub(super) fn new(dialer: Dialer) -> Self {
        Self { dialer, last: Mutex::new(None) }
    }

    /// Sends a call to the node that `error` of the server at `said_by` names, and waits `within` this time for the answer.
    ///
    /// # Errors
    /// What that node answered, or that it did not. They say nothing of the server that named it.
    pub(super) async fn send(
        &self,
        (error, said_by): (&RedisError, &Address),
        (cmd, script): (&Cmd, Option<&Script>),
        within: Duration,
    ) -> Result<Value, RedisError> {
        let Some(node) = error.redirect_node().and_then(|(node, _)| redirected(node, said_by)) else {
            return Err(RedisError::from((ErrorKind::Parse, "a redirection without an address")));
        };
        timeout(within, self.ask(&node, cmd, script)).await.unwrap_or_else(|_| {
            // Others that have the link find out for themselves whether it is silent.
            if let Ok(mut last) = self.last.try_lock() {
                *last = None;
            }
            Err(RedisError::from((ErrorKind::Io, "no answer of the node that a slot is moved to")))
        })
    }

    async fn ask(&self, node: &RedisNode, cmd: &Cmd, script: Option<&Script>) -> Result<Value, RedisError> {
        let (shared, mut connection) = self.connection(node).await?;
        let answer = asking(&mut connection, cmd, script).await;
        if answer.as_ref().is_err_and(|error| is_broken(error) || fault::is_login_refused(error)) {
            shared.end();
        }
        answer
    }

    /// A link to that node: the one that others have, if there is one.
    async fn connection(&self, node: &RedisNode) -> Result<Ready, RedisError> {
        let mut last = self.last.lock().await;
        if let Some((known, ready)) = &*last
            && known == node
            && !ready.0.is_over()
        {
            return Ok(ready.clone());
        }
        let ready = self.dialer.connect(&Address::Node(node.clone())).await?.sound();
        *last = Some((node.clone(), ready.clone()));
        Ok(ready)
    }
}

/// The answer to a call behind `ASKING`: both go out as a whole, so nothing of others comes in between.
async fn asking(connection: &mut Link, cmd: &Cmd, script: Option<&Script>) -> Result<Value, RedisError> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("ASKING").add_command(cmd.clone());
    let answer = second(connection, &pipeline).await;
    if let (Err(error), Some(script)) = (&answer, script)
        && fault::remedy(error) == Some(Remedy::Load)
    {
        load(connection, script).await?;
        return second(connection, &pipeline).await;
    }
    answer
}

/// The answer to the second of two commands.
async fn second(connection: &mut Link, pipeline: &Pipeline) -> Result<Value, RedisError> {
    let answers = connection.send_packed_commands(pipeline, 0, pipeline.len()).await?;
    let answer = answers.into_iter().nth(1);
    answer
        .ok_or_else(|| RedisError::from((ErrorKind::Parse, "no answer to the second command")))?
        .extract_error()
}
