//! Proves to a server who it is, in one way, and sends itself a message: login WAY URL, in the directory of the keys.

use async_nats::{ConnectErrorKind, ConnectOptions};
use futures_util::StreamExt;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::timeout;

const WAIT: Duration = Duration::from_secs(20);

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn options(way: &str) -> Result<ConnectOptions, Failure> {
    let user = |name: &str, password: &str| ConnectOptions::with_user_and_password(name.into(), password.into());
    let encrypted = || ConnectOptions::new().require_tls(true).add_root_certificates("ca.pem".into());
    Ok(match way {
        "token" => ConnectOptions::with_token("s3cret".into()),
        "password" => user("plain", "secret"),
        "hashed" => user("hashed", "secret"),
        "wrong" => user("hashed", "secre"),
        "nkey" => ConnectOptions::with_nkey(std::fs::read_to_string("user.nk")?),
        "tls" => encrypted(),
        "certificate" => encrypted().add_client_certificate("client.pem".into(), "client-key.pem".into()),
        _ => return Err("no such way".into()),
    })
}

async fn login(way: &str, url: &str) -> Result<(), Failure> {
    let connected = options(way)?.connection_timeout(WAIT).connect(url).await;
    if way == "wrong" {
        return match connected {
            Err(error) if error.kind() == ConnectErrorKind::AuthorizationViolation => Ok(()),
            other => Err(format!("a wrong password: {:?}", other.err()).into()),
        };
    }
    let client = connected?;
    let mut subscriber = client.subscribe("joe.hello").await?;
    client.publish("joe.hello", "hello".into()).await?;
    let message = timeout(WAIT, subscriber.next()).await?.ok_or("no message")?;
    if message.payload != "hello" {
        return Err(format!("got {:?}", message.payload).into());
    }
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (way, url) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
    match login(&way, &url).await {
        Ok(()) => {
            println!("ok {way}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("FAIL {way} {error}");
            ExitCode::FAILURE
        }
    }
}
