#!/bin/sh
# Fuzzes each target for so many seconds: fuzz/run.sh SECONDS [TARGET...]. Without targets: all of them.
#
# Prints one line per target and ends with status 1 if one of them found something. The input that shows it is left in
# fuzz/artifacts/TARGET; give it to the built program (its path is printed) to see it again.
#
# New inputs go to a scratch corpus below fuzz/target; the committed one in fuzz/corpus is only read.
#
# Needs a Rust toolchain and a C++ compiler; cargo-fuzz is installed into .deps if it is nowhere.
# SANITIZER=address adds AddressSanitizer: what is fuzzed has no unsafe code, so that it is not the rule.
set -eu

if [ $# -lt 1 ]; then
    echo "usage: $0 SECONDS [TARGET...]" >&2
    exit 2
fi
seconds=$1
shift

cd "$(dirname "$0")/.."
sanitizer=${SANITIZER:-none}
target_dir=$PWD/fuzz/target
if [ "$sanitizer" != none ]; then
    # Its flags rebuild everything: it keeps to itself.
    target_dir=$target_dir/$sanitizer
fi
mkdir -p "$target_dir"
build_log=$target_dir/build.log
PATH=$PWD/.deps/bin:$PATH
# The flags of sanitizer coverage are unstable; the compiler of the project is not.
export RUSTC_BOOTSTRAP=1
host=$(rustc -vV | sed -n 's/^host: //p')

if ! command -v cargo-fuzz >/dev/null; then
    cargo install --quiet --root .deps cargo-fuzz
fi
if ! cargo fuzz build --sanitizer "$sanitizer" --target "$host" --target-dir "$target_dir" >"$build_log" 2>&1; then
    cat "$build_log" >&2
    exit 1
fi
if [ $# -eq 0 ]; then
    set -- $(cargo fuzz list)
fi

failed=0
for name; do
    program=$target_dir/$host/release/$name
    scratch=fuzz/target/corpus/$name
    log=$scratch.log
    mkdir -p "$scratch" "fuzz/artifacts/$name" "fuzz/corpus/$name"
    started=$(date +%s)
    status=0
    "$program" "$scratch" "fuzz/corpus/$name" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=1024 \
        -artifact_prefix="fuzz/artifacts/$name/" -print_final_stats=1 >"$log" 2>&1 || status=$?
    took=$(($(date +%s) - started))
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    if [ $status -eq 0 ]; then
        echo "$name: ${runs:-0} runs in $took s"
    else
        failed=1
        echo "$name: FOUND something after ${runs:-?} runs in $took s"
        grep -v -e '^#' -e '^stat::' -e '^INFO' -e '^WARNING' -e '^ *[0-9]*: ' -e '^ *at ' -e '^0x' -e '^Base64' "$log" | cut -c -400 | tail -n 25
        echo "again: $program $(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)"
    fi
done
exit $failed
