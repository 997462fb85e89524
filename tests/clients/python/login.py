"""Proves to a server who it is, in one way, and sends itself a message: login.py WAY URL, in the directory of the keys."""

import asyncio
import ssl
import sys

import nats


def options(way):
    if way in ("tls", "certificate"):
        context = ssl.create_default_context(cafile="ca.pem")
        if way == "certificate":
            context.load_cert_chain("client.pem", "client-key.pem")
        return {"tls": context}
    return {
        "token": {"token": "s3cret"},
        "password": {"user": "plain", "password": "secret"},
        "hashed": {"user": "hashed", "password": "secret"},
        "nkey": {"nkeys_seed": "user.nk"},
        "wrong": {"user": "hashed", "password": "secre"},
    }[way]


async def main(way, url):
    refusals = []

    async def note(error):
        refusals.append(str(error))

    try:
        nc = await nats.connect(url, error_cb=note, allow_reconnect=False, connect_timeout=20, **options(way))
    except nats.errors.Error as error:
        refusals.append(str(error))
        if way == "wrong" and any("Authorization Violation" in refusal for refusal in refusals):
            return
        raise
    if way == "wrong":
        raise AssertionError("a wrong password was accepted")
    sub = await nc.subscribe("joe.hello")
    await nc.publish("joe.hello", b"hello")
    message = await sub.next_msg(20)
    assert message.data == b"hello", message
    await nc.close()


try:
    asyncio.run(main(*sys.argv[1:]))
except Exception as error:
    print(f"FAIL {sys.argv[1]} {error!r}")
    sys.exit(1)
print(f"ok {sys.argv[1]}")
