#!/usr/bin/env bash
# An application server that is told of subscriptions, and sends to devices with nothing but what it was told: app_server.py
# takes what the gateway posts, pywebpush sends to it. In between the subscriptions change, the gateway is killed, and the
# device is removed.
#
#   FIELDGATE=path/of/fieldgate PYTHON=venv/bin/python ./announce_test.sh
#
# PYTHON needs the packages of requirements.txt. KEEP=1 keeps the folder with all logs.
set -euo pipefail

: "${FIELDGATE:?path of the fieldgate binary}"
: "${PYTHON:=python3}"
FIELDGATE=$(realpath "$(command -v "$FIELDGATE")")
PYTHON=$(command -v "$PYTHON")
[[ $PYTHON = /* ]] || PYTHON=$PWD/$PYTHON
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

work=$(mktemp -d "${TMPDIR:-/tmp}/announce.XXXXXX")
cd "$work"
passed=0
failed=0
running=()

cleanup() {
    local pid
    for pid in "${running[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    cd /
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

start() { # NAME COMMAND... : its output is in NAME.out and NAME.err
    local name=$1
    shift
    "$@" >>"$name.out" 2>>"$name.err" &
    running+=($!)
}

gateway() { # ARGUMENTS... : asks the running gateway
    local command=$1
    shift
    "$FIELDGATE" "$command" --config gateway.toml "$@"
}

knows() { # CHANNEL : whether the application server has its current subscription, as the gateway says it is
    gateway device show d1 --channel "$1" --json >"shown.$1" && "$PYTHON" - "told/d1.$1.json" "shown.$1" <<'PY'
import json, sys
told, shown = (json.load(open(path)) for path in sys.argv[1:])
sys.exit(any(told[name] != shown[name] for name in ("endpoint", "keys")))
PY
}

changed() { # CHANNEL FILE : whether it was told of another one than that, and knows it
    ! cmp -s "told/d1.$1.json" "$2" && knows "$1"
}

send() { # CHANNEL TEXT : as the application server does
    "$PYTHON" "$here/push.py" --subscription "told/d1.$1.json" --ca "$ca" --ttl 600 "$2" >/dev/null
}

received() { grep -qF "\"text\":\"$1\"" device.out; }

answered() { # STATUS : how many requests were answered so
    grep -c "\"status\": $1" app.out || true
}

no_secret_in_log() {
    local file
    for file in first.json told.json; do
        path=$("$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))["endpoint"].rpartition("/")[2])' "$file")
        ! grep -qF -e "$path" gateway.err gateway.out || return 1
    done
    ! grep -qF -e app-token-of-the-test gateway.err gateway.out
}

mkdir -m 700 told
start service "$FIELDGATE" service --listen 127.0.0.1:0 --state "$work/service"
start app "$PYTHON" "$here/app_server.py" --token app-token-of-the-test --folder told --refuse 2
start device "$FIELDGATE" simulate "unix:$work/d1.sock" --id d1 --json
wait_for 20 grep -q '^listening ' service.out
wait_for 20 grep -q '^listening ' app.out
url=$(sed -n 's/^listening \([^ ]*\) ca=.*/\1/p' service.out) ca=$(sed -n 's/^listening [^ ]* ca=//p' service.out)
app_url=$(sed -n 's/^listening \([^ ]*\) ca=.*/\1/p' app.out) app_ca=$(sed -n 's/^listening [^ ]* ca=//p' app.out)

"$FIELDGATE" init --config gateway.toml --state "$work/gateway" --push-service "$url" --ca-file "$ca" >/dev/null
(umask 077 && echo app-token-of-the-test >token)
cat >>gateway.toml <<TOML
[announce]
url = "$app_url"
ca_file = "$app_ca"
credential_file = "$work/token"
TOML
check "the configuration is right" eval 'gateway check >check.out'
start gateway "$FIELDGATE" run --config gateway.toml
wait_for 20 gateway status >/dev/null
gateway device add d1 --link "unix:$work/d1.sock" --channel 1 --channel 2 >/dev/null

check "it is told of channel 1" wait_for 30 knows 1
check "it is told of channel 2" wait_for 30 knows 2
check "after it refused twice" test "$(answered 503)" = 2
check "and no more often than needed" test "$(answered 201)" = 2
check "it sends to channel 1" send 1 'open valve 1'
check "it sends to channel 2" send 2 'open valve 2'
check "the device receives the first" wait_for 20 received 'open valve 1'
check "the device receives the second" wait_for 20 received 'open valve 2'

cp told/d1.1.json first.json
gateway device rotate d1 --channel 1 >/dev/null
check "it is told of another subscription" wait_for 30 changed 1 first.json
cp told/d1.1.json told.json
check "it sends there" send 1 'close valve 1'
check "the device receives it" wait_for 20 received 'close valve 1'

kill -9 "${running[-1]}"
wait "${running[-1]}" 2>/dev/null || true
start gateway "$FIELDGATE" run --config gateway.toml
wait_for 20 gateway status >/dev/null
check "it sends while the gateway comes back" send 2 'close valve 2'
check "the device receives it" wait_for 30 received 'close valve 2'
gateway device rotate d1 --channel 2 >/dev/null
cp told/d1.2.json second.json
check "it is told of another subscription of channel 2" wait_for 30 changed 2 second.json
check "and of nothing else" test "$(answered 201)" = 4

gateway device remove d1 >/dev/null
check "it is told that both are gone" wait_for 30 eval '! compgen -G "told/*.json" >/dev/null'
check "nothing was wrong with any request" eval '! grep -q problem app.out'
check "no secret is in the log" no_secret_in_log

echo "announce: $passed passed, $failed failed"
((failed == 0))
