"""What users of JetStream do with nats-py, against the server binary named by SERVER_BIN.

Starts and stops that binary itself, with a store of its own. Prints `ok NAME` or `FAIL NAME reason` for each scenario.
OBJECT_MB says how large the large object is.
"""

import asyncio
import datetime
import io
import os
import random
import sys
import tempfile
from subprocess import Popen

import nats
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import api
from nats.js.errors import (
    APIError,
    BucketNotFoundError,
    KeyNotFoundError,
    KeyWrongLastSequenceError,
    NotFoundError,
    NoStreamResponseError,
    ObjectNotFoundError,
)

from app import WAIT, Server, equal, expect, play


class Refused:
    """Holds when its block ends with the error of the API that has this code."""

    def __init__(self, code):
        self.code = code

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        expect(error is not None, f"no error, wanted {self.code}")
        if isinstance(error, APIError):
            equal(error.err_code, self.code)
            return True
        return False


class Raises:
    """Holds when its block ends with an exception of this class."""

    def __init__(self, kind):
        self.kind = kind

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        expect(error is not None, f"no error, wanted {self.kind.__name__}")
        return isinstance(error, self.kind)


async def until(condition, what):
    """Waits for a state of the server that nothing announces."""
    for _ in range(WAIT * 100):
        if await condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"never: {what}")


async def fill(js, subject, count):
    for future in [await js.publish_async(subject, str(i).encode()) for i in range(count)]:
        await asyncio.wait_for(future, WAIT)


def bodies(messages):
    return [int(message.data) for message in messages]


async def streams(nc):
    js = nc.jetstream(timeout=WAIT)
    created = await js.add_stream(name="S", subjects=["s.>"], max_msgs=1000, description="a stream", metadata={"k": "v"})
    equal((created.config.name, created.config.subjects, created.config.max_msgs), ("S", ["s.>"], 1000))
    equal((created.config.retention, created.config.storage), ("limits", "file"))
    equal(created.config.metadata["k"], "v")
    same = await js.add_stream(created.config)
    equal(same.config, created.config)
    with Refused(10058):
        await js.add_stream(name="S", subjects=["other"])
    with Refused(10065):
        await js.add_stream(name="T", subjects=["s.x"])
    changed = await js.update_stream(created.config, subjects=["s.>", "more"])
    equal(changed.config.subjects, ["s.>", "more"])
    with Refused(10052):
        await js.update_stream(created.config, storage="memory")
    for subject in ["s.a", "s.a", "s.b", "more"]:
        await js.publish(subject, b"x")
    info = await js.stream_info("S", subjects_filter=">")
    equal(info.state.subjects, {"s.a": 2, "s.b": 1, "more": 1})
    equal((info.state.messages, info.state.first_seq, info.state.last_seq), (4, 1, 4))
    equal((await js.stream_info("S", subjects_filter="s.b")).state.subjects, {"s.b": 1})
    await js.add_stream(name="M", subjects=["m"], storage="memory")
    equal(sorted(info.config.name for info in await js.streams_info()), ["M", "S"])
    equal(sorted(info.config.name for info in await js.streams_info_iterator()), ["M", "S"])
    equal(await js.find_stream_name_by_subject("m"), "M")
    expect(await js.delete_stream("M"), "M is not deleted")
    with Refused(10059):
        await js.stream_info("M")
    with Refused(10059):
        await js.delete_stream("M")
    with Raises(NoStreamResponseError):
        await js.publish("m", b"")


async def publishing(nc):
    js = nc.jetstream(timeout=WAIT)
    await js.add_stream(name="S", subjects=["p.>"])
    first = await js.publish("p.a", b"1", headers={"Nats-Msg-Id": "one"})
    equal((first.stream, first.seq, first.duplicate), ("S", 1, None))
    again = await js.publish("p.a", b"1", headers={"Nats-Msg-Id": "one"})
    equal((again.seq, again.duplicate), (1, True))
    equal((await js.publish("p.a", b"2", headers={"Nats-Expected-Last-Sequence": "1"})).seq, 2)
    with Refused(10071):
        await js.publish("p.a", b"3", headers={"Nats-Expected-Last-Sequence": "1"})
    with Refused(10071):
        await js.publish("p.b", b"3", headers={"Nats-Expected-Last-Subject-Sequence": "1"})
    equal((await js.publish("p.b", b"3", headers={"Nats-Expected-Last-Subject-Sequence": "0"})).seq, 3)
    with Refused(10070):
        await js.publish("p.b", b"4", headers={"Nats-Expected-Last-Msg-Id": "other"})
    with Refused(10060):
        await js.publish("p.b", b"4", stream="T")
    equal((await js.publish("p.b", b"4", stream="S")).seq, 4)
    futures = [await js.publish_async("p.many", str(i).encode()) for i in range(2000)]
    equal([(await asyncio.wait_for(future, WAIT)).seq for future in futures], list(range(5, 2005)))
    await asyncio.wait_for(js.publish_async_completed(), WAIT)
    equal(js.publish_async_pending(), 0)
    equal((await js.stream_info("S")).state.messages, 2004)


async def limits(nc):
    js = nc.jetstream(timeout=WAIT)
    await js.add_stream(name="OLD", subjects=["old.*"], max_msgs=5, max_msgs_per_subject=2)
    for i in range(10):
        await js.publish(f"old.{i % 2}", str(i).encode())
    state = (await js.stream_info("OLD", subjects_filter=">")).state
    equal((state.messages, state.first_seq, state.last_seq), (4, 7, 10))
    equal(state.subjects, {"old.0": 2, "old.1": 2})
    await js.add_stream(name="NEW", subjects=["new"], max_msgs=1, discard="new", max_msg_size=10)
    await js.publish("new", b"1")
    with Refused(10077):
        await js.publish("new", b"2")
    with Refused(10054):
        await js.publish("new", b"x" * 11)
    await js.add_stream(name="AGE", subjects=["age"], max_age=0.3)
    await js.publish("age", b"old")

    async def gone():
        return (await js.stream_info("AGE")).state.messages == 0
    await until(gone, "the message is too old")


async def getting(nc):
    js = nc.jetstream(timeout=WAIT)
    await js.add_stream(name="S", subjects=["g.>"], allow_direct=True)
    for i, subject in enumerate(["g.a", "g.b", "g.a", "g.c"]):
        await js.publish(subject, str(i).encode(), headers={"N": str(i)})
    for direct in [False, True]:
        message = await js.get_msg("S", seq=2, direct=direct)
        equal((message.subject, message.seq, message.data, message.headers["N"]), ("g.b", 2, b"1", "1"))
        message = await js.get_msg("S", subject="g.a", direct=direct)
        equal((message.seq, message.data), (3, b"2"))
        message = await js.get_msg("S", seq=2, subject="g.a", next=True, direct=direct)
        equal((message.seq, message.data), (3, b"2"))
        with Raises(NotFoundError):
            await js.get_msg("S", seq=9, direct=direct)
        with Raises(NotFoundError):
            await js.get_msg("S", subject="g.none", direct=direct)
    equal((await js.get_last_msg("S", "g.>")).seq, 4)
    expect(await js.delete_msg("S", 2), "2 is not deleted")
    with Refused(10037):
        await js.get_msg("S", seq=2)
    with Refused(10043):
        await js.delete_msg("S", 2)
    info = await js.stream_info("S")
    equal((info.state.messages, info.state.num_deleted), (3, 1))


async def purging(nc):
    js = nc.jetstream(timeout=WAIT)
    await js.add_stream(name="S", subjects=["g.*"])
    for i in range(30):
        await js.publish(f"g.{i % 3}", str(i).encode())
    expect(await js.purge_stream("S", subject="g.1"), "not purged")
    state = (await js.stream_info("S", subjects_filter=">")).state
    equal((state.messages, state.subjects), (20, {"g.0": 10, "g.2": 10}))
    await js.purge_stream("S", subject="g.0", keep=3)
    equal((await js.stream_info("S", subjects_filter=">")).state.subjects, {"g.0": 3, "g.2": 10})
    await js.purge_stream("S", seq=29)
    state = (await js.stream_info("S")).state
    equal((state.messages, state.first_seq, state.last_seq), (1, 30, 30))
    await js.purge_stream("S")
    state = (await js.stream_info("S")).state
    equal((state.messages, state.first_seq, state.last_seq), (0, 31, 30))
    equal((await js.publish("g.0", b"")).seq, 31)


async def pull(nc):
    js = nc.jetstream(timeout=WAIT)
    await js.add_stream(name="S", subjects=["w.>"])
    await fill(js, "w.a", 100)
    sub = await js.pull_subscribe("w.>", durable="D", config=api.ConsumerConfig(ack_wait=WAIT))
    got = []
    while len(got) < 100:
        for message in await sub.fetch(7, timeout=WAIT):
            got.append(message)
            await message.ack()
    equal(bodies(got), list(range(100)))
    meta = got[41].metadata
    equal((meta.stream, meta.consumer, meta.num_delivered), ("S", "D", 1))
    equal((meta.sequence.stream, meta.sequence.consumer, meta.num_pending), (42, 42, 58))

    async def all_acknowledged():
        info = await sub.consumer_info()
        return info.ack_floor.stream_seq == 100 and info.num_ack_pending == 0
    await until(all_acknowledged, "all acknowledged")
    with Raises(NatsTimeoutError):
        await sub.fetch(1, timeout=0.2)
    with Raises(NatsTimeoutError):
        await sub.fetch(5, timeout=0.3, heartbeat=0.1)
    # One that waits gets what comes.
    waiting = asyncio.create_task(sub.fetch(1, timeout=WAIT))

    async def waits():
        return (await sub.consumer_info()).num_waiting == 1
    await until(waits, "a request waits")
    await js.publish("w.b", b"100")
    equal(bodies(await waiting), [100])


async def acknowledging(nc):
    js = nc.jetstream(timeout=WAIT)
    await js.add_stream(name="S", subjects=["a"])
    await fill(js, "a", 5)
    # One at a time, so that what comes next is what came back.
    config = api.ConsumerConfig(ack_wait=1, max_deliver=3, max_ack_pending=1)
    sub = await js.pull_subscribe("a", durable="D", config=config)

    async def take(sequence, delivered):
        message = (await sub.fetch(1, timeout=WAIT))[0]
        equal((message.metadata.sequence.stream, message.metadata.num_delivered), (sequence, delivered))
        return message
    await (await take(1, 1)).ack_sync(timeout=WAIT)
    equal((await sub.consumer_info()).ack_floor.stream_seq, 1)

    # Refused: it comes at once, then after a delay, and then no more.
    await (await take(2, 1)).nak()
    await (await take(2, 2)).nak(delay=0.2)
    await (await take(2, 3)).nak()

    # Not acknowledged in time: it comes again. Still worked on: it does not.
    await take(3, 1)
    third = await take(3, 2)
    # One is here, and what came too often still counts.
    equal((await sub.consumer_info()).num_redelivered, 2)
    waiting = asyncio.create_task(sub.fetch(1, timeout=1.5))
    for _ in range(8):
        await asyncio.sleep(0.2)
        await third.in_progress()
    with Raises(NatsTimeoutError):
        await waiting
    await third.ack_sync(timeout=WAIT)
    await (await take(4, 1)).term()
    await (await take(5, 1)).ack_sync(timeout=WAIT)
    info = await sub.consumer_info()
    equal((info.num_ack_pending, info.num_pending, info.ack_floor.stream_seq), (0, 0, 5))
    with Raises(NatsTimeoutError):
        await sub.fetch(1, timeout=1.2)


async def ordered(nc):
    js = nc.jetstream(timeout=WAIT)
    await js.add_stream(name="S", subjects=["o"])
    await fill(js, "o", 3000)
    sub = await js.subscribe("o", ordered_consumer=True)
    equal([int((await sub.next_msg(WAIT)).data) for _ in range(3000)], list(range(3000)))
    await js.publish("o", b"3000")
    equal((await sub.next_msg(WAIT)).data, b"3000")
    # The consumer goes: another one goes on behind the last message.
    sub = await js.subscribe("o", ordered_consumer=True, idle_heartbeat=0.3)
    equal([int((await sub.next_msg(WAIT)).data) for _ in range(3001)], list(range(3001)))
    await js.delete_consumer("S", (await sub.consumer_info()).name)
    await js.publish("o", b"3001")
    equal((await sub.next_msg(WAIT)).data, b"3001")
    await sub.unsubscribe()


async def push(nc):
    js = nc.jetstream(timeout=WAIT)
    await js.add_stream(name="S", subjects=["q"])
    got, done = [[], [], []], asyncio.Event()
    connections = [await nats.connect(nc.connected_url.geturl()) for _ in got]
    for connection, mine in zip(connections, got):
        async def take(message, mine=mine):
            mine.append(int(message.data))
            if sum(map(len, got)) >= 300:
                done.set()
        await connection.jetstream(timeout=WAIT).subscribe("q", queue="workers", cb=take)
    await fill(js, "q", 300)
    await asyncio.wait_for(done.wait(), WAIT)
    equal(sorted(sum(got, [])), list(range(300)))
    expect(all(got), f"a member got nothing: {list(map(len, got))}")

    async def all_acknowledged():
        return (await js.consumer_info("S", "workers")).ack_floor.stream_seq == 300
    await until(all_acknowledged, "all acknowledged")
    info = await js.consumer_info("S", "workers")
    equal((info.config.deliver_group, info.push_bound), ("workers", True))
    for connection in connections:
        await connection.close()

    async def unbound():
        return not (await js.consumer_info("S", "workers")).push_bound
    await until(unbound, "no longer bound")

    sub = await js.subscribe("q", durable="D", idle_heartbeat=0.2, flow_control=True, manual_ack=True)
    for i in range(300):
        message = await sub.next_msg(WAIT)
        equal(int(message.data), i)
        await message.ack()


async def flow_control(nc):
    """More than a consumer is given before it has said that it keeps up."""
    js = nc.jetstream(timeout=WAIT)
    await js.add_stream(name="S", subjects=["f"])
    filler = b"x" * 8192
    for future in [await js.publish_async("f", str(i).encode() + b" " + filler) for i in range(1500)]:
        await asyncio.wait_for(future, WAIT)
    async with await nats.connect(nc.connected_url.geturl()) as watching:
        answers = await watching.subscribe("$JS.FC.>")
        await watching.flush()
        sub = await js.subscribe("f", durable="D", idle_heartbeat=0.5, flow_control=True, manual_ack=True,
                                 config=api.ConsumerConfig(ack_policy="all", max_ack_pending=-1))
        for i in range(1500):
            message = await sub.next_msg(WAIT)
            equal(int(message.data.split()[0]), i)
        await message.ack_sync(timeout=WAIT)
        # The library answers what asks it whether it keeps up.
        await answers.next_msg(WAIT)
    equal((await js.consumer_info("S", "D")).ack_floor.stream_seq, 1500)


async def work_queue(nc):
    js = nc.jetstream(timeout=WAIT)
    await js.add_stream(name="S", subjects=["jobs.*"], retention="workqueue")
    await fill(js, "jobs.a", 200)

    async def work(mine):
        async with await nats.connect(nc.connected_url.geturl()) as connection:
            sub = await connection.jetstream(timeout=WAIT).pull_subscribe("jobs.*", durable="D")
            while True:
                try:
                    for message in await sub.fetch(5, timeout=0.5):
                        mine.append(int(message.data))
                        await message.ack_sync(timeout=WAIT)
                except NatsTimeoutError:
                    return
    await js.add_consumer("S", durable_name="D", filter_subject="jobs.*")
    got = [[], []]
    await asyncio.gather(*map(work, got))
    equal(sorted(sum(got, [])), list(range(200)))
    expect(all(got), f"a worker got nothing: {list(map(len, got))}")
    equal((await js.stream_info("S")).state.messages, 0)
    with Refused(10100):
        await js.add_consumer("S", durable_name="E", filter_subject="jobs.a")
    with Refused(10084):
        await js.add_consumer("S", durable_name="F", filter_subject="jobs.a", ack_policy="none")


async def failing_workers(nc):
    """Twenty workers, of which five die with jobs in hand: another one gets those, and no job is lost."""
    js = nc.jetstream(timeout=WAIT)
    await js.add_stream(name="S", subjects=["jobs.*"], retention="workqueue")
    await fill(js, "jobs.a", 1000)
    await js.add_consumer("S", durable_name="D", ack_policy="explicit", ack_wait=2)
    confirmed, all_done, abandoned = set(), asyncio.Event(), []

    async def work(life):
        async with await nats.connect(nc.connected_url.geturl()) as connection:
            sub = await connection.jetstream(timeout=WAIT).pull_subscribe_bind(consumer="D", stream="S")
            while True:
                try:
                    batch = await sub.fetch(5, timeout=0.5)
                except asyncio.TimeoutError:
                    continue
                for i, message in enumerate(batch):
                    life -= 1
                    if life == 0:
                        abandoned.extend(bodies(batch[i:]))
                        return
                    await message.ack_sync(timeout=WAIT)
                    confirmed.add(int(message.data))
                    if len(confirmed) == 1000:
                        all_done.set()
    workers = [asyncio.create_task(work(random.randrange(1, 30) if i < 5 else -1)) for i in range(20)]
    try:
        await asyncio.wait_for(all_done.wait(), 2 * WAIT)
    finally:
        for worker in workers:
            worker.cancel()
        ends = await asyncio.gather(*workers, return_exceptions=True)
    equal([end for end in ends if end and not isinstance(end, asyncio.CancelledError)], [])
    equal(confirmed, set(range(1000)))
    expect(len(abandoned) >= 5, f"five died with a job in hand: {abandoned}")
    equal((await js.stream_info("S")).state.messages, 0)
    equal((await js.consumer_info("S", "D")).num_ack_pending, 0)


async def interest(nc):
    js = nc.jetstream(timeout=WAIT)
    await js.add_stream(name="S", subjects=["i"], retention="interest")
    equal((await js.publish("i", b"nobody")).seq, 1)
    equal((await js.stream_info("S")).state.messages, 0)
    one = await js.pull_subscribe("i", durable="ONE")
    two = await js.pull_subscribe("i", durable="TWO")
    await fill(js, "i", 10)
    for message in await one.fetch(10, timeout=WAIT):
        await message.ack_sync(timeout=WAIT)
    equal((await js.stream_info("S")).state.messages, 10)
    for message in (await two.fetch(10, timeout=WAIT))[:4]:
        await message.ack_sync(timeout=WAIT)
    equal((await js.stream_info("S")).state.messages, 6)
    expect(await js.delete_consumer("S", "TWO"), "TWO is not deleted")

    async def empty():
        return (await js.stream_info("S")).state.messages == 0
    await until(empty, "nobody is interested")


async def consumers(nc):
    js = nc.jetstream(timeout=WAIT)
    await js.add_stream(name="S", subjects=["c.>"])
    for i in range(6):
        await js.publish(f"c.{i % 2}", str(i).encode())
    created = await js.add_consumer("S", durable_name="D", description="one", filter_subject="c.1", metadata={"k": "v"})
    equal((created.name, created.stream_name, created.num_pending), ("D", "S", 3))
    equal((created.config.filter_subject, created.config.metadata["k"]), ("c.1", "v"))
    equal((await js.consumer_info("S", "D")).config, created.config)
    await js.add_consumer("S", name="E", filter_subjects=["c.0", "c.1"], deliver_policy="last_per_subject")
    equal(sorted((info.name, info.num_pending) for info in await js.consumers_info("S")), [("D", 3), ("E", 2)])
    equal((await js.stream_info("S")).state.consumer_count, 2)
    with Refused(10012):
        await js.add_consumer("S", created.config.evolve(deliver_policy="new"))
    for policy, start, first in [("last", None, 5), ("by_start_sequence", 3, 2), ("last_per_subject", None, 4)]:
        config = api.ConsumerConfig(deliver_policy=policy, opt_start_seq=start)
        sub = await js.pull_subscribe("c.>", config=config)
        equal(int((await sub.fetch(1, timeout=WAIT))[0].data), first)
    config = api.ConsumerConfig(headers_only=True)
    message = (await (await js.pull_subscribe("c.>", config=config)).fetch(1, timeout=WAIT))[0]
    equal((message.data, message.headers["Nats-Msg-Size"]), (b"", "1"))

    until_then = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)).isoformat()
    paused = await js.pause_consumer("S", "D", until_then.replace("+00:00", "Z"))
    expect(paused.paused and paused.pause_remaining, paused)
    expect((await js.consumer_info("S", "D")).paused, "not paused")
    sub = await js.pull_subscribe_bind(consumer="D", stream="S")
    with Raises(NatsTimeoutError):
        await sub.fetch(1, timeout=0.3)
    expect(not (await js.resume_consumer("S", "D")).paused, "still paused")
    equal(bodies(await sub.fetch(3, timeout=WAIT)), [1, 3, 5])
    equal((await js.reset_consumer("S", "D", seq=4)).reset_seq, 4)
    equal(bodies(await sub.fetch(2, timeout=WAIT)), [3, 5])
    expect(await js.delete_consumer("S", "D"), "not deleted")
    with Refused(10014):
        await js.consumer_info("S", "D")
    with Refused(10014):
        await js.delete_consumer("S", "D")
    with Refused(10059):
        await js.add_consumer("NONE", durable_name="D")
    # Without anybody who asks, it goes by itself.
    await js.add_consumer("S", name="BRIEF", inactive_threshold=0.2)

    async def gone():
        return "BRIEF" not in [info.name for info in await js.consumers_info("S")]
    await until(gone, "an idle consumer goes")


async def account(nc):
    js = nc.jetstream(timeout=WAIT)
    before = await js.account_info()
    await js.add_stream(name="F", subjects=["f"])
    await js.add_stream(name="M", subjects=["m"], storage="memory")
    await js.add_consumer("F", durable_name="D")
    await js.publish("f", b"x" * 1000)
    await js.publish("m", b"x" * 2000)
    info = await js.account_info()
    equal((info.streams, info.consumers), (2, 1))
    expect(info.storage >= 1000 and info.memory >= 2000, (info.storage, info.memory))
    equal((info.limits.max_streams, info.limits.max_consumers), (-1, -1))
    expect(info.api.total > before.api.total, info.api)
    with Refused(10059):
        await js.stream_info("NONE")
    equal((await js.account_info()).api.errors, info.api.errors + 1)


async def key_value(nc):
    js = nc.jetstream(timeout=WAIT)
    with Raises(BucketNotFoundError):
        await js.key_value("NONE")
    kv = await js.create_key_value(bucket="K", history=5)
    equal([await kv.put("a", b"1"), await kv.put("a", b"2"), await kv.put("b.c", b"3")], [1, 2, 3])
    entry = await kv.get("a")
    equal((entry.bucket, entry.key, entry.value, entry.revision), ("K", "a", b"2", 2))
    equal((await kv.get("a", revision=1)).value, b"1")
    equal(await kv.update("a", b"4", last=2), 4)
    with Raises(KeyWrongLastSequenceError):
        await kv.update("a", b"5", last=2)
    with Raises(KeyWrongLastSequenceError):
        await kv.create("a", b"5")
    equal(await kv.create("new", b"5"), 5)
    with Raises(KeyNotFoundError):
        await kv.get("none")

    watcher = await kv.watchall()
    equal({(e.key, e.value) for e in [await watcher.updates(WAIT) for _ in range(3)]}, {("a", b"4"), ("b.c", b"3"), ("new", b"5")})
    equal(await watcher.updates(WAIT), None)
    await kv.put("a", b"6")
    update = await watcher.updates(WAIT)
    equal((update.key, update.value, update.revision), ("a", b"6", 6))
    await kv.delete("a")
    update = await watcher.updates(WAIT)
    equal((update.key, update.operation), ("a", "DEL"))
    await watcher.stop()
    with Raises(KeyNotFoundError):
        await kv.get("a")
    equal(sorted(await kv.keys()), ["b.c", "new"])
    equal([e.value for e in await kv.history("a")], [b"1", b"2", b"4", b"6", b""])
    watcher = await kv.watch("a", include_history=True)
    equal([(await watcher.updates(WAIT)).revision for _ in range(5)], [1, 2, 4, 6, 7])
    equal(await watcher.updates(WAIT), None)
    await watcher.stop()
    equal(await kv.create("a", b"8"), 8)
    await kv.purge("a")
    history = await kv.history("a")
    equal([(e.operation, e.revision) for e in history], [("PURGE", 9)])
    status = await kv.status()
    equal((status.bucket, status.values, status.history), ("K", 3, 5))
    await kv.purge_deletes(olderthan=-1)
    equal((await kv.status()).values, 2)
    expect(await js.delete_key_value("K"), "not deleted")
    with Raises(BucketNotFoundError):
        await js.key_value("K")


async def key_value_ttl(nc):
    js = nc.jetstream(timeout=WAIT)
    kv = await js.create_key_value(bucket="AGE", ttl=2)
    await kv.put("a", b"1")
    equal((await kv.get("a")).value, b"1")

    async def gone(bucket, key):
        try:
            await bucket.get(key)
            return False
        except KeyNotFoundError:
            return True
    await until(lambda: gone(kv, "a"), "the entry is too old")
    kv = await js.create_key_value(bucket="EACH", limit_marker_ttl=2)
    await kv.create("short", b"1", msg_ttl=1)
    await kv.create("long", b"2")
    watcher = await kv.watchall()
    for _ in range(3):
        await watcher.updates(WAIT)
    update = await watcher.updates(WAIT)
    equal((update.key, update.operation), ("short", "PURGE"))
    await watcher.stop()
    await until(lambda: gone(kv, "short"), "the marker is too old")
    equal((await kv.get("long")).value, b"2")


async def object_store(nc):
    js = nc.jetstream(timeout=WAIT)
    store = await js.create_object_store("O")
    megabytes = int(os.environ.get("OBJECT_MB", 5))
    data = os.urandom(megabytes * 1024 * 1024)
    put = await store.put("large", io.BytesIO(data), api.ObjectMeta(description="large", headers={"H": "v"}))
    equal((put.size, put.chunks, put.bucket), (len(data), 8 * megabytes, "O"))
    got = await store.get("large")
    expect(got.data == data, "the object changed on its way")
    equal((got.info.description, got.info.headers["H"], got.info.digest), ("large", "v", put.digest))
    await store.put("small", b"1")
    await store.put("small", b"22")
    equal((await store.get("small")).data, b"22")
    equal(sorted(info.name for info in await store.list()), ["large", "small"])
    watcher = await store.watch()
    equal({(await watcher.updates(WAIT)).name for _ in range(2)}, {"large", "small"})
    equal(await watcher.updates(WAIT), None)
    await store.put("empty", b"")
    equal((await watcher.updates(WAIT)).name, "empty")
    await store.delete("large")
    update = await watcher.updates(WAIT)
    equal((update.name, update.deleted), ("large", True))
    await watcher.stop()
    with Raises(ObjectNotFoundError):
        await store.get("large")
    equal(sorted(info.name for info in await store.list(ignore_deletes=True)), ["empty", "small"])
    expect((await store.status()).size < 10_000, "the chunks are still there")
    await store.seal()
    expect((await store.status()).sealed, "not sealed")
    with Refused(10109):
        await store.put("late", b"1")
    expect(await js.delete_object_store("O"), "not deleted")


async def stop_and_start(nc, server, end):
    js = nc.jetstream(timeout=WAIT)
    await js.add_stream(name="S", subjects=["r.*"])
    await fill(js, "r.a", 500)
    await js.publish("r.id", b"500", headers={"Nats-Msg-Id": "before"})
    sub = await js.pull_subscribe("r.*", durable="D", config=api.ConsumerConfig(ack_wait=10))
    kv = await js.create_key_value(bucket="K")
    await kv.put("key", b"value")
    for message in await sub.fetch(100, timeout=WAIT):
        await message.ack_sync(timeout=WAIT)
    equal(bodies(await sub.fetch(5, timeout=WAIT)), list(range(100, 105)))
    await nc.close()
    server.stop(end)
    await server.start()
    async with await nats.connect(server.url) as nc:
        js = nc.jetstream(timeout=WAIT)
        info = await js.stream_info("S", subjects_filter=">")
        equal((info.state.messages, info.state.subjects), (501, {"r.a": 500, "r.id": 1}))
        floor = (await js.consumer_info("S", "D")).ack_floor.stream_seq
        # nats-server writes the position a little later than it confirms it, so that a kill can take it back.
        expect(floor == 100 or end is Popen.kill and "ringmain" not in nc._server_info, f"the position is {floor}")
        equal((await (await js.key_value("K")).get("key")).value, b"value")
        equal((await js.publish("r.id", b"500", headers={"Nats-Msg-Id": "before"})).duplicate, True)
        sub = await js.pull_subscribe_bind(consumer="D", stream="S")
        got = set()
        while len(got) < 501 - floor:
            for message in await sub.fetch(100, timeout=45):
                got.add(int(message.data))
                await message.ack_sync(timeout=WAIT)
        equal(got, set(range(floor, 501)))
        equal((await js.publish("r.a", b"")).seq, 502)


async def mirrors(nc):
    js = nc.jetstream(timeout=WAIT)
    await js.add_stream(name="ORIGIN", subjects=["o.>"])
    await fill(js, "o.1", 5)
    await js.delete_msg("ORIGIN", 2)
    await js.add_stream(name="COPY", mirror=api.StreamSource(name="ORIGIN"))

    async def copied(count):
        state = (await js.stream_info("COPY")).state
        return state.messages == count

    await until(lambda: copied(4), "not copied")
    info = await js.stream_info("COPY")
    equal((info.mirror.name, info.mirror.lag, info.state.first_seq, info.state.last_seq), ("ORIGIN", 0, 1, 5))
    origin, copy = await js.get_msg("ORIGIN", 4), await js.get_msg("COPY", 4)
    equal((copy.subject, copy.data, copy.seq), (origin.subject, origin.data, origin.seq))
    with Refused(10037):
        await js.get_msg("COPY", 2)
    with Refused(10055):
        await js.update_stream(name="COPY", mirror=api.StreamSource(name="OTHER"))
    equal((await js.stream_info("ORIGIN")).state.consumer_count, 0)
    subscription = await js.pull_subscribe("o.>", "reader", stream="COPY")
    equal(len(bodies(await subscription.fetch(4, timeout=WAIT))), 4)
    # What happens to the origin now is none of the copy's business.
    await js.delete_stream("ORIGIN")
    await js.update_stream(name="COPY", subjects=["o.>"])
    equal((await js.publish("o.2", b"own")).seq, 6)


async def sources(nc):
    js = nc.jetstream(timeout=WAIT)
    await js.add_stream(name="A", subjects=["a.>"])
    await js.add_stream(name="B", subjects=["b.>"])
    await fill(js, "a.1", 3)
    await js.add_stream(
        name="ALL",
        sources=[api.StreamSource(name="A"), api.StreamSource(name="B", filter_subject="b.1")],
    )
    await js.publish("b.1", b"wanted")
    await js.publish("b.2", b"not wanted")

    async def copied(count):
        return (await js.stream_info("ALL")).state.messages == count

    await until(lambda: copied(4), "not copied")
    found = [await js.get_msg("ALL", seq) for seq in range(1, 5)]
    equal(sorted(m.headers["Nats-Stream-Source"].split(" ")[0] for m in found), ["A", "A", "A", "B"])
    origins = {source.name: source for source in (await js.stream_info("ALL")).sources}
    equal(sorted(origins), ["A", "B"])
    await js.purge_stream("ALL")
    await js.publish("a.2", b"more")
    await until(lambda: copied(1), "copied again")


async def key_value_mirror(nc):
    js = nc.jetstream(timeout=WAIT)
    kv = await js.create_key_value(bucket="MAIN", history=3, direct=True)
    await kv.put("a", b"1")
    await js.add_stream(
        name="KV_MIRROR", mirror=api.StreamSource(name="KV_MAIN"), mirror_direct=True, max_msgs_per_subject=3,
        allow_direct=True, allow_rollup_hdrs=True, deny_delete=True,
    )

    async def has(value):
        try:
            message = await js.get_last_msg("KV_MIRROR", "$KV.MAIN.a")
        except NotFoundError:
            return False
        return message.data == value

    await until(lambda: has(b"1"), "not copied")
    await kv.put("a", b"2")
    await until(lambda: has(b"2"), "not followed")
    # Whoever answers, the bucket or its mirror: the value is the same.
    for _ in range(10):
        equal((await kv.get("a")).value, b"2")


async def restart(nc, server):
    await stop_and_start(nc, server, Popen.terminate)


async def crash(nc, server):
    await stop_and_start(nc, server, Popen.kill)


def alone(scenario):
    """The scenario on a connection of its own, and without anything left behind by the one before."""
    async def run(server):
        async with await nats.connect(server.url) as nc:
            for info in await nc.jetstream(timeout=WAIT).streams_info():
                await nc.jetstream(timeout=WAIT).delete_stream(info.config.name)
            await (scenario(nc, server) if scenario in (restart, crash) else scenario(nc))
    run.__name__ = scenario.__name__
    return run


SCENARIOS = [
    streams, publishing, limits, getting, purging, pull, acknowledging, ordered, push, flow_control, work_queue,
    failing_workers, interest, consumers,
    account, key_value, key_value_ttl, object_store, mirrors, sources, key_value_mirror, restart, crash,
]


async def main():
    with tempfile.TemporaryDirectory(prefix="client-") as store:
        return await play(Server("-js", "-sd", store), map(alone, SCENARIOS))


if __name__ == "__main__":
    sys.exit(1 if asyncio.run(main()) else 0)
