#!/usr/bin/env python3
"""Writes the seeds that a person can spell: fuzz/corpus/{command,connect,config,broker}/seed-*.

The targets' files say what their inputs mean. `header`, `interest` and `matcher` read structures that only the fuzzer
spells; their corpora are what it found, reduced with `-merge=1`. Run it after a change here and commit the result.
"""

import pathlib

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
