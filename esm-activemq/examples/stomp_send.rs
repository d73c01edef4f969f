//! Sends texts over STOMP, without logging in: a sender on another protocol, whose code is not ours.
//!
//! ```text
//! cargo run -p esm-activemq --example stomp_send -- --address 127.0.0.1:61613 --queue orders "a text" "and another"
//! ```

use std::error::Error;

use clap::Parser;
use stomp_rs::{
    client::{Client, ClientBuilder},
    protocol::frame::Send,
};

/// Sends texts over STOMP.
#[derive(Parser)]
struct Arguments {
    /// host:port
    #[arg(long)]
    address: String,
    #[arg(long)]
    queue: String,
    #[arg(required = true)]
    texts: Vec<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { address, queue, texts } = Arguments::parse();
    let client = Client::connect(ClientBuilder::new(address)).await?;
    for text in texts {
        // Each one waits for the broker's receipt.
        client.send(Send::new(format!("/queue/{queue}")).header("persistent", "true").body(text)).await?;
    }
    Ok(())
}
