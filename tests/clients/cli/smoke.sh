#!/usr/bin/env bash
# What users of the `nats` command do, against the server binary named by SERVER_BIN.
# Needs NATS_CLI, the path of the command. Prints `ok NAME` or `FAIL NAME reason` for each scenario.
set -u

dir=$(mktemp -d)
export HOME=$dir XDG_CONFIG_HOME=$dir
cat >"$dir/server.conf" <<END
server_name: smoke
accounts {
    \$SYS: { users: [{ user: sys, password: s }] }
    APP: { jetstream: enabled, users: [{ user: app, password: app }] }
}
no_auth_user: app
jetstream { store_dir: "$dir/jetstream" }
END
"$SERVER_BIN" -c "$dir/server.conf" -a 127.0.0.1 -p -1 >"$dir/server.log" 2>&1 &
server=$!
trap '{ kill $(jobs -p); wait; rm -rf "$dir"; } 2>/dev/null' EXIT
until grep -q 'Server is ready' "$dir/server.log"; do
    kill -0 $server 2>/dev/null || { echo "FAIL start $(tail -1 "$dir/server.log")"; exit 1; }
    sleep 0.02
done
export NATS_URL=nats://$(sed -n 's/.*Listening for client connections on \(.*\)/\1/p' "$dir/server.log")

failed=0
# check NAME PATTERN FILE: the file holds the pattern
check() {
    if grep -qE -- "$2" "$3"; then echo "ok $1"; else
        failed=1
        echo "FAIL $1 no '$2' in: $(tr '\n' ' ' <"$3")"
    fi
}
nats() { timeout 30 "$NATS_CLI" "$@"; }
# As a user of the system account.
system() { nats --user sys --password s "$@"; }
# wait_for PATTERN FILE: until a command in the background has got that far
wait_for() { for _ in $(seq 1000); do grep -qsE -- "$1" "$2" && return; sleep 0.02; done; }

nats sub 'smoke.>' --count 3 >"$dir/sub" 2>&1 &
sub=$!
wait_for 'Subscribing' "$dir/sub"
# The line is printed before the SUB is known to have arrived: publish until the subscriber has had enough.
for i in $(seq 50); do
    kill -0 $sub 2>/dev/null || break
    nats pub "smoke.$i" "message $i" -H Key:value >"$dir/pub" 2>&1
done
wait $sub
check pub 'Published [0-9]+ bytes to "smoke' "$dir/pub"
check sub 'Received on "smoke\.[0-9]+"' "$dir/sub"
check headers 'Key: value' "$dir/sub"

nats reply 'service' 'the answer' --count 1 >"$dir/reply" 2>&1 &
wait_for 'Listening' "$dir/reply"
for i in $(seq 50); do
    nats req service 'the question' >"$dir/req" 2>&1
    grep -q 'the answer' "$dir/req" && break
done
check req 'the answer' "$dir/req"
wait_for 'the question|Received' "$dir/reply"
check reply 'Received|the question' "$dir/reply"

nats req nobody.home hello >"$dir/none" 2>&1
check no_responders '[Nn]o responders' "$dir/none"
nats rtt >"$dir/rtt" 2>&1
check rtt 'nats://127\.0\.0\.1:[0-9]+' "$dir/rtt"
nats server check connection >"$dir/check" 2>&1
check server_check_connection 'OK Connection' "$dir/check"
system server list >"$dir/list" 2>&1
check server_list 'smoke' "$dir/list"
system server info >"$dir/info" 2>&1
check server_info 'smoke' "$dir/info"
check server_info_version '2\.15\.1' "$dir/info"
system server ping 1 >"$dir/ping" 2>&1
check server_ping 'smoke.*rtt' "$dir/ping"
nats sub idle >"$dir/idle" 2>&1 &
wait_for 'Subscribing' "$dir/idle"
for i in $(seq 50); do
    system server report connections >"$dir/connections" 2>&1
    grep -q APP "$dir/connections" && break
done
check server_report_connections 'APP' "$dir/connections"
system server report accounts >"$dir/accounts" 2>&1
check server_report_accounts 'APP' "$dir/accounts"
system server check server --name smoke >"$dir/check_server" 2>&1
check server_check_server 'smoke' "$dir/check_server"
system server request variables >"$dir/variables" 2>&1
check server_request_variables '"system_account": *"\$SYS"' "$dir/variables"
nats account info >"$dir/account" 2>&1
check account_info 'APP' "$dir/account"
nats stream add ORDERS --subjects 'orders.>' --defaults >"$dir/stream" 2>&1
check stream_add 'ORDERS' "$dir/stream"
nats pub orders.new 'an order' -J >"$dir/stored" 2>&1
check stream_pub 'Stored in Stream: *ORDERS Sequence: *1' "$dir/stored"
nats consumer add ORDERS billing --pull --defaults >"$dir/consumer" 2>&1
check consumer_add 'billing' "$dir/consumer"
nats stream report >"$dir/streams" 2>&1
check stream_report 'ORDERS +│ File +│ +│ 1 +│ 1 ' "$dir/streams"
nats consumer report ORDERS >"$dir/consumers" 2>&1
check consumer_report 'billing +│ Pull .* 1 / 100%' "$dir/consumers"
nats consumer next ORDERS billing >"$dir/next" 2>&1
check consumer_next 'an order' "$dir/next"
nats server check stream --stream ORDERS --msgs-warn 0 --msgs-critical 0 >"$dir/check_stream" 2>&1
check server_check_stream 'OK ORDERS' "$dir/check_stream"
nats server check jetstream >"$dir/check_jetstream" 2>&1
check server_check_jetstream 'OK JetStream' "$dir/check_jetstream"
system server report jetstream >"$dir/jetstream_report" 2>&1
check server_report_jetstream 'smoke +│ +│ 1 +│ 1 +│ 1 ' "$dir/jetstream_report"
system server report jetstream --account APP >"$dir/jetstream_report" 2>&1
check server_report_jetstream_account 'smoke' "$dir/jetstream_report"
system server request jetstream --streams --consumer >"$dir/requested" 2>&1
check server_request_jetstream '"consumer_detail":.*"name": ?"billing"' "$dir/requested"
nats stream add BACKED --subjects 'backed.>' --defaults >"$dir/stream" 2>&1
nats consumer add BACKED C --pull --defaults --ack explicit >"$dir/consumer" 2>&1
for i in $(seq 5); do
    nats pub "backed.$i" "message $i" -H Key:value >"$dir/pub" 2>&1
done
nats stream rmm BACKED 3 -f >"$dir/rmm" 2>&1
nats consumer next BACKED C --count 2 --ack >"$dir/next" 2>&1
nats stream backup BACKED "$dir/backup" --no-progress >"$dir/backed" 2>&1
check stream_backup 'Received .* compressed data' "$dir/backed"
nats stream rm BACKED -f >"$dir/rm" 2>&1
nats stream restore "$dir/backup" --no-progress >"$dir/restored" 2>&1
check stream_restore 'Messages: 4' "$dir/restored"
nats stream get BACKED 5 >"$dir/get" 2>&1
check restored_message 'message 5' "$dir/get"
nats consumer info BACKED C >"$dir/consumer" 2>&1
check restored_consumer 'Unprocessed Messages: 2' "$dir/consumer"
nats bench pub smoke.bench --msgs 20000 --size 64 --no-progress >"$dir/bench" 2>&1
check bench_pub '[Pp]ub(lisher)? stats|msgs/sec' "$dir/bench"
# try NAME PATTERN ARGUMENTS...: the command says the pattern
try() {
    local name=$1 pattern=$2
    shift 2
    nats "$@" >"$dir/said" 2>&1 </dev/null
    check "$name" "$pattern" "$dir/said"
}
# does NAME ARGUMENTS...: the command ends well
does() {
    local name=$1
    shift
    if nats "$@" >"$dir/said" 2>&1 </dev/null; then echo "ok $name"; else
        failed=1
        echo "FAIL $name $(tr '\n' ' ' <"$dir/said")"
    fi
}
try stream_add_direct 'Stream JOBS was created' stream add JOBS --subjects 'jobs.>' --allow-direct --defaults
try stream_add_again '10058' stream add JOBS --subjects other --defaults
try stream_pub_header 'Stored in Stream: JOBS Sequence: 1' pub jobs.first one -J -H Key:value
try stream_pub_many 'Stored in Stream: JOBS Sequence: 21' pub jobs.many 'n {{Count}}' -J --count 20
try stream_pub_refused '10071' pub jobs.first two -J -H Nats-Expected-Last-Sequence:3
try stream_info 'Messages: 21' stream info JOBS
try stream_ls 'JOBS' stream ls
try stream_subjects 'jobs.many' stream subjects JOBS
try stream_find 'JOBS' stream find --subject 'jobs.>'
try stream_get 'n 3' stream get JOBS 4
try stream_get_last 'Key: value' stream get JOBS -S jobs.first
does stream_rmm stream rmm JOBS 2 -f
try stream_gaps '2' stream gaps JOBS --force
try stream_edit 'Maximum Messages: 500' stream edit JOBS --max-msgs 500 -f
try stream_copy 'Subjects: copy' stream copy JOBS COPY --subjects copy
try stream_edit_refused '10065' stream edit COPY --subjects jobs.x -f
try stream_seal 'Sealed: true' stream seal COPY -f
try stream_purge 'Messages: 10' stream purge JOBS --keep 10 -f

try consumer_add_pull 'Pull Mode: true' consumer add JOBS PULL --pull --ack explicit --deliver all --defaults
try consumer_add_push 'Delivery Subject: to.me' consumer add JOBS PUSH --target to.me --ack all --heartbeat 5s --flow-control --defaults
try consumer_ls 'PULL' consumer ls JOBS
try consumer_next_one 'n 11' consumer next JOBS PULL
try consumer_next_many 'n 13' consumer next JOBS PULL --count 2 --raw
try consumer_info 'Acknowledgment Floor: Consumer sequence: 3' consumer info JOBS PULL
try consumer_pause 'Paused' consumer pause JOBS PULL 1h -f
try consumer_paused 'Paused Until' consumer info JOBS PULL
does consumer_resume consumer resume JOBS PULL -f
try consumer_reset 'Acknowledgment Floor: Consumer sequence: 0 Stream sequence: 14$' consumer reset JOBS PULL --sequence 15 -f
try consumer_edit 'Description: other' consumer edit JOBS PULL --description other -f
does consumer_rm consumer rm JOBS PUSH -f

try kv_add 'History Kept: 5' kv add BUCKET --history 5
try kv_put 'one' kv put BUCKET a one
try kv_update 'two' kv update BUCKET a two 1
try kv_update_refused 'wrong last' kv update BUCKET a three 1
try kv_create_refused 'key exists' kv create BUCKET a three
try kv_get 'two' kv get BUCKET a --raw
try kv_get_first 'one' kv get BUCKET a --revision 1 --raw
try kv_history 'PUT.*one' kv history BUCKET a
try kv_ls '^a$' kv ls BUCKET
does kv_del kv del BUCKET a -f
try kv_get_deleted 'key not found' kv get BUCKET a
timeout 5 "$NATS_CLI" kv watch BUCKET >"$dir/watch" 2>&1 &
wait_for 'DEL' "$dir/watch"
check kv_watch 'DEL.*a' "$dir/watch"
try kv_info 'Values Stored: 3' kv info BUCKET

head -c 1000000 /dev/urandom >"$dir/file"
try object_add 'Bucket Name: FILES' object add FILES
try object_put 'Size: 977 KiB' object put FILES "$dir/file" --name data --no-progress
try object_ls 'data' object ls FILES
try object_get 'Wrote' object get FILES data -O "$dir/copy" --no-progress
cmp "$dir/file" "$dir/copy" >"$dir/said" 2>&1 && echo same >"$dir/said"
check object_same '^same$' "$dir/said"
try object_del 'Removed' object del FILES data -f

try bench_js_pub 'msgs/sec' bench js pub async jobs.bench --stream JOBS --msgs 2000 --no-progress
try bench_js_ordered 'msgs/sec' bench js ordered --stream JOBS --msgs 400 --no-progress
try bench_js_fetch 'msgs/sec' bench js fetch --stream JOBS --msgs 400 --no-progress
"$NATS_CLI" micro serve demo >"$dir/micro" 2>&1 &
for i in $(seq 50); do
    nats micro ping --timeout 1s >"$dir/micro_ping" 2>&1
    grep -q demo "$dir/micro_ping" && break
done
check micro_ping 'demo' "$dir/micro_ping"
try micro_ls 'demo' micro ls
try micro_info 'Service: demo' micro info demo
try micro_stats 'demo' micro stats demo

try account_info_jetstream 'Streams: [0-9]+ of Unlimited' account info
try check_consumer '^OK' server check consumer --stream JOBS --consumer PULL
try check_kv 'OK BUCKET' server check kv --bucket BUCKET
does stream_rm stream rm COPY -f
exit $failed
