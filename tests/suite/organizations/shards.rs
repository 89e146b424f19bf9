//! Organizations spread over the shards of a cluster, and each needs its own alone.

use tempfile::TempDir;
use tollgate::rpc::proto::Decision;
use tonic::Code;

use super::{policy_of, question, to, token_of};
use crate::{
    harness::{Process, StoreKind, eventually, organization},
    topology::nodes::Cluster,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shard_of_one_is_not_that_of_another() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let mut cluster = Cluster::start().await;
    for node in &cluster.nodes {
        let mut connection = redis::Client::open(node.url()).unwrap().get_connection().unwrap();
        let coverage = ["CONFIG", "SET", "cluster-require-full-coverage", "no"];
        redis::cmd(coverage[0]).arg(&coverage[1..]).query::<()>(&mut connection).unwrap();
    }
    let mut of = [None, None, None];
    while of.contains(&None) {
        let name = organization();
        let (owner, _) = cluster.owner(&name);
        of[owner].get_or_insert(name);
    }
    let of = of.map(|name| name.unwrap_or_default());
    let texts = of.each_ref().map(|id| policy_of(id, ""));
    let policies: Vec<_> = of.iter().zip(&texts).map(|(id, text)| (id.as_str(), text.as_str())).collect();
    let directory = TempDir::new().unwrap();
    let store = format!("--store={}", cluster.url(&[0, 1, 2]));
    let arguments = [&*store, "--store-timeout=500ms", "--admin-enabled=false"];
    let process = Process::start_several(directory.path(), &policies, &arguments).await;
    let mut client = process.client().await;
    for id in &of {
        let decided = async || match client.authorize(to("", &token_of(id), question())).await {
            Ok(answer) => answer.into_inner().decision() == Decision::Allowed,
            Err(_) => false,
        };
        eventually("each is decided for", decided).await;
    }
    // The shard of the first, and what would take its place.
    cluster.nodes[3].kill();
    cluster.nodes[0].kill();
    let is_out = async || {
        let refused = client.authorize(to("", &token_of(&of[0]), question())).await;
        refused.is_err_and(|status| status.code() == Code::Unavailable)
    };
    eventually("the first is not decided for", is_out).await;
    for _ in 0..20 {
        for id in &of[1..] {
            let answer = client.authorize(to("", &token_of(id), question())).await.unwrap().into_inner();
            assert_eq!(answer.decision(), Decision::Allowed);
        }
    }
    assert_eq!(process.is_serving().await, Some(true));
    process.stop().await;
}
