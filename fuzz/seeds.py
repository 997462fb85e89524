#!/usr/bin/env python3
"""Writes the seeds that a person can spell: fuzz/corpus/{command,connect,config,broker,route,websocket,jetstream}/seed-*.

The targets' files say what their inputs mean. `header`, `interest` and `matcher` read structures that only the fuzzer
spells; their corpora are what it found, reduced with `-merge=1`. Run it after a change here and commit the result.
"""

import pathlib
import random
import zlib

CORPUS = pathlib.Path(__file__).parent / "corpus"
CUT = b"\xff"
DEFAULT_LIMITS, SMALL_LIMITS, NO_HEADERS = b"\0", b"\1", b"\2"


def fill(count):
    """97 times `count` letters."""
    return bytes([0xFE, count])


def write(target, seeds):
    directory = CORPUS / target
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("seed-*"):
        old.unlink()
    for name, content in seeds.items():
        (directory / f"seed-{name}").write_bytes(content)


COMMANDS = {
    "pub": b"PUB foo 5\r\nhello\r\n",
    "pub-reply": b"PUB foo bar 0\r\n\r\nPING\r\n",
    "pub-lower": b"pub\tfoo \t 2 \nhi\r\n",
    "pub-twice": b"PUB a 1\r\nx\r\nPUB a 1\r\ny\r\n",
    "pub-wrong-end": b"PUB foo 2\r\nhixx",
    "pub-zeroes": b"PUB foo 0000002\r\nhi\r\n",
    "pub-size": b"PUB foo 1234567890\r\n",
    "pub-few": b"PUB foo\r\n",
    "pub-many": b"PUB a b c d 1\r\n",
    "hpub": b"HPUB a b 12 14\r\nNATS/1.0\r\n\r\nhi\r\n",
    "hpub-wrong": b"HPUB a 5 2\r\nhi\r\n",
    "hpub-zero": b"HPUB a 0 2\r\nhi\r\n",
    "sub": b"SUB foo 1\r\nSUB foo.* grp 2\nUNSUB 1\r\nUNSUB 2 10\r\nUNSUB 2 x\r\n",
    "sub-few": b"SUB foo\r\n",
    "connect": b'CONNECT {"verbose":false}\r\nINFO {}\r\nPING\r\nPONG\r\n',
    "swallow": b"PING with text\r\n+OK and more\r\nPONGPONG\n",
    "err": b"-ERR 'x'\r\n",
    "http": b"GET / HTTP/1.1\r\n",
    "spaces": b"PUB " + b" " * 60 + b"a 1\r\nx\r\n",
}
ROUTE = {
    "interest": b"RS+ $G foo\r\nRS+ $G foo q 3\r\nRS+ $G foo q 1\r\nRS- $G foo\r\nRS- $G foo q\r\n",
    "many": b"RS+ $G a.*\r\nRS+ $G a.>\r\nRS+ $G a\r\nRS+ $G a q 1\r\nRS+ $G > q 2\r\nPING\r\n",
    "messages": b"RMSG $G foo 2\r\nhi\r\nRMSG $G foo rep 2\r\nhi\r\nRMSG $G a + rep q r 2\r\nhi\r\nRMSG $G a | q 0\r\n\r\n",
    "headers": b"HMSG $G a rep 12 14\r\nNATS/1.0\r\n\r\nhi\r\nHMSG $G a | q 12 12\r\nNATS/1.0\r\n\r\n\r\n",
    "shown": b"RMSG $G a $JS.ACK.s.c.1.1.1.1.1@foo.bar 2\r\nhi\r\n",
    "gossip": b'INFO {"server_id":"NY","ip":"nats-route://10.0.0.1:6222/","cluster":"C"}\r\nINFO {"server_id":"NX","ldm":true}\r\n',
    "wrong": b"RS+ $G a..b\r\nRS+ NO a\r\nRS- $G never\r\nRMSG $G\r\n",
    "stranger": b"GET / HTTP/1.1\r\n",
    "large": b"RMSG $G a 9000\r\n" + b"x" * 9000 + b"\r\nPONG\r\n",
}
route = {}
for name, text in ROUTE.items():
    route[name] = b"\xff" + text
    route[name + "-cut"] = b"\6" + text

command = {}
for name, text in COMMANDS.items():
    command[name] = DEFAULT_LIMITS + text
    command[name + "-small-cut"] = SMALL_LIMITS + text[:3] + CUT + text[3:9] + CUT + text[9:]
command |= {
    "large": DEFAULT_LIMITS + b"PUB big 9700\r\n" + fill(100) + b"\r\nPING\r\n",
    "large-cut": DEFAULT_LIMITS + b"PUB big 9700\r\n" + fill(50) + CUT + fill(50) + CUT + b"\r\nPING\r\n",
    "copied-cut": DEFAULT_LIMITS + b"PUB big 4850\r\n" + fill(20) + CUT + fill(30) + b"\r" + CUT + b"\nPING\r\n",
    "line-longest": SMALL_LIMITS + b"CONNECT " + b"x" * 32 + b"\r\n",
    "line-longest-cut": SMALL_LIMITS + b"CONNECT " + b"x" * 32 + b"\r" + CUT + b"\n",
    "line-too-long": SMALL_LIMITS + b"CONNECT " + b"x" * 20 + CUT + b"x" * 13 + b"\r\n",
    "payload-too-large": SMALL_LIMITS + b"PUB a 49\r\n",
    "no-headers": NO_HEADERS + b"HPUB a 2 4\r\n",
}
write("command", command)

CONNECTS = {
    "empty": b"{}",
    "null": b"null",
    "go": b'{"verbose":false,"pedantic":false,"user":"u","pass":"p","tls_required":false,"name":"n","lang":"go",'
    b'"version":"1.52.0","protocol":1,"echo":true,"headers":true,"no_responders":true}',
    "case": b'{"VERBOSE":false,"Echo":null,"unknown":[1,{"a":2}],"protocol":1}',
    "twice": b'{"name":"one","verbose":false}\n{"lang":"go"}',
    "repeated": b'{"name":"one","NAME":"two","name":null}',
    "wrong-type": b'{"verbose":"yes"}',
    "wrong-number": b'{"protocol":1.5}',
    "huge-number": b'{"protocol":9223372036854775808}',
    "unknown-huge": b'{"x":1e999,"protocol":-0}',
    "behind": b"{} {}",
    "array": b"[]",
    "utf8": b'{"name":"a\xffb"}',
    "escapes": b'{"na\\u006de":"\\ud83d\\ude00","lang":"\\ud800"}',
    "deep": b'{"x":' + b"[" * 200 + b"]" * 200 + b"}",
    "account": b'{"account":"A","new_account":true,"auth_token":"t"}',
}
write("connect", CONNECTS)

CONFIGS = {
    "listen": "listen: 0.0.0.0:4223\nserver_name: one\n",
    "sizes": "max_payload: 2MB\nmax_pending = 64Mb\nmax_control_line 4k\n",
    "durations": 'ping_interval: "2m"\nwrite_deadline: 10\nlame_duck_duration: "30s"\n',
    "users": "authorization {\n  users = [ { user: a, password: b }, { user: c, pass: d } ]\n}\n",
    "token": 'authorization: { token: "s3cr3t", timeout: 2.5 }\n',
    "variables": "A: 4222\nport: $A\nhttp_port: $B\n",
    "include": "include './other.conf'\n",
    "comments": "# one\n// two\nport: 1 # three\ndebug: true; trace: yes\n",
    "strings": "server_name: \"a\\x20\\n\\t\"\nx: 'b'\ny: (\n block\n)\n",
    "nested": "a { b { c: [1, 2, [3, {d: 4}]] } }\n",
    "bad-brace": "authorization {\n",
    "bad-number": "port: 99999999999999999999\n",
    "bad-key": ": 1\n",
    "json": '{"port": 4222, "debug": false, "cluster": null}',
}
write("config", {name: text.encode() for name, text in CONFIGS.items()})

END = b"\xff"
ALL = b"\xff"
CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1}\r\n'
QUIET = b'CONNECT {"verbose":false,"echo":false}\r\n'


def says(client, text):
    return b"h%d" % client + text + END


def repeats(client, times, text):
    return b"o%d" % client + bytes([times]) + text + END


def turns(*workers, after=0, waiting=False):
    return b"".join(b"i%d" % worker + bytes([after + (8 if waiting else 0)]) for worker in workers)


def reads(client, root=255):
    return b"j%d" % client + bytes([root])


SETTLE = b"l0"
BROKERS = {
    "hello": says(0, CONNECT + b"PING\r\n") + turns(0) + reads(0),
    "publish": says(0, CONNECT + b"SUB a 1\r\nPUB a 2\r\nhi\r\n") + SETTLE + reads(0),
    "hand-over": says(0, CONNECT) + says(1, CONNECT + b"SUB a.* 1\r\n") + turns(0, 1)
    + says(0, b"PUB a.b r 2\r\nhi\r\nHPUB a.b 12 14\r\nNATS/1.0\r\n\r\nhi\r\n") + turns(0, 1) + reads(1, 3) + reads(1),
    "queue": says(0, CONNECT + b"SUB a q 1\r\n") + says(1, CONNECT + b"SUB a q 1\r\n") + says(2, CONNECT) + turns(0, 1)
    + repeats(2, 20, b"PUB a 1\r\nx\r\n") + turns(0) + b"k10" + turns(1, 0) + SETTLE,
    "queue-gone": says(1, CONNECT + b"SUB a q 1\r\n") + says(3, CONNECT + b"SUB a q 1\r\n") + says(0, CONNECT) + turns(1, 0)
    + repeats(0, 9, b"PUB a r 1\r\nx\r\n") + turns(0) + b"k10" + b"k31" + turns(1, 0, 1, 0),
    "no-responders": says(0, CONNECT + b"SUB r 1\r\nPUB nobody r 0\r\n\r\n") + SETTLE + reads(0),
    "request-gone": says(0, CONNECT + b"SUB r 1\r\n") + says(1, CONNECT + b"SUB s 1\r\n") + turns(1, 0)
    + says(0, b"PUB s r 0\r\n\r\n") + turns(0) + says(1, b"UNSUB 1\r\n") + turns(1, waiting=True) + SETTLE + reads(0),
    "max": says(1, CONNECT + b"SUB a 1\r\nUNSUB 1 3\r\n") + turns(1) + says(0, CONNECT) + repeats(0, 9, b"PUB a 1\r\nx\r\n")
    + turns(0, 1) + SETTLE,
    "slow": says(0, CONNECT + b"SUB a 1\r\n") + says(2, CONNECT) + turns(0)
    + repeats(2, 200, b"PUB a 970\r\n" + fill(10) + b"\r\n") + turns(0, 0, 0) + reads(0, 50) + turns(0),
    "slow-other": says(1, CONNECT + b"SUB a 1\r\n") + says(0, CONNECT) + turns(1, 0)
    + repeats(0, 200, b"PUB a 970\r\n" + fill(10) + b"\r\n") + turns(0, 1, 0, 1, after=1) + reads(1, 200) + turns(1, 0, after=2),
    "large": says(1, CONNECT + b"SUB > 1\r\n") + says(0, CONNECT + b"SUB a 1\r\nPUB a 9700\r\n" + fill(100) + b"\r\n")
    + turns(1, 0, 1) + reads(0, 60) + reads(1),
    "pings": says(0, CONNECT) + turns(0) + turns(0, 0, 0, 0, after=6) + turns(0, 0, after=7) + reads(0),
    "stale": says(0, b"PING\r\n") + turns(0, 0, 0, 0, 0, after=7),
    "reconnect": says(0, CONNECT + b"SUB a 1\r\n" + QUIET + b"PUB a 1\r\nx\r\n") + SETTLE,
    "deadline": says(0, CONNECT + b"SUB a 1\r\nPUB a 1\r\nx\r\n") + turns(0) + b"k02" + turns(0, 0),
    "duck": says(0, CONNECT + b"PING\r\n") + turns(0) + b"m0" + turns(0) + reads(0),
    "refused": b"n3" + turns(1) + reads(3) + turns(1),
    "errors": says(0, b"PUB a..b 0\r\n\r\nPUB _GR_.a 0\r\n\r\nSUB a. 1\r\nSUB a _sys_ 1\r\nSUB a.b.c.d.e 2\r\nFOO\r\n") + SETTLE,
    "traced": says(0, CONNECT + b"SUB a 1\r\nPUB a 97\r\n" + fill(1) + b"\r\nUNSUB 1\r\n-ERR 'x'\r\n") + SETTLE,
    "user": says(0, b'CONNECT {"user":"u","pass":"p"}\r\nSUB a 1\r\n') + says(1, b'CONNECT {"user":"u"}\r\n') + says(2, b"SUB a 1\r\n")
    + SETTLE + turns(0, after=5),
    "move": says(0, CONNECT + b"SUB a 1\r\nSUB a q 2\r\n") + says(1, CONNECT) + SETTLE + says(1, b"PUB a 1\r\nx\r\n")
    + b"p0" + turns(1, 0) + says(1, b"PUB a 1\r\ny\r\n") + turns(1, 0) + says(1, b"PUB a 1\r\nz\r\n") + turns(1, 0, 1) + SETTLE
    + reads(0) + b"p0" + says(0, b"UNSUB 1\r\nPUB a r 1\r\nx\r\n") + turns(1, 0) + SETTLE + reads(0),
    "move-ends": says(0, CONNECT + b"SUB a 1\r\n") + says(1, CONNECT) + SETTLE + b"p0" + says(1, b"PUB a 1\r\nx\r\n") + turns(0, 1)
    + b"k01" + turns(1, 0) + b"n0" + SETTLE,
    "move-both": says(0, CONNECT + b"SUB a 1\r\nUNSUB 1 2\r\n") + says(1, CONNECT + b"SUB a 1\r\n") + SETTLE
    + says(0, b"PUB a 1\r\nx\r\n") + says(1, b"PUB a 1\r\nx\r\n") + b"p0" + b"p1" + turns(0, 1) + turns(0, 1, waiting=True) + SETTLE,
    "accounts": says(0, b'CONNECT {"verbose":false,"user":"s","pass":"p"}\r\nSUB a 1\r\nSUB a q 2\r\n')
    + says(1, b'CONNECT {"verbose":false,"user":"t","pass":"p"}\r\nSUB a 1\r\n') + says(3, b'CONNECT {"verbose":false,"user":"s","pass":"p"}\r\nSUB a q 1\r\n')
    + turns(0, 1) + says(1, b"PUB a 1\r\nx\r\n") + says(3, b"PUB a 1\r\ny\r\n") + turns(1, 0) + b"p0" + SETTLE
    + says(0, b'CONNECT {"user":"t","pass":"p"}\r\nSUB a 1\r\nPUB a 1\r\nz\r\n') + SETTLE
    + says(2, b'CONNECT {"user":"s","pass":"p"}\r\n') + says(4, b'CONNECT {"user":"s","pass":"p"}\r\n') + says(6, b'CONNECT {"user":"r","pass":"p"}\r\n')
    + turns(0) + b"k21" + SETTLE + reads(0) + reads(1),
    "permissions": says(0, b'CONNECT {"verbose":false,"user":"r","pass":"p"}\r\nSUB > 1\r\nSUB a q 2\r\nSUB b 3\r\nSUB a.* x 4\r\n')
    + says(1, b'CONNECT {"verbose":false,"user":"u","pass":"p"}\r\nSUB r 1\r\n') + turns(0, 1)
    + says(1, b"PUB b r 1\r\nx\r\nPUB a r 1\r\nx\r\nPUB a r 1\r\nx\r\n") + turns(1, 0)
    + says(0, b"PUB r 1\r\nx\r\nPUB r 1\r\nx\r\nPUB b.b 1\r\nx\r\nPUB c.d 1\r\nx\r\n") + b"p0" + SETTLE
    + says(0, b"PUB a 1\r\nx\r\nPUB a 1\r\nx\r\n") + SETTLE,
}
CHOICES = {"slow": 2, "slow-other": 2, "errors": 16, "traced": 8, "user": 4, "permissions": 4, "accounts": 4}
broker = {name: bytes([CHOICES.get(name, 0)]) + script for name, script in BROKERS.items()}
broker |= {name + "-small": b"\1" + BROKERS[name] for name in ["publish", "hand-over", "queue", "slow", "slow-other"]}
broker["slow-cut-off"] = b"\1" + BROKERS["slow"].replace(b"970\r\n" + fill(10), b"97\r\n" + fill(1))
broker["slow-other-cut-off"] = b"\1" + BROKERS["slow-other"].replace(b"970\r\n" + fill(10), b"97\r\n" + fill(1))
broker["slow-dropped"] = b"\3" + BROKERS["slow"]
write("broker", broker)


def ws_frame(first, payload, key=b"\1\2\3\4"):
    """A masked frame with a short head."""
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return bytes([first]) + size + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


def ws_deflated(payload):
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    return (packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


WS_CONNECT = b'CONNECT {"verbose":false}\r\nPING\r\n'
WS_LONG = ws_deflated(b"PUB a 100\r\n" + b"x" * 100 + b"\r\n")

# Flags (compression, no masking, browser, whole compressed messages; 0x80 for requests), where reads are cut, and the bytes.
WEBSOCKETS = {
    "frames": b"\0\5" + ws_frame(0x82, WS_CONNECT) + ws_frame(0x89, b"hi") + ws_frame(0x01, b"PI")
    + ws_frame(0x8A, b"") + ws_frame(0x80, b"NG\r\n") + ws_frame(0x88, b"\3\xe8bye"),
    "compressed": b"\1\7" + ws_frame(0xC2, ws_deflated(WS_CONNECT)) + ws_frame(0x82, b"PING\r\n")
    + ws_frame(0x42, WS_LONG[:9]) + ws_frame(0x80, WS_LONG[9:]),
    "bomb": b"\1\x40" + ws_frame(0xC2, ws_deflated(b"\0" * 20000)),
    "unmasked": b"\2\3\x82\x06PING\r\n\x81\x02hi\x88\x00",
    "browser": b"\x0d\xff" + ws_frame(0xC2, ws_deflated(random.Random(1).randbytes(6000))),
    "mistake": b"\0\1" + ws_frame(0x83, b"x"),
    "request": b"\x80\4GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\r\nCookie: a=b; c=\"d\"\r\n\r\n",
    "requests": b"\x80\3GET / HTTP/1.1\r\nHost: h\r\n\r\nHEAD /mqtt HTTP/1.1\r\nHost: [::1]:80\r\n"
    b"Origin: https://a.b:443\r\n\r\nPOST / HTTP/1.0\r\n\r\n",
}
write("websocket", WEBSOCKETS)


def jetstream():
    """The dialogues with the real server, a case each."""
    verbs = {"api": "a", "pub": "p", "put": "p", "get": "g", "batch": "g", "wait": "t"}
    seeds = {}
    for path in sorted((pathlib.Path(__file__).parent.parent / "tests/jetstream").glob("*.txt")):
        for number, case in enumerate(path.read_text().split("\ncase ")[1:]):
            lines = [line.removeprefix("times ").lstrip("0123456789 ") for line in case.split("\n")[1:]]
            steps = [f"{verbs[verb]} {rest}" for verb, _, rest in (line.partition(" ") for line in lines) if verb in verbs]
            if all(len(step) < 400 for step in steps):
                seeds[f"{path.stem}-{number}"] = "\n".join(steps).encode()
    return seeds


write("jetstream", jetstream())
write("route", route)
