//! What users of async-nats do, against the server binary named by SERVER_BIN.
//!
//! Starts and stops that binary itself. Prints `ok NAME` or `FAIL NAME reason` for each scenario. With the argument
//! `jetstream` they are those of [`jetstream`].

mod jetstream;

use async_nats::service::ServiceExt;
use async_nats::{Client, ConnectOptions, Event, HeaderMap, Request, RequestErrorKind, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use std::fmt::Debug;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

const WAIT: Duration = Duration::from_secs(20);

/// How large the large object is.
fn object_mb() -> usize {
    std::env::var("OBJECT_MB").map_or(5, |size| size.parse().expect("a number in OBJECT_MB"))
}

/// Scenarios are given up by then; a large object takes its time.
fn limit() -> Duration {
    Duration::from_secs(60 + object_mb() as u64)
}

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Outcome = Result<(), Failure>;

struct Server {
    port: u16,
    /// Where JetStream keeps its streams; without it there is none.
    store: Option<PathBuf>,
    process: Child,
}

impl Server {
    async fn start(port: u16, store: Option<PathBuf>) -> Result<Self, Failure> {
        let binary = std::env::var_os("SERVER_BIN").ok_or("SERVER_BIN is not set")?;
        let mut command = Command::new(binary);
        command
            .args(["-a", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(store) = &store {
            command.arg("-js").arg("-sd").arg(store);
        }
        let process = command.kill_on_drop(true).spawn()?;
        for _ in 0..2000 {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Ok(Self { port, store, process });
            }
            sleep(Duration::from_millis(10)).await;
        }
        Err("the server does not listen".into())
    }

    async fn restart(&mut self) -> Outcome {
        self.process.kill().await?;
        *self = Self::start(self.port, self.store.take()).await?;
        Ok(())
    }

    async fn connect(&self) -> Result<Client, Failure> {
        Ok(async_nats::connect(url(self.port)).await?)
    }
}

fn url(port: u16) -> String {
    format!("nats://127.0.0.1:{port}")
}

/// Returns once the server has handled everything that `client` sent: a flush of async-nats only writes.
async fn round_trip(client: &Client) -> Outcome {
    let inbox = client.new_inbox();
    let mut subscriber = client.subscribe(inbox.clone()).await?;
    client.publish(inbox, Bytes::new()).await?;
    next(&mut subscriber).await.map(|_| ())
}

fn equal<A: PartialEq<B> + Debug, B: Debug>(got: A, wanted: B) -> Outcome {
    if got == wanted { Ok(()) } else { Err(format!("got {got:?}, wanted {wanted:?}").into()) }
}

async fn next(subscriber: &mut Subscriber) -> Result<async_nats::Message, Failure> {
    timeout(WAIT, subscriber.next()).await?.ok_or_else(|| "the subscription ended".into())
}

async fn subjects(subscriber: &mut Subscriber, count: usize) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(next(subscriber).await?.subject.to_string());
    }
    Ok(all)
}

async fn publish_subscribe(server: &mut Server) -> Outcome {
    let client = server.connect().await?;
    let mut subscriber = client.subscribe("greet").await?;
    for i in 0..1000 {
        client.publish("greet", i.to_string().into()).await?;
    }
    for i in 0..1000 {
        equal(next(&mut subscriber).await?.payload, i.to_string())?;
    }
    Ok(())
}

async fn wildcards(server: &mut Server) -> Outcome {
    let client = server.connect().await?;
    let (mut star, mut rest) = (client.subscribe("a.*.c").await?, client.subscribe("a.>").await?);
    for subject in ["a.b.c", "a.b.d", "a.c", "b.b.c", "a.x.c", "a.b.c.d", "a"] {
        client.publish(subject, Bytes::new()).await?;
    }
    client.flush().await?;
    equal(subjects(&mut star, 2).await?, ["a.b.c", "a.x.c"])?;
    equal(subjects(&mut rest, 5).await?, ["a.b.c", "a.b.d", "a.c", "a.x.c", "a.b.c.d"])
}

async fn queue_groups(server: &mut Server) -> Outcome {
    let (sender, mut arrived) = mpsc::unbounded_channel();
    for member in 0..3 {
        let client = server.connect().await?;
        let mut jobs = client.queue_subscribe("jobs", "workers".into()).await?;
        round_trip(&client).await?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while let Some(message) = jobs.next().await {
                let number: usize = std::str::from_utf8(&message.payload).unwrap().parse().unwrap();
                let _ = sender.send((member, number));
            }
            drop(client);
        });
    }
    let client = server.connect().await?;
    let (mut per_member, mut numbers) = ([0; 3], Vec::new());
    for i in 0..600 {
        client.publish("jobs", i.to_string().into()).await?;
    }
    for _ in 0..600 {
        let (member, number) = timeout(WAIT, arrived.recv()).await?.ok_or("the members ended")?;
        per_member[member] += 1;
        numbers.push(number);
    }
    numbers.sort_unstable();
    equal(numbers, (0..600).collect::<Vec<usize>>())?;
    equal(per_member.contains(&0), false)
}

async fn request_reply(server: &mut Server) -> Outcome {
    let (service, client) = (server.connect().await?, server.connect().await?);
    let mut asked = service.subscribe("double").await?;
    let answering = service.clone();
    let task = tokio::spawn(async move {
        while let Some(message) = asked.next().await {
            let twice = [&message.payload[..], &message.payload[..]].concat();
            answering.publish(message.reply.unwrap(), twice.into()).await.unwrap();
        }
    });
    round_trip(&service).await?;
    let answers = join_all((0..200).map(|i| client.request("double", i.to_string().into()))).await;
    for (i, answer) in answers.into_iter().enumerate() {
        equal(answer?.payload, format!("{i}{i}"))?;
    }
    task.abort();
    Ok(())
}

async fn no_responders(server: &mut Server) -> Outcome {
    let client = server.connect().await?;
    match client.request("nobody.home", "?".into()).await {
        Err(error) => equal(error.kind(), RequestErrorKind::NoResponders),
        Ok(message) => Err(format!("an answer from nobody: {message:?}").into()),
    }
}

async fn headers(server: &mut Server) -> Outcome {
    let client = server.connect().await?;
    let mut subscriber = client.subscribe("h").await?;
    let mut sent = HeaderMap::new();
    sent.append("Trace", "abc-123");
    sent.append("Trace", "second value");
    sent.insert("Content-Type", "text/plain; charset=utf-8");
    sent.insert("Long", "x".repeat(3000));
    for body in ["body", ""] {
        client.publish_with_headers("h", sent.clone(), body.into()).await?;
        let message = next(&mut subscriber).await?;
        equal(message.headers.as_ref(), Some(&sent))?;
        equal(message.payload, body)?;
    }
    Ok(())
}

async fn large_payload(server: &mut Server) -> Outcome {
    let (client, other) = (server.connect().await?, server.connect().await?);
    let mut subscriber = other.subscribe("large").await?;
    round_trip(&other).await?;
    equal(client.server_info().max_payload, 1024 * 1024)?;
    let payload: Bytes = std::iter::repeat_with(|| fastrand::u8(..)).take(1024 * 1024).collect();
    for _ in 0..4 {
        client.publish("large", payload.clone()).await?;
    }
    for _ in 0..4 {
        if next(&mut subscriber).await?.payload != payload {
            return Err("payload changed on its way".into());
        }
    }
    Ok(())
}

async fn drain(server: &mut Server) -> Outcome {
    let (publisher, client) = (server.connect().await?, server.connect().await?);
    let mut subscriber = client.subscribe("d").await?;
    round_trip(&client).await?;
    for i in 0..100 {
        publisher.publish("d", i.to_string().into()).await?;
    }
    round_trip(&publisher).await?;
    equal(next(&mut subscriber).await?.payload, "0")?;
    round_trip(&client).await?;
    client.drain().await?;
    let mut got = 1;
    while timeout(WAIT, subscriber.next()).await?.is_some() {
        got += 1;
    }
    equal(got, 100)
}

async fn flush(server: &mut Server) -> Outcome {
    let client = server.connect().await?;
    for _ in 0..50 {
        client.publish("nobody", vec![b'x'; 1000].into()).await?;
        timeout(WAIT, client.flush()).await??;
    }
    Ok(())
}

async fn many_subjects(server: &mut Server) -> Outcome {
    let client = server.connect().await?;
    let mut subscribers = Vec::new();
    for i in 0..2000 {
        subscribers.push(client.subscribe(format!("many.{i}.subject")).await?);
    }
    for i in 0..2000 {
        client.publish(format!("many.{i}.subject"), i.to_string().into()).await?;
    }
    for (i, subscriber) in subscribers.iter_mut().enumerate() {
        equal(next(subscriber).await?.payload, i.to_string())?;
        subscriber.unsubscribe().await?;
    }
    Ok(client.flush().await?)
}

async fn unsubscribe_after(server: &mut Server) -> Outcome {
    let client = server.connect().await?;
    let mut subscriber = client.subscribe("limited").await?;
    subscriber.unsubscribe_after(5).await?;
    for i in 0..20 {
        client.publish("limited", i.to_string().into()).await?;
    }
    for i in 0..5 {
        equal(next(&mut subscriber).await?.payload, i.to_string())?;
    }
    equal(timeout(WAIT, subscriber.next()).await?.is_none(), true)
}

async fn reconnect(server: &mut Server) -> Outcome {
    let (sender, mut connected) = mpsc::unbounded_channel();
    let options = ConnectOptions::new()
        .reconnect_delay_callback(|_| Duration::from_millis(50))
        .event_callback(move |event| {
            if event == Event::Connected {
                let _ = sender.send(());
            }
            async {}
        });
    let client = options.connect(url(server.port)).await?;
    timeout(WAIT, connected.recv()).await?;
    let mut subscriber = client.subscribe("again").await?;
    client.publish("again", "before".into()).await?;
    equal(next(&mut subscriber).await?.payload, "before")?;
    server.restart().await?;
    timeout(WAIT, connected.recv()).await?;
    client.flush().await?;
    client.publish("again", "after".into()).await?;
    equal(next(&mut subscriber).await?.payload, "after")
}

/// A service of three instances that is found, asked, and tells how often; then one of them stops.
async fn services(server: &mut Server) -> Outcome {
    let client = server.connect().await?;
    let mut instances = Vec::new();
    for _ in 0..3 {
        let connection = server.connect().await?;
        let service = connection.service_builder().description("adds one").start("adder", "1.2.3").await?;
        let mut endpoint = service.group("math").endpoint("increment").await?;
        tokio::spawn(async move {
            while let Some(request) = endpoint.next().await {
                let answer = match std::str::from_utf8(&request.message.payload).unwrap_or("").parse::<u64>()
                {
                    Ok(number) => Ok((number + 1).to_string().into()),
                    Err(_) => {
                        Err(async_nats::service::error::Error { code: 400, status: "no number".into() })
                    }
                };
                request.respond(answer).await.expect("connected");
            }
        });
        round_trip(&connection).await?;
        instances.push((connection, service));
    }
    let answers = join_all((0..90).map(|i| client.request("math.increment", i.to_string().into()))).await;
    for (i, answer) in answers.into_iter().enumerate() {
        equal(answer?.payload, (i + 1).to_string())?;
    }
    let refused = client.request("math.increment", "x".into()).await?;
    let header =
        |name: &str| refused.headers.as_ref().and_then(|headers| headers.get(name).map(ToString::to_string));
    let (code, status) = (header("Nats-Service-Error-Code"), header("Nats-Service-Error"));
    equal((code, status), (Some("400".into()), Some("no number".into())))?;

    let mut ids: Vec<String> = Vec::new();
    for (_, service) in &instances {
        ids.push(service.info().await.id);
    }
    ids.sort_unstable();
    for verb in ["PING", "INFO", "STATS"] {
        let mut answered: Vec<String> = ask_all(&client, &format!("$SRV.{verb}.adder"), 3)
            .await?
            .iter()
            .map(|answer| field(answer, "id"))
            .collect();
        answered.sort_unstable();
        equal(&answered, &ids)?;
    }
    let stats = ask_all(&client, "$SRV.STATS.adder", 3).await?;
    let counted =
        |name| stats.iter().map(|answer| field(answer, name).parse::<u64>().unwrap_or(0)).collect::<Vec<_>>();
    equal(counted("num_requests").iter().sum::<u64>(), 91)?;
    equal(counted("num_requests").contains(&0), false)?;
    equal(counted("num_errors").iter().sum::<u64>(), 1)?;

    let (connection, service) = instances.pop().expect("three");
    let gone = format!("$SRV.PING.adder.{}", service.info().await.id);
    equal(client.request(gone.clone(), Bytes::new()).await.is_ok(), true)?;
    service.stop().await?;
    connection.drain().await?;
    for _ in 0..100 {
        // Between its end and that of its subscription it may be asked and not answer.
        let request = Request::new().timeout(Some(Duration::from_millis(200)));
        if client
            .send_request(gone.clone(), request)
            .await
            .is_err_and(|e| e.kind() == RequestErrorKind::NoResponders)
        {
            return equal(ask_all(&client, "$SRV.PING", 2).await?.len(), 2);
        }
    }
    Err("the instance that was stopped still answers".into())
}

/// The answers of so many, as text.
async fn ask_all(client: &Client, subject: &str, count: usize) -> Result<Vec<String>, Failure> {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await?;
    client.publish_with_reply(subject.to_owned(), inbox, Bytes::new()).await?;
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(String::from_utf8(next(&mut answers).await?.payload.to_vec())?);
    }
    Ok(all)
}

/// The first value with that name in an object of JSON: a string without escapes, or a number.
fn field(json: &str, name: &str) -> String {
    let from = json.find(&format!("\"{name}\":")).map_or(json.len(), |at| at + name.len() + 3);
    json[from..].trim_start_matches('"').chars().take_while(|c| !"\",}".contains(*c)).collect()
}

/// Ends with the outcome of the program: each scenario in turn, against the same server.
macro_rules! play {
    ($server:expr, $($scenario:ident)*) => {{
        let mut failed = 0;
        $(match timeout($crate::limit(), $scenario(&mut $server)).await {
            Ok(Ok(())) => println!("ok {}", stringify!($scenario)),
            Ok(Err(error)) => { failed += 1; println!("FAIL {} {error}", stringify!($scenario)); }
            Err(_) => { failed += 1; println!("FAIL {} not done in time", stringify!($scenario)); }
        })*
        failed
    }};
}
use play;

#[tokio::main]
async fn main() -> ExitCode {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = free.local_addr().expect("bound").port();
    drop(free);
    let failed = if std::env::args().nth(1).as_deref() == Some("jetstream") {
        let store = std::env::temp_dir().join(format!("client-{}", std::process::id()));
        let mut server = Server::start(port, Some(store.clone())).await.expect("the server starts");
        let failed = jetstream::scenarios(&mut server).await;
        let _ = server.process.kill().await;
        let _ = std::fs::remove_dir_all(store);
        failed
    } else {
        let mut server = Server::start(port, None).await.expect("the server starts");
        let failed = play!(server, publish_subscribe wildcards queue_groups request_reply no_responders headers
            large_payload drain flush many_subjects unsubscribe_after services reconnect);
        let _ = server.process.kill().await;
        failed
    };
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
