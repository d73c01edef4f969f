//! A sender on another protocol, whose code has nothing to do with ActiveMQ's.

use std::thread;

use stomp_rs::{
    client::{Client, ClientBuilder},
    protocol::frame::Send,
};
use tokio::{runtime, sync::oneshot};

/// Sends texts, and returns when the broker has confirmed each of them.
///
/// The client never ends its tasks by itself and spins when the broker hangs up, so it gets a runtime that is thrown
/// away with it.
pub(super) async fn send(url: &str, queue: &str, texts: &[&str]) {
    let address = url.trim_start_matches("stomp://").to_owned();
    let queue = format!("/queue/{queue}");
    let texts: Vec<String> = texts.iter().copied().map(str::to_owned).collect();
    let (sender, sent) = oneshot::channel();
    thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let client = Client::connect(ClientBuilder::new(address)).await.expect("connects");
            for text in texts {
                let message = Send::new(&*queue).header("persistent", "true").body(text);
                client.send(message).await.expect("sends");
            }
        });
        drop(runtime);
        let _ = sender.send(());
    });
    sent.await.expect("every text is sent");
}
