//! What users of async-nats do with JetStream: streams, consumers, key-value and object store.
//!
//! Each scenario has a connection of its own, and nothing left behind by the one before. `OBJECT_MB` says how large the
//! large object is.

use crate::{Failure, Outcome, Server, WAIT, equal, object_mb, play, round_trip, url};
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, PullConsumer, pull, push};
use async_nats::jetstream::kv::{self, Operation};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::object_store::{self, ObjectMetadata};
use async_nats::jetstream::stream::{
    Config, ConsumerLimits, DiscardPolicy, RetentionPolicy, StorageType, Stream,
};
use async_nats::jetstream::{self, AckKind, Context, Message};
use async_nats::{ConnectOptions, HeaderMap};
use futures_util::{StreamExt, TryStreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// How many of them failed.
pub(crate) async fn scenarios(server: &mut Server) -> usize {
    let mut server = server;
    play!(server, streams publishing limits getting purging pull acknowledging ordered push flow_control work_queue
        failing_workers interest consumers account key_value key_value_ttl object_store crash)
}

async fn connect(server: &Server) -> Result<Context, Failure> {
    let options = ConnectOptions::new().reconnect_delay_callback(|_| Duration::from_millis(50));
    let mut js = jetstream::new(options.connect(url(server.port)).await?);
    js.set_timeout(WAIT);
    Ok(js)
}

/// A connection to a server without streams.
async fn alone(server: &Server) -> Result<Context, Failure> {
    let js = connect(server).await?;
    for name in js.stream_names().try_collect::<Vec<_>>().await? {
        js.delete_stream(name).await?;
    }
    Ok(js)
}

/// Holds for an error of the API that has this code.
fn refused<T, E: Display>(result: Result<T, E>, code: u32) -> Outcome {
    match result {
        Ok(_) => Err(format!("no error, wanted {code}").into()),
        Err(error) if error.to_string().contains(&format!("error code {code}")) => Ok(()),
        Err(error) => Err(format!("wanted {code}, got {error}").into()),
    }
}

fn holds(condition: bool, what: impl Into<String>) -> Outcome {
    if condition { Ok(()) } else { Err(what.into().into()) }
}

/// Waits for a state of the server that nothing announces.
async fn until<F: Future<Output = Result<bool, Failure>>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) -> Outcome {
    for _ in 0..WAIT.as_millis() / 10 {
        if condition().await? {
            return Ok(());
        }
        sleep(Duration::from_millis(10)).await;
    }
    Err(format!("never: {what}").into())
}

fn config(name: &str, subjects: &[&str]) -> Config {
    Config {
        name: name.into(),
        subjects: subjects.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

async fn publish(js: &Context, subject: &str, text: &str) -> Result<u64, Failure> {
    Ok(js.publish(subject.to_owned(), text.to_owned().into()).await?.await?.sequence)
}

/// The numbers from 0 on, a few hundred without waiting in between.
async fn fill(js: &Context, subject: &str, count: usize) -> Outcome {
    let mut pending = Vec::new();
    for i in 0..count {
        pending.push(js.publish(subject.to_owned(), i.to_string().into()).await?);
        if pending.len() == 200 || i + 1 == count {
            for acknowledgement in pending.drain(..) {
                acknowledgement.await?;
            }
        }
    }
    Ok(())
}

async fn subjects(stream: &Stream) -> Result<BTreeMap<String, usize>, Failure> {
    Ok(stream.info_with_subjects(">").await?.try_collect().await?)
}

async fn stored(stream: &Stream) -> Result<u64, Failure> {
    Ok(stream.get_info().await?.state.messages)
}

async fn take(
    messages: &mut (impl futures_util::Stream<Item = Result<Message, impl Into<Failure>>> + Unpin),
) -> Result<Message, Failure> {
    timeout(WAIT, messages.next()).await?.ok_or("the messages ended")?.map_err(Into::into)
}

async fn fetch(consumer: &PullConsumer, count: usize, longest: Duration) -> Result<Vec<Message>, Failure> {
    consumer.fetch().max_messages(count).expires(longest).messages().await?.try_collect().await
}

/// The next one, when there is one within that time.
async fn next_within(consumer: &PullConsumer, longest: Duration) -> Result<Option<Message>, Failure> {
    consumer.batch().max_messages(1).expires(longest).messages().await?.next().await.transpose()
}

async fn next(consumer: &PullConsumer) -> Result<Message, Failure> {
    next_within(consumer, WAIT).await?.ok_or_else(|| "a message is missing".into())
}

fn number(message: &Message) -> Result<usize, Failure> {
    Ok(std::str::from_utf8(&message.payload)?.parse()?)
}

fn numbers(messages: &[Message]) -> Result<Vec<usize>, Failure> {
    messages.iter().map(number).collect()
}

fn durable(name: &str) -> pull::Config {
    pull::Config { durable_name: Some(name.into()), ..Default::default() }
}

async fn streams(server: &mut Server) -> Outcome {
    let js = alone(server).await?;
    let wanted =
        Config { max_messages: 1000, metadata: [("k".into(), "v".into())].into(), ..config("S", &["s.>"]) };
    let stream = js.create_stream(wanted.clone()).await?;
    let created = stream.cached_info().config.clone();
    equal(
        (created.max_messages, created.retention, created.storage),
        (1000, RetentionPolicy::Limits, StorageType::File),
    )?;
    equal(created.metadata.get("k").map(String::as_str), Some("v"))?;
    equal(&js.create_stream(wanted.clone()).await?.cached_info().config, &created)?;
    refused(js.create_stream(config("S", &["other"])).await, 10058)?;
    refused(js.create_stream(config("T", &["s.x"])).await, 10065)?;
    let more = Config { subjects: vec!["s.>".into(), "more".into()], ..wanted };
    equal(js.update_stream(&more).await?.config.subjects, ["s.>", "more"])?;
    refused(js.update_stream(Config { storage: StorageType::Memory, ..more }).await, 10052)?;
    for subject in ["s.a", "s.a", "s.b", "more"] {
        publish(&js, subject, "x").await?;
    }
    let counted = [("s.a", 2), ("s.b", 1), ("more", 1)].map(|(subject, count)| (subject.to_owned(), count));
    equal(subjects(&stream).await?, BTreeMap::from(counted))?;
    let state = stream.get_info().await?.state;
    equal((state.messages, state.first_sequence, state.last_sequence, state.subjects_count), (4, 1, 4, 3))?;
    js.create_stream(Config { storage: StorageType::Memory, ..config("M", &["m"]) }).await?;
    equal(js.stream_names().try_collect::<BTreeSet<_>>().await?, ["M", "S"].map(String::from).into())?;
    let listed: BTreeSet<String> = js.streams().map_ok(|info| info.config.name).try_collect().await?;
    equal(listed, ["M", "S"].map(String::from).into())?;
    equal(js.stream_by_subject("s.x").await?, "S")?;
    js.delete_stream("M").await?;
    refused(js.get_stream("M").await, 10059)?;
    refused(js.delete_stream("M").await, 10059)?;
    let nobody = js.publish("m", "".into()).await?.await.expect_err("nobody stores it");
    equal(nobody.kind(), jetstream::context::PublishErrorKind::StreamNotFound)
}

async fn publishing(server: &mut Server) -> Outcome {
    let js = alone(server).await?;
    let stream = js.create_stream(config("S", &["p.>"])).await?;
    let send =
        async |subject: &'static str, message: PublishMessage| js.send_publish(subject, message).await?.await;
    let first = send("p.a", PublishMessage::build().message_id("one")).await?;
    equal((first.stream.as_str(), first.sequence, first.duplicate), ("S", 1, false))?;
    let again = send("p.a", PublishMessage::build().message_id("one")).await?;
    equal((again.sequence, again.duplicate), (1, true))?;
    equal(send("p.a", PublishMessage::build().expected_last_sequence(1)).await?.sequence, 2)?;
    refused(send("p.a", PublishMessage::build().expected_last_sequence(1)).await, 10071)?;
    refused(send("p.b", PublishMessage::build().expected_last_subject_sequence(1)).await, 10071)?;
    refused(send("p.b", PublishMessage::build().expected_last_message_id("other")).await, 10070)?;
    refused(send("p.b", PublishMessage::build().expected_stream("T")).await, 10060)?;
    equal(send("p.b", PublishMessage::build().expected_last_subject_sequence(0)).await?.sequence, 3)?;
    equal(send("p.b", PublishMessage::build().expected_stream("S")).await?.sequence, 4)?;
    fill(&js, "p.many", 2000).await?;
    equal(stored(&stream).await?, 2004)?;
    equal(stream.get_raw_message(2004).await?.payload, "1999")
}

async fn limits(server: &mut Server) -> Outcome {
    let js = alone(server).await?;
    let few = Config { max_messages: 5, max_messages_per_subject: 2, ..config("OLD", &["old.*"]) };
    let old = js.create_stream(few).await?;
    for i in 0..10 {
        publish(&js, &format!("old.{}", i % 2), &i.to_string()).await?;
    }
    let state = old.get_info().await?.state;
    equal((state.messages, state.first_sequence, state.last_sequence), (4, 7, 10))?;
    equal(subjects(&old).await?, [("old.0".to_owned(), 2), ("old.1".to_owned(), 2)].into())?;
    let full = Config {
        max_messages: 1,
        max_message_size: 10,
        discard: DiscardPolicy::New,
        ..config("NEW", &["new"])
    };
    js.create_stream(full).await?;
    publish(&js, "new", "1").await?;
    refused(publish(&js, "new", "2").await, 10077)?;
    refused(publish(&js, "new", "more than ten").await, 10054)?;
    let age = Config { max_age: Duration::from_millis(300), ..config("AGE", &["age"]) };
    let age = js.create_stream(age).await?;
    publish(&js, "age", "").await?;
    until("the message is too old", async || Ok(stored(&age).await? == 0)).await
}

async fn getting(server: &mut Server) -> Outcome {
    let js = alone(server).await?;
    let stream = js.create_stream(Config { allow_direct: true, ..config("S", &["g.>"]) }).await?;
    for (i, subject) in ["g.a", "g.b", "g.a", "g.c"].into_iter().enumerate() {
        let message =
            PublishMessage::build().payload(i.to_string().into()).header("N", i.to_string().as_str());
        js.send_publish(subject, message).await?.await?;
    }
    for direct in [false, true] {
        let second = if direct { stream.direct_get(2).await? } else { stream.get_raw_message(2).await? };
        equal((second.subject.as_str(), second.sequence, &second.payload[..]), ("g.b", 2, &b"1"[..]))?;
        equal(second.headers.get("N").map(ToString::to_string), Some("1".into()))?;
    }
    equal(stream.get_last_raw_message_by_subject("g.a").await?.sequence, 3)?;
    equal(stream.raw_message_builder().sequence(2).next_by_subject("g.a").send().await?.sequence, 3)?;
    equal(stream.direct_get_last_for_subject("g.a").await?.sequence, 3)?;
    equal(stream.direct_get_next_for_subject("g.a", Some(2)).await?.sequence, 3)?;
    equal(stream.direct_get_first_for_subject("g.a").await?.sequence, 1)?;
    let none = jetstream::stream::RawMessageErrorKind::NoMessageFound;
    equal(stream.get_raw_message(9).await.expect_err("there are four").kind(), none)?;
    let none = jetstream::stream::DirectGetErrorKind::NotFound;
    equal(stream.direct_get(9).await.expect_err("there are four").kind(), none.clone())?;
    equal(stream.direct_get_last_for_subject("g.none").await.expect_err("there are three").kind(), none)?;
    equal(stream.delete_message(2).await?, true)?;
    refused(stream.delete_message(2).await, 10043)?;
    let state = stream.info_builder().with_deleted(true).fetch().await?.info.state;
    equal((state.messages, state.deleted), (3, Some(vec![2])))
}

async fn purging(server: &mut Server) -> Outcome {
    let js = alone(server).await?;
    let stream = js.create_stream(config("S", &["g.*"])).await?;
    for i in 0..30 {
        publish(&js, &format!("g.{}", i % 3), &i.to_string()).await?;
    }
    equal(stream.purge().filter("g.1").await?.purged, 10)?;
    equal(subjects(&stream).await?, [("g.0".to_owned(), 10), ("g.2".to_owned(), 10)].into())?;
    equal(stream.purge().filter("g.0").keep(3).await?.purged, 7)?;
    equal(stream.purge().sequence(29).await?.purged, 12)?;
    equal(stream.purge().await?.purged, 1)?;
    let state = stream.get_info().await?.state;
    equal((state.messages, state.first_sequence, state.last_sequence), (0, 31, 30))?;
    equal(publish(&js, "g.0", "").await?, 31)
}

async fn pull(server: &mut Server) -> Outcome {
    let js = alone(server).await?;
    let stream = js.create_stream(config("S", &["w.>"])).await?;
    fill(&js, "w.a", 300).await?;
    let consumer = stream.create_consumer(durable("D")).await?;
    let mut got = Vec::new();
    while got.len() < 100 {
        for message in fetch(&consumer, 20, WAIT).await? {
            message.ack().await?;
            got.push(message);
        }
    }
    let info = got[41].info()?;
    equal((info.stream, info.consumer, info.delivered), ("S", "D", 1))?;
    equal((info.stream_sequence, info.consumer_sequence, info.pending), (42, 42, 258))?;
    // As they come, with requests for more of them in between.
    let mut messages = consumer.stream().max_messages_per_batch(30).messages().await?;
    while got.len() < 200 {
        let message = take(&mut messages).await?;
        message.ack().await?;
        got.push(message);
    }
    drop(messages);
    equal(numbers(&got)?, (0..200).collect::<Vec<_>>())?;
    let none = pull::Config { ack_policy: AckPolicy::None, ..durable("E") };
    let other = stream.create_consumer(none.clone()).await?;
    let mut messages = other.sequence(50)?;
    let mut all = Vec::new();
    for _ in 0..6 {
        let batch = timeout(WAIT, messages.next()).await?.ok_or("the batches ended")??;
        all.extend(batch.try_collect::<Vec<_>>().await?);
    }
    equal(numbers(&all)?, (0..300).collect::<Vec<_>>())?;
    let limited = stream.create_consumer(pull::Config { durable_name: Some("F".into()), ..none }).await?;
    let mut some = limited.batch().max_bytes(1000).expires(Duration::from_secs(1)).messages().await?;
    let mut count = 0;
    while let Some(Ok(_)) = some.next().await {
        count += 1;
    }
    holds((5..40).contains(&count), format!("{count} messages in 1000 bytes"))?;
    // One that waits gets what comes.
    let empty = stream.create_consumer(pull::Config { filter_subject: "w.b".into(), ..durable("G") }).await?;
    equal(fetch(&empty, 1, Duration::from_millis(200)).await?.len(), 0)?;
    let waiting = {
        let empty = empty.clone();
        tokio::spawn(async move { next(&empty).await })
    };
    until("a request waits", async || Ok(empty.get_info().await?.num_waiting == 1)).await?;
    publish(&js, "w.b", "7").await?;
    equal(number(&waiting.await??)?, 7)
}

async fn acknowledging(server: &mut Server) -> Outcome {
    let js = alone(server).await?;
    let stream = js.create_stream(config("S", &["a"])).await?;
    fill(&js, "a", 5).await?;
    // One at a time, so that what comes next is what came back.
    let one =
        pull::Config { ack_wait: Duration::from_secs(1), max_deliver: 3, max_ack_pending: 1, ..durable("D") };
    let consumer = stream.create_consumer(one).await?;
    let take = async |sequence: u64, delivered: i64| -> Result<Message, Failure> {
        let message = next(&consumer).await?;
        let info = message.info()?;
        equal((info.stream_sequence, info.delivered), (sequence, delivered))?;
        Ok(message)
    };
    take(1, 1).await?.double_ack().await?;
    equal(consumer.get_info().await?.ack_floor.stream_sequence, 1)?;
    // Refused: it comes at once, then after a delay, and then no more.
    take(2, 1).await?.ack_with(AckKind::Nak(None)).await?;
    take(2, 2).await?.ack_with(AckKind::Nak(Some(Duration::from_millis(200)))).await?;
    take(2, 3).await?.ack_with(AckKind::Nak(None)).await?;
    // Not acknowledged in time: it comes again. Still worked on: it does not.
    take(3, 1).await?;
    let third = take(3, 2).await?;
    let waiting = {
        let consumer = consumer.clone();
        tokio::spawn(async move { next_within(&consumer, Duration::from_millis(1500)).await })
    };
    for _ in 0..8 {
        sleep(Duration::from_millis(200)).await;
        third.ack_with(AckKind::Progress).await?;
    }
    equal(waiting.await??.is_none(), true)?;
    third.double_ack().await?;
    take(4, 1).await?.ack_with(AckKind::Term).await?;
    take(5, 1).await?.double_ack().await?;
    let info = consumer.get_info().await?;
    equal((info.num_ack_pending, info.num_pending, info.ack_floor.stream_sequence), (0, 0, 5))?;
    equal(next_within(&consumer, Duration::from_millis(1200)).await?.is_none(), true)
}

async fn ordered(server: &mut Server) -> Outcome {
    let js = alone(server).await?;
    let stream = js.create_stream(config("S", &["o.*"])).await?;
    fill(&js, "o.a", 3000).await?;
    let named = pull::OrderedConfig { name: Some("PULLED".into()), ..Default::default() };
    let mut pulled = stream.create_consumer(named).await?.messages().await?;
    let to = push::OrderedConfig { deliver_subject: js.client().new_inbox(), ..Default::default() };
    let mut pushed = stream.create_consumer(to).await?.messages().await?;
    for i in 0..3000 {
        equal(number(&take(&mut pulled).await?)?, i)?;
        equal(number(&take(&mut pushed).await?)?, i)?;
    }
    publish(&js, "o.a", "3000").await?;
    equal(number(&take(&mut pushed).await?)?, 3000)?;
    drop(pushed);
    // The consumer goes: another one goes on behind the last message.
    for name in stream.consumer_names().try_collect::<Vec<_>>().await? {
        stream.delete_consumer(&name).await?;
    }
    equal(number(&take(&mut pulled).await?)?, 3000)?;
    let last = pull::OrderedConfig { deliver_policy: DeliverPolicy::Last, ..Default::default() };
    let mut last = stream.create_consumer(last).await?.messages().await?;
    equal(number(&take(&mut last).await?)?, 3000)
}

async fn push(server: &mut Server) -> Outcome {
    let js = alone(server).await?;
    let stream = js.create_stream(config("S", &["q"])).await?;
    let group = push::Config {
        durable_name: Some("D".into()),
        deliver_subject: "to.workers".into(),
        deliver_group: Some("workers".into()),
        ..Default::default()
    };
    let group = stream.create_consumer(group).await?;
    let (sender, mut arrived) = mpsc::unbounded_channel();
    let mut members = Vec::new();
    for member in 0..3 {
        let own = connect(server).await?;
        let consumer: Consumer<push::Config> = own.get_consumer_from_stream("D", "S").await?;
        let mut messages = consumer.messages().await?;
        round_trip(&own.client()).await?;
        let sender = sender.clone();
        members.push(tokio::spawn(async move {
            let _connected = own;
            while let Some(Ok(message)) = messages.next().await {
                message.ack().await.expect("connected");
                let _ = sender.send((member, number(&message).expect("a number")));
            }
        }));
    }
    fill(&js, "q", 300).await?;
    let (mut per_member, mut all) = ([0; 3], Vec::new());
    for _ in 0..300 {
        let (member, number) = timeout(WAIT, arrived.recv()).await?.ok_or("the members ended")?;
        per_member[member] += 1;
        all.push(number);
    }
    all.sort_unstable();
    equal(all, (0..300).collect::<Vec<_>>())?;
    equal(per_member.contains(&0), false)?;
    until("all acknowledged", async || Ok(group.get_info().await?.ack_floor.stream_sequence == 300)).await?;
    equal(group.get_info().await?.push_bound, true)?;
    for member in members {
        member.abort();
    }
    until("no longer bound", async || Ok(!group.get_info().await?.push_bound)).await
}

/// More than a consumer is given before it has said that it keeps up.
async fn flow_control(server: &mut Server) -> Outcome {
    const COUNT: usize = 2000;
    let js = alone(server).await?;
    let stream = js.create_stream(config("S", &["f"])).await?;
    let mut pending = Vec::new();
    for i in 0..COUNT {
        let mut payload = vec![b'x'; 8 * 1024];
        payload[..4].copy_from_slice(&(i as u32).to_le_bytes());
        pending.push(js.publish("f", payload.into()).await?);
        if pending.len() == 200 {
            for acknowledgement in pending.drain(..) {
                acknowledgement.await?;
            }
        }
    }
    let watching = connect(server).await?;
    let mut answers = watching.client().subscribe("$JS.FC.>").await?;
    round_trip(&watching.client()).await?;
    let held_back = push::Config {
        durable_name: Some("D".into()),
        deliver_subject: "to.me".into(),
        ack_policy: AckPolicy::All,
        max_ack_pending: -1,
        flow_control: true,
        idle_heartbeat: Duration::from_millis(500),
        ..Default::default()
    };
    let consumer = stream.create_consumer(held_back).await?;
    let mut messages = consumer.messages().await?;
    for i in 0..COUNT {
        let message = take(&mut messages).await?;
        equal(message.payload.len(), 8 * 1024)?;
        equal(&message.payload[..4], &(i as u32).to_le_bytes()[..])?;
        if i + 1 == COUNT {
            message.double_ack().await?;
        }
    }
    // The library answers what asks it whether it keeps up.
    timeout(WAIT, answers.next()).await?.ok_or("no flow control")?;
    equal(consumer.get_info().await?.ack_floor.stream_sequence, COUNT as u64)
}

fn jobs() -> Config {
    Config { retention: RetentionPolicy::WorkQueue, ..config("S", &["jobs.*"]) }
}

async fn work_queue(server: &mut Server) -> Outcome {
    let js = alone(server).await?;
    let stream = js.create_stream(jobs()).await?;
    fill(&js, "jobs.a", 200).await?;
    let consumer =
        stream.create_consumer(pull::Config { filter_subject: "jobs.*".into(), ..durable("D") }).await?;
    let mut done = Vec::new();
    while done.len() < 200 {
        for message in fetch(&consumer, 30, WAIT).await? {
            message.double_ack().await?;
            done.push(message);
        }
    }
    equal(numbers(&done)?, (0..200).collect::<Vec<_>>())?;
    equal(stored(&stream).await?, 0)?;
    let other = pull::Config { filter_subject: "jobs.a".into(), ..durable("E") };
    refused(stream.create_consumer(other.clone()).await, 10100)?;
    refused(stream.create_consumer(pull::Config { ack_policy: AckPolicy::None, ..other }).await, 10084)
}

/// Twenty workers, of which five die with jobs in hand: another one gets those, and no job is lost.
async fn failing_workers(server: &mut Server) -> Outcome {
    const JOBS: usize = 1000;
    let js = alone(server).await?;
    let stream = js.create_stream(jobs()).await?;
    fill(&js, "jobs.a", JOBS).await?;
    let consumer =
        stream.create_consumer(pull::Config { ack_wait: Duration::from_secs(2), ..durable("D") }).await?;
    let (sender, mut confirmed) = mpsc::unbounded_channel();
    let abandoned = Arc::new(AtomicUsize::new(0));
    let mut workers = Vec::new();
    for worker in 0..20 {
        let own = connect(server).await?;
        let consumer: PullConsumer = own.get_consumer_from_stream("D", "S").await?;
        let (sender, abandoned) = (sender.clone(), abandoned.clone());
        let mut life = if worker < 5 { fastrand::usize(1..30) } else { usize::MAX };
        workers.push(tokio::spawn(async move {
            let _connected = own;
            loop {
                let batch = fetch(&consumer, 5, Duration::from_millis(500)).await.expect("connected");
                for (i, message) in batch.iter().enumerate() {
                    life -= 1;
                    if life == 0 {
                        abandoned.fetch_add(batch.len() - i, Ordering::Relaxed);
                        return;
                    }
                    message.double_ack().await.expect("connected");
                    let _ = sender.send(number(message).expect("a number"));
                }
            }
        }));
    }
    let mut done = BTreeSet::new();
    while done.len() < JOBS {
        done.insert(timeout(WAIT, confirmed.recv()).await?.ok_or("the workers ended")?);
    }
    equal(done, (0..JOBS).collect())?;
    holds(abandoned.load(Ordering::Relaxed) >= 5, "five died with a job in hand")?;
    equal(stored(&stream).await?, 0)?;
    equal(consumer.get_info().await?.num_ack_pending, 0)?;
    workers.into_iter().for_each(|worker| worker.abort());
    Ok(())
}

async fn interest(server: &mut Server) -> Outcome {
    let js = alone(server).await?;
    let stream =
        js.create_stream(Config { retention: RetentionPolicy::Interest, ..config("S", &["i"]) }).await?;
    equal(publish(&js, "i", "nobody").await?, 1)?;
    equal(stored(&stream).await?, 0)?;
    let (one, two) =
        (stream.create_consumer(durable("ONE")).await?, stream.create_consumer(durable("TWO")).await?);
    fill(&js, "i", 10).await?;
    for message in fetch(&one, 10, WAIT).await? {
        message.double_ack().await?;
    }
    equal(stored(&stream).await?, 10)?;
    for message in &fetch(&two, 10, WAIT).await?[..4] {
        message.double_ack().await?;
    }
    equal(stored(&stream).await?, 6)?;
    stream.delete_consumer("TWO").await?;
    until("nobody is interested", async || Ok(stored(&stream).await? == 0)).await
}

async fn consumers(server: &mut Server) -> Outcome {
    let js = alone(server).await?;
    let stream = js.create_stream(config("S", &["c.>"])).await?;
    for i in 0..6 {
        publish(&js, &format!("c.{}", i % 2), &i.to_string()).await?;
    }
    let metadata = [("k".to_owned(), "v".to_owned())].into();
    let odd = pull::Config { filter_subject: "c.1".into(), metadata, ..durable("D") };
    let consumer = stream.create_consumer(odd.clone()).await?;
    let created = consumer.cached_info();
    equal((created.name.as_str(), created.stream_name.as_str(), created.num_pending), ("D", "S", 3))?;
    equal(&consumer.get_info().await?.config, &created.config)?;
    let both = pull::Config {
        name: Some("E".into()),
        filter_subjects: vec!["c.0".into(), "c.1".into()],
        deliver_policy: DeliverPolicy::LastPerSubject,
        ..Default::default()
    };
    stream.create_consumer(both).await?;
    let listed = stream.consumers().map_ok(|info| (info.name, info.num_pending));
    equal(listed.try_collect::<BTreeMap<_, _>>().await?, [("D".to_owned(), 3), ("E".to_owned(), 2)].into())?;
    let changed = pull::Config { description: Some("changed".into()), ..odd.clone() };
    equal(stream.create_consumer_strict(changed.clone()).await.is_err(), true)?;
    let updated = stream.update_consumer(changed).await?;
    equal(updated.cached_info().config.description.as_deref(), Some("changed"))?;
    equal(stream.update_consumer(durable("NONE")).await.is_err(), true)?;
    refused(stream.create_consumer(pull::Config { deliver_policy: DeliverPolicy::New, ..odd }).await, 10012)?;
    // Not with consumers that do not keep to it.
    let limits = ConsumerLimits { max_ack_pending: 10, inactive_threshold: Duration::from_secs(3600) };
    let limited = Config { consumer_limits: Some(limits), ..config("S", &["c.>"]) };
    refused(js.update_stream(limited).await, 10069)?;
    for (deliver_policy, first) in [
        (DeliverPolicy::Last, 5),
        (DeliverPolicy::ByStartSequence { start_sequence: 3 }, 2),
        (DeliverPolicy::LastPerSubject, 4),
        (DeliverPolicy::All, 0),
    ] {
        let policy = pull::Config { deliver_policy, filter_subject: "c.>".into(), ..Default::default() };
        equal(number(&next(&stream.create_consumer(policy).await?).await?)?, first)?;
    }
    let bare = pull::Config { headers_only: true, ..Default::default() };
    let bare = next(&stream.create_consumer(bare).await?).await?;
    equal(bare.payload.len(), 0)?;
    equal(
        bare.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Size")).map(ToString::to_string),
        Some("1".into()),
    )?;

    let later = created.created + Duration::from_secs(3600);
    equal(stream.pause_consumer("D", later).await?.paused, true)?;
    equal(consumer.get_info().await?.paused, true)?;
    equal(fetch(&consumer, 1, Duration::from_millis(300)).await?.len(), 0)?;
    equal(stream.resume_consumer("D").await?.paused, false)?;
    equal(numbers(&fetch(&consumer, 3, WAIT).await?)?, [1, 3, 5])?;
    equal(stream.reset_consumer("D", Some(4)).await?.reset_seq, 4)?;
    equal(numbers(&fetch(&consumer, 2, WAIT).await?)?, [3, 5])?;
    stream.delete_consumer("D").await?;
    refused(stream.delete_consumer("D").await, 10014)?;
    equal(stream.consumer_info("D").await.is_err(), true)?;
    refused(js.create_consumer_on_stream(durable("D"), "NONE").await, 10059)?;
    // Without anybody who asks, it goes by itself.
    let brief = pull::Config {
        inactive_threshold: Duration::from_millis(200),
        name: Some("BRIEF".into()),
        ..Default::default()
    };
    stream.create_consumer(brief).await?;
    until("an idle consumer goes", async || {
        Ok(!stream.consumer_names().try_collect::<Vec<_>>().await?.contains(&"BRIEF".to_owned()))
    })
    .await
}

async fn account(server: &mut Server) -> Outcome {
    let js = alone(server).await?;
    let before = js.query_account().await?;
    let stream = js.create_stream(config("F", &["f"])).await?;
    js.create_stream(Config { storage: StorageType::Memory, ..config("M", &["m"]) }).await?;
    stream.create_consumer(durable("D")).await?;
    publish(&js, "f", &"x".repeat(1000)).await?;
    publish(&js, "m", &"x".repeat(2000)).await?;
    let info = js.query_account().await?;
    equal(
        (info.streams, info.consumers, info.limits.max_streams, info.limits.max_consumers),
        (2, 1, None, None),
    )?;
    holds(info.storage >= 1000 && info.memory >= 2000, format!("{info:?}"))?;
    holds(info.requests.total > before.requests.total, format!("{info:?}"))?;
    refused(js.get_stream("NONE").await, 10059)?;
    equal(js.query_account().await?.requests.errors, info.requests.errors + 1)
}

async fn key_value(server: &mut Server) -> Outcome {
    let js = alone(server).await?;
    equal(js.get_key_value("NONE").await.is_err(), true)?;
    let kv = js.create_key_value(kv::Config { bucket: "K".into(), history: 5, ..Default::default() }).await?;
    for (i, (key, value)) in [("a", "1"), ("a", "2"), ("b.c", "3")].into_iter().enumerate() {
        equal(kv.put(key, value.into()).await?, i as u64 + 1)?;
    }
    let entry = kv.entry("a").await?.ok_or("no entry")?;
    equal(
        (entry.bucket.as_str(), entry.key.as_str(), &entry.value[..], entry.revision),
        ("K", "a", &b"2"[..], 2),
    )?;
    equal(kv.entry_for_revision("a", 1).await?.ok_or("no entry")?.value, "1")?;
    equal(kv.update("a", "4".into(), 2).await?, 4)?;
    let wrong = kv.update("a", "5".into(), 2).await.expect_err("it is at 4");
    equal(wrong.kind(), kv::UpdateErrorKind::WrongLastRevision)?;
    equal(
        kv.create("a", "5".into()).await.expect_err("it is there").kind(),
        kv::CreateErrorKind::AlreadyExists,
    )?;
    equal(kv.create("new", "5".into()).await?, 5)?;
    equal(kv.get("none").await?, None)?;

    let mut watch = kv.watch_all_from_revision(1).await?;
    let mut update = async || -> Result<(String, Operation, u64), Failure> {
        let entry = timeout(WAIT, watch.next()).await?.ok_or("the updates ended")??;
        Ok((entry.key, entry.operation, entry.revision))
    };
    for (key, revision) in [("a", 1), ("a", 2), ("b.c", 3), ("a", 4), ("new", 5)] {
        equal(update().await?, (key.to_owned(), Operation::Put, revision))?;
    }
    kv.put("a", "6".into()).await?;
    equal(update().await?, ("a".into(), Operation::Put, 6))?;
    kv.delete_expect_revision("a", Some(6)).await?;
    equal(update().await?, ("a".into(), Operation::Delete, 7))?;
    equal(kv.get("a").await?, None)?;
    let keys: BTreeSet<String> = kv.keys().await?.try_collect().await?;
    equal(keys, ["b.c", "new"].map(String::from).into())?;
    let history: Vec<_> = kv.history("a").await?.map_ok(|entry| entry.value).try_collect().await?;
    equal(history, ["1", "2", "4", "6", ""])?;
    let mut all = kv.watch_from_revision("a", 1).await?;
    for revision in [1, 2, 4, 6, 7] {
        equal(timeout(WAIT, all.next()).await?.ok_or("the updates ended")??.revision, revision)?;
    }
    let mut only = kv.watch("a").await?;
    equal(kv.create("a", "8".into()).await?, 8)?;
    equal(timeout(WAIT, only.next()).await?.ok_or("the updates ended")??.revision, 8)?;
    kv.purge("a").await?;
    let history: Vec<_> =
        kv.history("a").await?.map_ok(|entry| (entry.operation, entry.revision)).try_collect().await?;
    equal(history, [(Operation::Purge, 9)])?;
    let status = js.get_key_value("K").await?.status().await?;
    equal((status.bucket(), status.values(), status.history()), ("K", 3, 5))?;
    js.delete_key_value("K").await?;
    equal(js.get_key_value("K").await.is_err(), true)
}

async fn key_value_ttl(server: &mut Server) -> Outcome {
    let js = alone(server).await?;
    let second = Duration::from_secs(1);
    let aging = kv::Config { bucket: "AGE".into(), max_age: 2 * second, ..Default::default() };
    let aging = js.create_key_value(aging).await?;
    aging.put("a", "1".into()).await?;
    equal(aging.get("a").await?, Some("1".into()))?;
    let each = kv::Config { bucket: "EACH".into(), limit_markers: Some(2 * second), ..Default::default() };
    let each = js.create_key_value(each).await?;
    let mut watch = each.watch("short").await?;
    each.create_with_ttl("short", "1".into(), second).await?;
    each.put("long", "2".into()).await?;
    for operation in [Operation::Put, Operation::Purge] {
        equal(timeout(WAIT, watch.next()).await?.ok_or("the updates ended")??.operation, operation)?;
    }
    let stream = js.get_stream("KV_EACH").await?;
    until("the marker is too old", async || Ok(stored(&stream).await? == 1)).await?;
    equal((each.get("short").await?, each.get("long").await?), (None, Some("2".into())))?;
    until("the entry is too old", async || Ok(aging.get("a").await?.is_none())).await
}

async fn contents(store: &object_store::ObjectStore, name: &str) -> Result<Vec<u8>, Failure> {
    let mut data = Vec::new();
    store.get(name).await?.read_to_end(&mut data).await?;
    Ok(data)
}

async fn object_store(server: &mut Server) -> Outcome {
    let js = alone(server).await?;
    let config = object_store::Config { bucket: "O".into(), ..Default::default() };
    let mut store = js.create_object_store(config).await?;
    let megabytes = object_mb();
    let mut data = vec![0; megabytes * 1024 * 1024];
    fastrand::fill(&mut data);
    let mut headers = HeaderMap::new();
    headers.insert("H", "v");
    let described = Some("large".to_owned());
    let meta = ObjectMetadata {
        name: "large".into(),
        description: described,
        headers: Some(headers),
        ..Default::default()
    };
    let put = store.put(meta, &mut &data[..]).await?;
    equal((put.size, put.chunks, put.bucket.as_str()), (data.len(), 8 * megabytes, "O"))?;
    // Reading it also checks its digest.
    holds(contents(&store, "large").await? == data, "the object changed on its way")?;
    let info = store.info("large").await?;
    equal((info.description.as_deref(), info.digest), (Some("large"), put.digest))?;
    store.put("small", &mut &b"1"[..]).await?;
    store.put("small", &mut &b"22"[..]).await?;
    equal(contents(&store, "small").await?, b"22")?;
    let names: BTreeSet<String> = store.list().await?.map_ok(|info| info.name).try_collect().await?;
    equal(names, ["large", "small"].map(String::from).into())?;
    let mut watch = store.watch_with_history().await?;
    let mut update = async || -> Result<(String, bool), Failure> {
        let info = timeout(WAIT, watch.next()).await?.ok_or("the updates ended")??;
        Ok((info.name, info.deleted))
    };
    equal((update().await?, update().await?), (("large".into(), false), ("small".into(), false)))?;
    store.put("empty", &mut &b""[..]).await?;
    equal(update().await?, ("empty".into(), false))?;
    store.delete("large").await?;
    equal(update().await?, ("large".into(), true))?;
    let gone = store.get("large").await.err().ok_or("it is still there")?;
    equal(gone.kind(), object_store::GetErrorKind::NotFound)?;
    store.add_link("to", &store.info("small").await?).await?;
    equal(contents(&store, "to").await?, b"22")?;
    let chunks = js.get_stream("OBJ_O").await?.get_info().await?.state.bytes;
    holds(chunks < 10_000, format!("the chunks are still there: {chunks} bytes"))?;
    store.seal().await?;
    refused(js.publish("$O.O.C.late", "1".into()).await?.await, 10109)?;
    js.delete_object_store("O").await?;
    equal(js.get_object_store("O").await.is_err(), true)
}

async fn crash(server: &mut Server) -> Outcome {
    let js = alone(server).await?;
    let stream = js.create_stream(config("S", &["r"])).await?;
    fill(&js, "r", 500).await?;
    let late = pull::Config { ack_wait: Duration::from_secs(10), ..durable("D") };
    let consumer = stream.create_consumer(late).await?;
    let mut confirmed = BTreeSet::new();
    for message in fetch(&consumer, 50, WAIT).await? {
        message.double_ack().await?;
        confirmed.insert(number(&message)?);
    }
    equal(numbers(&fetch(&consumer, 5, WAIT).await?)?, [50, 51, 52, 53, 54])?;
    server.restart().await?;
    until("connected again", async || Ok(stream.get_info().await.is_ok())).await?;
    equal(stored(&stream).await?, 500)?;
    // How far nats-server has written the position is a matter of moments; what was not confirmed comes in any case.
    while confirmed.len() < 500 {
        for message in fetch(&consumer, 100, Duration::from_secs(15)).await? {
            message.double_ack().await?;
            confirmed.insert(number(&message)?);
        }
    }
    equal(confirmed, (0..500).collect())
}
