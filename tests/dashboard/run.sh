#!/usr/bin/env bash
# The dashboard: that what is committed is what its sources give, that the sources have no type errors, and everything
# that it does in a headless browser under live traffic. Then, in the same browser, the official client in a page, over
# WebSocket. Packages go into node_modules beside the lockfiles, screenshots into target/dashboard: both are ignored by git.
#
#   tests/dashboard/run.sh [RINGMAIN RINGMAIN_BENCH]      (default: the debug builds)
#   DASHBOARD_CASE=text tests/dashboard/run.sh            only scenarios of the dashboard with the text in their name
#   PAGE_CASE=text tests/dashboard/run.sh                 the same of the client in a page
set -u
cd "$(dirname "$0")/../.."

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    echo "SKIPPED the dashboard, as built and in a browser: no node"
    printf '\n0 passed, 0 failed, 1 skipped\n'
    exit 0
fi
passed=0 failed=0 skipped=0

# install DIRECTORY: what its lockfile says, unless that is there
install() {
    local sum
    sum=$(sha256sum <"$1/package-lock.json")
    [ "$(cat "$1/node_modules/.lockfile" 2>/dev/null)" = "$sum" ] && return 0
    npm ci --prefix "$1" --no-audit --no-fund --prefer-offline --loglevel error && echo "$sum" >"$1/node_modules/.lockfile"
}

# check NAME COMMAND...: one test
check() {
    local name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        echo "ok $name"
    else
        failed=$((failed + 1))
        echo "FAIL $name"
    fi
}

sources=src/monitor/dashboard
if ! install "$sources" || ! install tests/dashboard; then
    echo "FAIL install: npm cannot install what the lockfiles name"
    printf '\n0 passed, 1 failed, 0 skipped\n'
    exit 1
fi
check "the dashboard's types are right" "$sources/node_modules/.bin/tsc" --project "$sources"
check "the committed dashboard is what its sources give" node "$sources/build.mjs" --check

if [ $# -eq 0 ]; then
    if ! cargo build --quiet --bins; then
        printf 'FAIL build: no server to look at\n\n%s passed, %s failed, 0 skipped\n' "$passed" "$((failed + 1))"
        exit 1
    fi
    target=${CARGO_TARGET_DIR:-target}/debug
    set -- "$target/ringmain" "$target/ringmain-bench"
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# play SCRIPT ARGUMENTS...: its scenarios, counted
play() {
    local ok bad none
    node "$@" 2>&1 | tee "$log" | grep -v ' passed, '
    read -r ok bad none < <(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p' "$log")
    # What ended without a count has failed.
    passed=$((passed + ${ok:-0})) failed=$((failed + ${bad:-1})) skipped=$((skipped + ${none:-0}))
}

[ -n "${PAGE_CASE:-}" ] || play tests/dashboard/dashboard.mjs "$1" "$2" target/dashboard
[ -n "${DASHBOARD_CASE:-}" ] || play tests/dashboard/websocket.mjs "$1"
printf '\n%s passed, %s failed, %s skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ]
