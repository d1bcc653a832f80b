#!/usr/bin/env bash
# A gateway against a push service that it has never met: push_service.py, which was written from
# the RFCs alone, as was send.py that sends to it. Each round starts a service of another make, a
# device with two channels and a gateway, and sends 20 messages. Then the gateway is killed, 5
# more are sent while it is away, and it is started again. Each message must come to the device
# exactly once and on its channel, and be acknowledged at the service, on one connection.
#
#   FIELDGATE=path/of/fieldgate PYTHON=venv/bin/python ./foreign_service_test.sh
#
# PYTHON needs the packages of requirements.txt. KEEP=1 keeps the folder with all logs.
set -euo pipefail

: "${FIELDGATE:?path of the fieldgate binary}"
: "${PYTHON:=python3}"
FIELDGATE=$(realpath "$(command -v "$FIELDGATE")")
PYTHON=$(command -v "$PYTHON")
[[ $PYTHON = /* ]] || PYTHON=$PWD/$PYTHON
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

work=$(mktemp -d "${TMPDIR:-/tmp}/foreign.XXXXXX")
passed=0
failed=0
jobs_running=()

stop() { # PID... : ends them and waits for that
    local pid
    for pid in "$@"; do kill "$pid" 2>/dev/null || true; done
    for pid in "$@"; do
        for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
        kill -9 "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
}

cleanup() {
    stop "${jobs_running[@]}"
    if [[ -n ${KEEP:-} ]]; then echo "logs: $work"; else rm -rf "$work"; fi
}
trap cleanup EXIT

wait_for() { # SECONDS COMMAND... : true as soon as the command is, false after so many seconds
    local end=$((SECONDS + $1))
    shift
    until "$@" 2>/dev/null; do
        ((SECONDS < end)) || return 1
        sleep 0.1
    done
}

check() { # TEXT COMMAND... : one check that passes if the command does
    local text=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        echo "ok      $text"
    else
        failed=$((failed + 1))
        echo "FAILED  $text"
    fi
}

# The counts of the service: true if NAME is VALUE for each NAME=VALUE.
counts() {
    "$PYTHON" - "$dir/counts" "$@" <<'PY'
import json, sys
counts = json.load(open(sys.argv[1]))
wanted = dict(argument.split("=") for argument in sys.argv[2:])
sys.exit(any(counts[name] != int(value) for name, value in wanted.items()))
PY
}

# What the device printed: true if the texts LABEL 1 to LABEL N came exactly once each, on CHANNEL.
device_got() { # LABEL N CHANNEL
    "$PYTHON" - "$dir/device.out" "$@" <<'PY'
import json, sys
path, label, count, channel = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
came = [json.loads(line) for line in open(path)]
came = sorted((e["text"], e["channel"]) for e in came if e["event"] == "received" and e["text"].startswith(label + " "))
sys.exit(came != sorted((f"{label} {n}", channel) for n in range(1, count + 1)))
PY
}

texts() { # LABEL N : the texts, one a line
    local n
    for n in $(seq "$2"); do echo "$1 $n"; done
}

send() { # CHANNEL LABEL N
    local list
    mapfile -t list < <(texts "$2" "$3")
    "$PYTHON" "$here/send.py" --subscription "$dir/sub$1.json" --ca "$ca" --ttl 600 "${list[@]}" >"$dir/send.$2" &&
        [[ $(grep -c ': 201$' "$dir/send.$2") == "$3" ]]
}

start_gateway() {
    "$FIELDGATE" run --config "$dir/gateway.toml" >>"$dir/gateway.out" 2>>"$dir/gateway.err" &
    gateway=$!
    jobs_running+=("$gateway")
}

subscription() { # CHANNEL
    "$FIELDGATE" device --config "$dir/gateway.toml" show d1 --channel "$1" --json --wait 20 >"$dir/sub$1.json"
}

round() { # NAME OPTIONS-OF-THE-SERVICE...
    local name=$1 url service device
    shift
    dir=$work/$name
    mkdir "$dir"
    jobs_running=()

    "$PYTHON" "$here/push_service.py" --count-file "$dir/counts" "$@" >"$dir/service.out" 2>"$dir/service.err" &
    service=$!
    jobs_running+=("$service")
    wait_for 20 grep -q '^listening ' "$dir/service.out"
    url=$(sed -n 's/^listening \([^ ]*\) ca=.*/\1/p' "$dir/service.out")
    ca=$(sed -n 's/^listening [^ ]* ca=//p' "$dir/service.out")

    "$FIELDGATE" simulate "unix:$dir/dev.sock" --id d1 --json >"$dir/device.out" 2>"$dir/device.err" &
    device=$!
    jobs_running+=("$device")

    "$FIELDGATE" init --config "$dir/gateway.toml" --state "$dir/gateway" \
        --push-service "$url" --ca-file "$ca" >/dev/null
    start_gateway
    wait_for 20 "$FIELDGATE" status --config "$dir/gateway.toml" >/dev/null
    "$FIELDGATE" device --config "$dir/gateway.toml" add d1 \
        --link "unix:$dir/dev.sock" --channel 1 --channel 2 >/dev/null
    check "$name: subscription of channel 1" subscription 1
    check "$name: subscription of channel 2" subscription 2

    check "$name: 14 messages are sent to channel 1" send 1 first 14
    check "$name: 6 messages are sent to channel 2" send 2 second 6
    check "$name: the device gets the 14" wait_for 40 device_got first 14 1
    check "$name: the device gets the 6" wait_for 40 device_got second 6 2
    check "$name: all 20 are acknowledged" wait_for 40 counts messages=20 acknowledged=20
    check "$name: on 1 connection of the gateway and 2 of senders" counts monitoring_connections=1 connections=3
    check "$name: no subscription more than needed" counts subscriptions=2

    kill -9 "$gateway"
    wait "$gateway" 2>/dev/null || true
    check "$name: 5 messages are sent while the gateway is away" send 1 away 5
    check "$name: they are stored" counts messages=25 acknowledged=20
    start_gateway
    check "$name: the device gets the 5" wait_for 60 device_got away 5 1
    check "$name: they are acknowledged" wait_for 40 counts messages=25 acknowledged=25
    sleep 1 # time for a copy too many
    check "$name: nothing came twice" all_once
    check "$name: the gateway came back on 1 connection" counts monitoring_connections=2 connections=5
    check "$name: it kept its subscriptions" counts subscriptions=2
    check "$name: no capability in its log" no_capability_in_log

    stop "$gateway" "$device" "$service"
    check "$name: the service saw no error of the protocol" no_protocol_error
    jobs_running=()
}

all_once() { device_got first 14 1 && device_got second 6 2 && device_got away 5 1; }

no_capability_in_log() {
    local channel path
    for channel in 1 2; do
        path=$("$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))["endpoint"].rpartition("/")[2])' \
            "$dir/sub$channel.json")
        ! grep -qF -e "$path" "$dir/gateway.err" "$dir/gateway.out" "$dir/device.out" || return 1
    done
}

no_protocol_error() {
    grep -q '"event": "summary"' "$dir/service.err" && ! grep -qE 'protocol_error|Traceback' "$dir/service.err"
}

round promise --link promise
round response --link response
round both --link both
round odd-links --link both --link-form odd
round absolute-uris --link promise --uris absolute
round no-sets --link response --no-sets
round only-unpushed --link both --wait0 unpushed --retry 5
round impatient --link both --retry 0.05

echo "foreign service: $passed passed, $failed failed"
((failed == 0))
