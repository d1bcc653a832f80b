#!/usr/bin/env bash
# The push service of fieldgate as seen by two user agents that have nothing to do with it: one on
# the http2 module of Node, one on Python's h2, both written from RFC 8030 alone. The one in Python
# states limits, keeps its windows shut, refuses what is promised and does not read, too.
#
#   FIELDGATE=path/of/fieldgate PYTHON=venv/bin/python ./user_agents_test.sh [receipts] [topics] [strict]
#
# The arguments name checks that are left out otherwise: receipts for messages (RFC 8030 sections
# 5.1 and 6.3), messages that replace others (5.4), and what the RFC says by its letter where the
# service has a limit (Python only). PYTHON needs the packages of requirements.txt. Node is 18 or newer.
# KEEP=1 keeps the folder with all logs.
set -euo pipefail

: "${FIELDGATE:?path of the fieldgate binary}"
: "${PYTHON:=python3}"
FIELDGATE=$(realpath "$(command -v "$FIELDGATE")")
PYTHON=$(command -v "$PYTHON")
[[ $PYTHON = /* ]] || PYTHON=$PWD/$PYTHON
command -v node >/dev/null || { echo "node is not installed" >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
more=("$@")

work=$(mktemp -d "${TMPDIR:-/tmp}/agents.XXXXXX")
running=()

cleanup() {
    local pid
    for pid in "${running[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${running[@]}"; do
        for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
        kill -9 "$pid" 2>/dev/null || true
    done
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

"$FIELDGATE" service --listen 127.0.0.1:0 --state "$work/service" >"$work/service.out" 2>"$work/service.err" &
service=$!
running+=("$service")
wait_for 20 grep -q '^listening ' "$work/service.out"
url=$(sed -n 's/^listening \([^ ]*\) ca=.*/\1/p' "$work/service.out")
ca=$(sed -n 's/^listening [^ ]* ca=//p' "$work/service.out")

agent() { # NAME COMMAND... : its lines are shown and kept; false if a check failed or it did not come to its end
    local name=$1
    shift
    timeout 180 "$@" --url "$url" --ca "$ca" 2>"$work/$name.err" | tee "$work/$name.out" ||
        { tail -n 20 "$work/$name.err" >&2; return 1; }
}

of_node=()
for name in "${more[@]}"; do [[ $name == strict ]] || of_node+=("$name"); done
result=0
agent node node "$here/user_agent.mjs" "${of_node[@]}" || result=1
agent python "$PYTHON" "$here/user_agent.py" "${more[@]}" || result=1

if ! kill -0 "$service" 2>/dev/null; then
    echo "FAILED  the service is still there"
    result=1
elif grep -nE 'panicked|ERROR' "$work/service.err"; then
    echo "FAILED  the service told of no error"
    result=1
fi

echo "user agents: $(cat "$work"/*.out | grep -c '^ok ') passed, $(cat "$work"/*.out | grep -c '^FAILED ') failed"
((result == 0))
