//! Calls to a node that a slot is being moved to: only those that its present owner sends there.

use std::time::Duration;

use redis::{Cmd, ErrorKind, Pipeline, RedisError, Value};
use tokio::{sync::Mutex, time::timeout};

use super::{
    dialer::{Address, Dialer, Link},
    fault::{self, Remedy},
    keeper::{load, redirected},
    script::Script,
};
use crate::syntax::redis_url::RedisNode;

/// The node that was named last, with a connection to it. It is locked while a connection is made, within the deadline of a call.
pub(super) struct Asked {
    dialer: Dialer,
    last: Mutex<Option<(RedisNode, Link)>>,
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
        let answer = timeout(within, self.ask(&node, cmd, script)).await.unwrap_or_else(|_| {
            Err(RedisError::from((ErrorKind::Io, "no answer of the node that a slot is moved to")))
        });
        if answer.as_ref().is_err_and(|error| {
            error.is_io_error() || error.is_connection_dropped() || fault::is_login_refused(error)
        }) && let Ok(mut last) = self.last.try_lock()
        {
            *last = None;
        }
        answer
    }

    async fn ask(&self, node: &RedisNode, cmd: &Cmd, script: Option<&Script>) -> Result<Value, RedisError> {
        let mut connection = self.connection(node).await?;
        let mut pipeline = Pipeline::new();
        pipeline.cmd("ASKING").add_command(cmd.clone());
        let answer = second(&mut connection, &pipeline).await;
        if let (Err(error), Some(script)) = (&answer, script)
            && fault::remedy(error) == Some(Remedy::Load)
        {
            load(&mut connection, script).await?;
            return second(&mut connection, &pipeline).await;
        }
        answer
    }

    async fn connection(&self, node: &RedisNode) -> Result<Link, RedisError> {
        let mut last = self.last.lock().await;
        if let Some((known, connection)) = &*last
            && known == node
        {
            return Ok(connection.clone());
        }
        let connection = self.dialer.connect(&Address::Node(node.clone())).await?;
        *last = Some((node.clone(), connection.clone()));
        Ok(connection)
    }
}

/// The answer to the second of two commands.
async fn second(connection: &mut Link, pipeline: &Pipeline) -> Result<Value, RedisError> {
    let answers = connection.send_packed_commands(pipeline, 0, pipeline.len()).await?;
    let answer = answers.into_iter().nth(1);
    answer
        .ok_or_else(|| RedisError::from((ErrorKind::Parse, "no answer to the second command")))?
        .extract_error()
}
