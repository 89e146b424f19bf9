//! Calls to a node that a slot is being moved to: only those that its present owner sends there.

use redis::{Cmd, ErrorKind, Pipeline, RedisError, Value, aio::MultiplexedConnection};
use tokio::sync::Mutex;

use super::{
    dialer::{Address, Dialer},
    fault::{self, Remedy},
    keeper::load,
    script::Script,
};
use crate::syntax::redis_url::RedisNode;

/// The node that was named last, with a connection to it. It is locked while a connection is made, within the deadline of a call.
pub(super) struct Asked {
    dialer: Dialer,
    last: Mutex<Option<(RedisNode, MultiplexedConnection)>>,
}

impl Asked {
    pub(super) fn new(dialer: Dialer) -> Self {
        Self { dialer, last: Mutex::new(None) }
    }

    /// Sends a call to the node that `error` names.
    pub(super) async fn send(
        &self,
        error: &RedisError,
        cmd: &Cmd,
        script: Option<&Script>,
    ) -> Result<Value, RedisError> {
        // One without a host is another port of the node that said so, which is not known here: few clusters have such nodes.
        let node = error.redirect_node().and_then(|(node, _)| RedisNode::redirected(node, ""));
        let Some(node) = node.filter(|node| !node.host.is_empty()) else {
            return Err(RedisError::from((ErrorKind::Parse, "a redirection without an address")));
        };
        let mut connection = self.connection(&node).await?;
        let mut pipeline = Pipeline::new();
        pipeline.cmd("ASKING").add_command(cmd.clone());
        let mut answer = second(&mut connection, &pipeline).await;
        if let (Err(error), Some(script)) = (&answer, script)
            && fault::remedy(error) == Some(Remedy::Load)
        {
            load(&mut connection, script).await?;
            answer = second(&mut connection, &pipeline).await;
        }
        if answer.as_ref().is_err_and(|error| error.is_io_error() || error.is_connection_dropped()) {
            *self.last.lock().await = None;
        }
        answer
    }

    async fn connection(&self, node: &RedisNode) -> Result<MultiplexedConnection, RedisError> {
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
async fn second(connection: &mut MultiplexedConnection, pipeline: &Pipeline) -> Result<Value, RedisError> {
    let answers = connection.send_packed_commands(pipeline, 0, pipeline.len()).await?;
    let answer = answers.into_iter().nth(1);
    answer
        .ok_or_else(|| RedisError::from((ErrorKind::Parse, "no answer to the second command")))?
        .extract_error()
}
