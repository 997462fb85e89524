#!/usr/bin/env bash
# Client applications on the official clients, played to each server given (default: the release build of Ringmain, the
# same on epoll, and the real nats-server). Everything is installed into .deps/ at the top of the repository, once.
# NAME-jetstream is the application for streams, consumers, key-value and object store: it gives the server a store.
# OBJECT_MB, if it is set, is the size of the large object in each of them.
# Then each client logs in in every way that it knows; the certificates and keys of logins/ are for that alone.
#
#   tests/clients/run.sh [SERVER_BIN...]
set -u

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
deps=$root/.deps
mkdir -p "$deps/bin" "$deps/log"
passed=0 failed=0 skipped=0
clients=()

# A missing toolchain is a skip that shows; an installation that fails is a failure.
skip() {
    skipped=$((skipped + 1))
    echo "SKIPPED $1: $2"
}

# install NAME STAMP_SOURCES... -- COMMAND...: runs the command unless it has succeeded with the same sources
install() {
    local name=$1 sources=() sum
    shift
    while [ "$1" != -- ]; do
        sources+=("$1")
        shift
    done
    shift
    sum=$(cat "${sources[@]}" | sha256sum)
    [ "$(cat "$deps/$name.stamp" 2>/dev/null)" = "$sum" ] && return 0
    if "$@" >"$deps/log/$name" 2>&1; then
        echo "$sum" >"$deps/$name.stamp"
        return 0
    fi
    failed=$((failed + 1))
    echo "FAIL install $name: see $deps/log/$name"
    tail -5 "$deps/log/$name"
    return 1
}

install_python() {
    python3 -m venv "$deps/py" &&
        "$deps/py/bin/python" -m pip install --quiet -r "$here/server-requirements.txt" -r "$here/python/requirements.txt"
}

install_javascript() {
    mkdir -p "$deps/js" && cp "$here"/javascript/package*.json "$here"/javascript/*.js "$deps/js/" &&
        npm ci --prefix "$deps/js" --no-audit --no-fund --prefer-offline
}

install_go() {
    cd "$here/go" && go build -o "$deps/bin/client-go" . && go build -o "$deps/bin/login-go" ./login
}

install_rust() {
    CARGO_TARGET_DIR=$deps/clients-target cargo build --locked --manifest-path "$here/rust/Cargo.toml"
}

install_cli() {
    GOBIN=$deps/bin go install "github.com/nats-io/natscli/nats@$(cat "$here/cli/version")"
}

if command -v python3 >/dev/null; then
    install python "$here"/server-requirements.txt "$here"/python/requirements.txt -- install_python && clients+=(python python-jetstream)
else
    skip python "no python3"
fi
if command -v node >/dev/null && command -v npm >/dev/null; then
    install javascript "$here"/javascript/*.js* -- install_javascript && clients+=(javascript websocket javascript-jetstream websocket-jetstream)
else
    skip javascript "no node"
fi
if command -v go >/dev/null; then
    install go "$here"/go/*.* "$here"/go/login/* -- install_go && clients+=(go go-jetstream)
    install cli "$here"/cli/version -- install_cli && clients+=(cli)
else
    skip go "no go toolchain"
    skip cli "no go toolchain"
fi
if command -v cargo >/dev/null; then
    install rust "$here"/rust/Cargo.* "$here"/rust/src/*.rs "$here"/rust/src/bin/* -- install_rust && clients+=(rust rust-jetstream)
else
    skip rust "no cargo"
fi

play() {
    case $1 in
    python) "$deps/py/bin/python" "$here/python/app.py" ;;
    javascript) node "$deps/js/app.js" ;;
    websocket) TRANSPORT=websocket node "$deps/js/app.js" ;;
    go) "$deps/bin/client-go" ;;
    rust) "$deps/clients-target/debug/client-test" ;;
    rust-jetstream) "$deps/clients-target/debug/client-test" jetstream ;;
    javascript-jetstream) node "$deps/js/jetstream.js" ;;
    websocket-jetstream) TRANSPORT=websocket node "$deps/js/jetstream.js" ;;
    go-jetstream) "$deps/bin/client-go" jetstream ;;
    python-jetstream) "$deps/py/bin/python" "$here/python/jetstream.py" ;;
    cli) NATS_CLI=$deps/bin/nats "$here/cli/smoke.sh" ;;
    esac
}

# How clients log in, and the configuration in logins/ that wants it.
logins="token:token password:users hashed:users nkey:users wrong:users tls:tls certificate:certificate"

# login CLIENT WAY URL
login() {
    cd "$here/logins" || return
    case $1 in
    python) "$deps/py/bin/python" "$here/python/login.py" "$2" "$3" ;;
    javascript) node "$deps/js/login.js" "$2" "$3" ;;
    go) "$deps/bin/login-go" "$2" "$3" ;;
    rust) "$deps/clients-target/debug/login" "$2" "$3" ;;
    esac
}

# play_logins SERVER: every client that can, in every way, at a server with the configuration for it
play_logins() {
    local server=$1 way config client pid log url
    log=$deps/log/server
    for pair in $logins; do
        way=${pair%:*} config=${pair#*:}
        (cd "$here/logins" && exec "$server" -a 127.0.0.1 -p -1 -c "$config.conf") >"$log" 2>&1 &
        pid=$!
        for _ in $(seq 2000); do
            grep -q "Server is ready" "$log" && break
            kill -0 $pid 2>/dev/null || break
            sleep 0.01
        done
        url=nats://localhost:$(sed -n 's/.*Listening for client connections on .*:\([0-9]*\)$/\1/p' "$log")
        for client in "${clients[@]}"; do
            case $client in
            cli | websocket | *-jetstream) ;;
            *) echo "$client: $( (login "$client" "$way" "$url") 2>&1 | tail -1)" ;;
            esac
        done
        kill $pid 2>/dev/null
        wait $pid 2>/dev/null
    done
}

if [ $# -eq 0 ]; then
    (cd "$root" && cargo build --quiet --release --bin ringmain)
    ringmain=$(realpath "${CARGO_TARGET_DIR:-$root/target}/release/ringmain")
    printf '#!/bin/sh\nexec "%s" --io epoll "$@"\n' "$ringmain" >"$deps/bin/ringmain-epoll"
    chmod +x "$deps/bin/ringmain-epoll"
    set -- "$ringmain" "$deps/bin/ringmain-epoll" "$deps/py/bin/nats-server"
fi
for server in "$@"; do
    label=$(basename "$server")
    if [ ! -x "$server" ]; then
        failed=$((failed + 1))
        echo "FAIL $label: no such server: $server"
        continue
    fi
    for client in "${clients[@]}"; do
        log=$deps/log/$client-$label
        SERVER_BIN=$(realpath "$server") play "$client" >"$log" 2>&1
        status=$?
        ok=$(grep -c '^ok ' "$log")
        bad=$(grep -c '^FAIL ' "$log")
        # An application that died without naming a scenario counts as one failure.
        [ "$status" -ne 0 ] && [ "$bad" -eq 0 ] && bad=1
        [ "$ok" -eq 0 ] && [ "$bad" -eq 0 ] && bad=1
        echo "client=$client server=$label passed=$ok failed=$bad"
        [ "$bad" -gt 0 ] && { grep '^FAIL ' "$log" || tail -5 "$log"; }
        passed=$((passed + ok))
        failed=$((failed + bad))
    done
    log=$deps/log/logins-$label
    play_logins "$(realpath "$server")" >"$log"
    ok=$(grep -c ': ok ' "$log")
    # Whatever a client says instead of "ok" is a failure.
    bad=$(grep -vc ': ok ' "$log")
    echo "client=logins server=$label passed=$ok failed=$bad"
    [ "$bad" -gt 0 ] && grep -v ': ok ' "$log"
    passed=$((passed + ok))
    failed=$((failed + bad))
done
echo
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
