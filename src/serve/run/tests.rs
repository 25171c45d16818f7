//! Tests of the loop.

use super::*;
use crate::serve::listen::{Listen, TlsMode};
use crate::serve::worker::tests::config;
use crate::transport::ListenAddress;

/// The loss: an agent that is up, and that nobody can ask any more.
#[tokio::test]
async fn the_end_of_a_task_that_must_not_end_is_the_end_of_the_agent() {
    type Choose = fn(&mut Agent) -> &mut JoinSet<()>;
    let chosen: [(Choose, &str); 2] = [
        (
            |agent| &mut agent.servers,
            "the task that accepts connections",
        ),
        (|agent| &mut agent.control, "the task of the control socket"),
    ];
    let ends: [(fn(), &str); 2] = [(|| {}, "it returned"), (|| panic!("a defect"), "a defect")];
    for (tasks, what) in chosen {
        for (end, why) in ends {
            let (root, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let config = Config {
                listen: vec![Listen {
                    address: ListenAddress::Unix(state.path().join("socket")),
                    tls: TlsMode::Off,
                }],
                ..config(root.path(), state.path())
            };
            let reread: Reread = Box::new(|| Err("nothing to read".into()));
            let (mut agent, inbox, _stop) = Agent::start(config, reread).unwrap();
            agent.open_control();
            tasks(&mut agent).spawn(async move { end() });
            let ended = agent.live(inbox).await.unwrap_err().to_string();
            assert!(ended.contains(what) && ended.contains(why), "{ended}");
        }
    }
}
