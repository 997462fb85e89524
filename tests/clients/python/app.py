"""What users of nats-py do, against the server binary named by SERVER_BIN.

Starts and stops that binary itself. Prints `ok NAME` or `FAIL NAME reason` for each scenario.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys

import nats
from nats import micro
from nats.errors import NoRespondersError
from nats.micro.request import ServiceError

WAIT = 20
# Scenarios are given up by then; a large object takes its time.
LIMIT = 60 + int(os.environ.get("OBJECT_MB", 0))


class Server:
    def __init__(self, *arguments):
        self.arguments = arguments
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self.port}"

    async def start(self):
        self.process = subprocess.Popen(
            [os.environ["SERVER_BIN"], "-a", "127.0.0.1", "-p", str(self.port), *self.arguments],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for _ in range(2000):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            except OSError:
                await asyncio.sleep(0.01)
        raise RuntimeError("the server does not listen")

    def stop(self, end=subprocess.Popen.kill):
        end(self.process)
        self.process.wait()


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


def equal(got, wanted):
    expect(got == wanted, f"got {got!r}, wanted {wanted!r}")


async def publish_subscribe(server):
    async with await nats.connect(server.url) as nc:
        sub = await nc.subscribe("greet")
        for i in range(1000):
            await nc.publish("greet", str(i).encode())
        equal([(await sub.next_msg(WAIT)).data for _ in range(1000)], [str(i).encode() for i in range(1000)])


async def wildcards(server):
    async with await nats.connect(server.url) as nc:
        star, rest = await nc.subscribe("a.*.c"), await nc.subscribe("a.>")
        for subject in ["a.b.c", "a.b.d", "a.c", "b.b.c", "a.x.c", "a.b.c.d", "a"]:
            await nc.publish(subject, b"")
        await nc.flush()
        equal([(await star.next_msg(WAIT)).subject for _ in range(2)], ["a.b.c", "a.x.c"])
        equal([(await rest.next_msg(WAIT)).subject for _ in range(5)], ["a.b.c", "a.b.d", "a.c", "a.x.c", "a.b.c.d"])
        equal((star.pending_msgs, rest.pending_msgs), (0, 0))


async def queue_groups(server):
    got, done = [[], [], []], asyncio.Event()
    workers = [await nats.connect(server.url) for _ in got]
    for worker, mine in zip(workers, got):
        async def take(msg, mine=mine):
            mine.append(int(msg.data))
            if sum(map(len, got)) >= 600:
                done.set()
        await worker.subscribe("jobs", queue="workers", cb=take)
        await worker.flush()
    async with await nats.connect(server.url) as nc:
        for i in range(600):
            await nc.publish("jobs", str(i).encode())
        await asyncio.wait_for(done.wait(), WAIT)
    equal(sorted(sum(got, [])), list(range(600)))
    expect(all(got), f"a member got nothing: {list(map(len, got))}")
    for worker in workers:
        await worker.close()


async def request_reply(server):
    async with await nats.connect(server.url) as service, await nats.connect(server.url) as nc:
        async def double(msg):
            await msg.respond(msg.data * 2)
        await service.subscribe("double", cb=double)
        await service.flush()
        answers = await asyncio.gather(*(nc.request("double", str(i).encode(), timeout=WAIT) for i in range(200)))
        equal([answer.data for answer in answers], [str(i).encode() * 2 for i in range(200)])


async def no_responders(server):
    async with await nats.connect(server.url) as nc:
        try:
            await nc.request("nobody.home", b"?", timeout=WAIT)
        except NoRespondersError:
            return
        raise AssertionError("an answer from nobody")


async def headers(server):
    async with await nats.connect(server.url) as nc:
        sub = await nc.subscribe("h")
        sent = {"Trace": "abc-123", "Content-Type": "text/plain; charset=utf-8", "Long": "x" * 3000}
        await nc.publish("h", b"body", headers=sent)
        await nc.publish("h", b"", headers={"Only": "header"})
        message = await sub.next_msg(WAIT)
        equal((message.headers, message.data), (sent, b"body"))
        message = await sub.next_msg(WAIT)
        equal((message.headers, message.data), ({"Only": "header"}, b""))


async def large_payload(server):
    async with await nats.connect(server.url) as nc, await nats.connect(server.url) as other:
        sub = await other.subscribe("large")
        await other.flush()
        equal(nc.max_payload, 1024 * 1024)
        payload = os.urandom(nc.max_payload)
        for _ in range(4):
            await nc.publish("large", payload)
        for _ in range(4):
            expect((await sub.next_msg(WAIT)).data == payload, "payload changed on its way")


async def drain(server):
    got = []
    async with await nats.connect(server.url) as publisher:
        nc = await nats.connect(server.url)

        async def slowly(msg):
            await asyncio.sleep(0.001)
            got.append(msg.data)
        await nc.subscribe("d", cb=slowly)
        await nc.flush()
        for i in range(100):
            await publisher.publish("d", str(i).encode())
        await publisher.flush()
        await nc.flush()
        await nc.drain()
        equal(len(got), 100)
        expect(nc.is_closed, "not closed after drain")


async def flush(server):
    async with await nats.connect(server.url) as nc:
        for i in range(50):
            await nc.publish("nobody", b"x" * 1000)
            await nc.flush(WAIT)
        expect(nc.stats["out_msgs"] == 50, nc.stats)


async def many_subjects(server):
    async with await nats.connect(server.url) as nc:
        subs = [await nc.subscribe(f"many.{i}.subject") for i in range(2000)]
        for i in range(2000):
            await nc.publish(f"many.{i}.subject", str(i).encode())
        for i, sub in enumerate(subs):
            equal((await sub.next_msg(WAIT)).data, str(i).encode())
        for sub in subs:
            await sub.unsubscribe()
        await nc.flush()


async def unsubscribe_after(server):
    async with await nats.connect(server.url) as nc:
        sub, marker = await nc.subscribe("limited"), await nc.subscribe("marker")
        await sub.unsubscribe(5)
        for i in range(20):
            await nc.publish("limited", str(i).encode())
        await nc.publish("marker", b"")
        await marker.next_msg(WAIT)
        equal([(await sub.next_msg(WAIT)).data for _ in range(5)], [b"0", b"1", b"2", b"3", b"4"])
        equal(nc.stats["in_msgs"], 6)


async def services(server):
    async def increment(request):
        try:
            await request.respond(str(int(request.data) + 1).encode())
        except ValueError:
            raise ServiceError("400", "no number")
    instances = []
    for _ in range(3):
        connection = await nats.connect(server.url)
        service = await micro.add_service(connection, name="adder", version="1.2.3", description="adds one")
        await service.add_group(name="math").add_endpoint(name="increment", handler=increment)
        await connection.flush()
        instances.append((connection, service))
    async with await nats.connect(server.url) as nc:
        async def ask_all(subject, count):
            inbox = nc.new_inbox()
            answers = await nc.subscribe(inbox)
            await nc.publish(subject, b"", reply=inbox)
            return [json.loads((await answers.next_msg(WAIT)).data) for _ in range(count)]

        answers = await asyncio.gather(*(nc.request("math.increment", str(i).encode(), timeout=WAIT) for i in range(90)))
        equal([int(answer.data) for answer in answers], list(range(1, 91)))
        refused = await nc.request("math.increment", b"x", timeout=WAIT)
        equal(refused.headers, {"Nats-Service-Error": "no number", "Nats-Service-Error-Code": "400"})
        ids = sorted(service.id for _, service in instances)
        for verb in ["PING", "INFO", "STATS"]:
            equal(sorted(answer["id"] for answer in await ask_all(f"$SRV.{verb}.adder", 3)), ids)
        counted = [answer["endpoints"][0] for answer in await ask_all("$SRV.STATS.adder", 3)]
        equal(sum(endpoint["num_requests"] for endpoint in counted), 91)
        equal(sum(endpoint["num_errors"] for endpoint in counted), 1)
        expect(all(endpoint["num_requests"] for endpoint in counted), f"an instance was never asked: {counted}")
        connection, gone = instances.pop()
        await gone.stop()
        await connection.close()
        try:
            await nc.request(f"$SRV.PING.adder.{gone.id}", b"", timeout=WAIT)
            raise AssertionError("the instance that was stopped still answers")
        except NoRespondersError:
            pass
        equal(len(await ask_all("$SRV.PING", 2)), 2)
    for connection, service in instances:
        await service.stop()
        await connection.close()


async def reconnect(server):
    back, got = asyncio.Event(), asyncio.Queue()

    async def on_reconnect():
        back.set()

    async def ignore(_):
        pass

    async def take(msg):
        await got.put(msg.data)
    nc = await nats.connect(
        server.url, reconnected_cb=on_reconnect, error_cb=ignore, reconnect_time_wait=0.05, max_reconnect_attempts=-1)
    await nc.subscribe("again", cb=take)
    await nc.publish("again", b"before")
    equal(await asyncio.wait_for(got.get(), WAIT), b"before")
    server.stop()
    await server.start()
    await asyncio.wait_for(back.wait(), WAIT)
    await nc.flush()
    await nc.publish("again", b"after")
    equal(await asyncio.wait_for(got.get(), WAIT), b"after")
    await nc.close()


SCENARIOS = [
    publish_subscribe, wildcards, queue_groups, request_reply, no_responders, headers, large_payload, drain, flush,
    many_subjects, unsubscribe_after, services, reconnect,
]


async def play(server, scenarios):
    failed = 0
    await server.start()
    try:
        for scenario in scenarios:
            try:
                await asyncio.wait_for(scenario(server), LIMIT)
                print(f"ok {scenario.__name__}", flush=True)
            except Exception as error:
                failed += 1
                print(f"FAIL {scenario.__name__} {error!r}", flush=True)
    finally:
        server.stop()
    return failed


if __name__ == "__main__":
    sys.exit(1 if asyncio.run(play(Server(), SCENARIOS)) else 0)
