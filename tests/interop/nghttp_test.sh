#!/usr/bin/env bash
# The push service of fieldgate as seen by two clients that have nothing to do with it: curl as
# the application server and nghttp (Debian package nghttp2-client) as the user agent. It was
# written from RFC 8030 alone. nghttp -v prints each frame, so what it prints shows that a message
# comes by server push, with the link of its subscription in the promise.
#
#   FIELDGATE=path/of/fieldgate ./nghttp_test.sh
#
# nghttp has no option for a certification authority, but it uses the default one of OpenSSL,
# which SSL_CERT_FILE names. It does not end if the certificate is wrong, it only warns. So each
# of its outputs is searched for that warning, and the first check is that it does warn if the
# authority is not named. It also takes an address in a URI for a name, so it is given the name
# localhost, which the certificate has as well. KEEP=1 keeps the folder with all logs.
set -euo pipefail

: "${FIELDGATE:?path of the fieldgate binary}"
FIELDGATE=$(realpath "$(command -v "$FIELDGATE")")
for tool in nghttp curl awk; do
    command -v "$tool" >/dev/null || { echo "$tool is not installed" >&2; exit 2; }
done

work=$(mktemp -d "${TMPDIR:-/tmp}/nghttp.XXXXXX")
cd "$work"
passed=0
failed=0
running=()

cleanup() {
    local pid
    for pid in "${running[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${running[@]}"; do
        for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
        kill -9 "$pid" 2>/dev/null || true
    done
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

request() { # METHOD URL CURL-OPTIONS... : the status; header fields go to the file `fields`
    local method=$1 url=$2
    shift 2
    curl -sS --max-time 20 --cacert "$ca" -X "$method" -D fields -o body -w '%{http_code}\n' "$@" "$url"
}

answers() { # STATUS METHOD URL CURL-OPTIONS...
    local wanted=$1 got
    shift
    got=$(request "$@")
    [[ $got == "$wanted" ]] || { echo "        $got instead of $wanted"; return 1; }
}

field() { # NAME : values of the header field in `fields`, one a line
    sed -n "s/^$1: *\(.*[^[:space:]]\)[[:space:]]*$/\1/Ip" fields
}

link() { # RELATION : target of the link with this relation type in `fields`
    field link | grep -oE "<[^>]*>; *rel=\"?$1\"?(,|;|$)" | sed 's/^<\([^>]*\)>.*/\1/'
}

absolute() { # REFERENCE : the URI, for a reference that is absolute or begins with a slash
    case $1 in
    https://*) echo "$1" ;;
    /*) echo "$origin$1" ;;
    *) return 1 ;;
    esac
}

by_name() { # URL : with localhost for 127.0.0.1
    echo "${1/127.0.0.1/localhost}"
}

monitor() { # FILE URL : starts nghttp, for 60 s at most, and waits until the service has the request
    local file=$1
    SSL_CERT_FILE=$ca timeout 60 nghttp -nv "$(by_name "$2")" >"$file" 2>&1 &
    running+=($!)
    wait_for 10 grep -q 'recv SETTINGS' "$file" && sleep 0.5
}

# nghttp prints header fields as `recv (stream_id=N) name: value` before the frame that had them.
# What belongs to a promise is what comes between the frame before it and itself.
promised_fields() { # FILE : header fields of all promises, one a line
    awk '
        / recv \(stream_id=[0-9]+\) / { sub(/^.* recv \(stream_id=[0-9]+\) /, ""); gathered = gathered $0 "\n"; next }
        / recv PUSH_PROMISE frame / { printf "%s", gathered }
        / (recv|send) [A-Z_]+ frame / { gathered = "" }
    ' "$1"
}

verified() { ! grep -qi 'certificate verification failed' "$1"; }

# ------------------------------------------------------------------------- the service

"$FIELDGATE" service --listen 127.0.0.1:0 --state "$work/service" >service.out 2>service.err &
running+=($!)
wait_for 20 grep -q '^listening ' service.out
url=$(sed -n 's/^listening \([^ ]*\) ca=.*/\1/p' service.out)
ca=$(sed -n 's/^listening [^ ]* ca=//p' service.out)
origin=${url%/subscribe}

# ------------------------------------------------------------------------------- TLS

SSL_CERT_FILE=/dev/null SSL_CERT_DIR=/nonexistent timeout 10 nghttp -nv "$(by_name "$url")" >unverified 2>&1 || true
check "nghttp warns if it is not told the authority" eval '! verified unverified'
SSL_CERT_FILE=$ca timeout 10 nghttp -nv "$(by_name "$url")" >trusted 2>&1 || true
check "nghttp verifies the service with its authority" verified trusted
check "and gets an answer: 405, since it was a GET" grep -q 'recv.*:status: 405' trusted

# ----------------------------------------------------------------------- subscriptions

subscribe() { # PREFIX CURL-OPTIONS... : sets PREFIX_subscription, PREFIX_push and PREFIX_set
    local prefix=$1
    shift
    answers 201 POST "$url" "$@" || return 1
    printf -v "${prefix}_subscription" %s "$(absolute "$(field location)")"
    printf -v "${prefix}_push" %s "$(link urn:ietf:params:push)"
    printf -v "${prefix}_set" %s "$(link urn:ietf:params:push:set)"
}

check "a subscription is made" subscribe one
check "it has a push resource" test -n "${one_push:-}"
check "and a set" test -n "${one_set:-}"
check "a second one is made in that set" subscribe two -H "Link: <${one_set:-}>; rel=\"urn:ietf:params:push:set\""
check "it is in that set" test "${two_set:-}" = "${one_set:-}"
check "it has a push resource of its own" test "${two_push:-}" != "${one_push:-}"

# ------------------------------------------------------------------------ server push

check "nghttp monitors the set" monitor set.out "$(absolute "$one_set")"

head -c 777 /dev/urandom >message
# Requests that are to be refused have no body. Where an answer comes before the end of a body and resets the rest with
# NO_ERROR, as HTTP/2 allows, curl 7.88 reports an error instead of that answer now and then.
check "a message without TTL is refused" answers 400 POST "$(absolute "$one_push")" -d ''
check "a message is taken over HTTP/2" answers 201 POST "$(absolute "$one_push")" --http2 \
    -H 'TTL: 60' -H 'Content-Encoding: aes128gcm' -H 'Urgency: high' -H 'Topic: secret-topic' --data-binary @message
first=$(absolute "$(field location)")
check "it comes by server push" wait_for 10 grep -q 'recv PUSH_PROMISE' set.out
check "with 777 octets" wait_for 10 grep -qE 'recv DATA frame <length=777,' set.out

promised_fields set.out >promise
check "the promise is a GET" grep -qx ':method: GET' promise
check "with a scheme" grep -qx ':scheme: https' promise
check "with the authority of the request" grep -qxF ":authority: localhost:${origin##*:}" promise
check "of the message resource" grep -qxF ":path: ${first#"$origin"}" promise
links_one="link: <($origin)?${one_push#"$origin"}>; *rel=\"?urn:ietf:params:push\"?"
links_two="link: <($origin)?${two_push#"$origin"}>; *rel=\"?urn:ietf:params:push\"?"
check "and the link of the subscription is in the promise" grep -qxE "$links_one" promise
check "with no link of the other one" eval '! grep -qxE "$links_two" promise'
check "the pushed response is 200" grep -qE 'recv \(stream_id=2\) :status: 200' set.out
check "with its Content-Encoding" grep -qE 'recv \(stream_id=2\) content-encoding: aes128gcm' set.out
check "private to this cache" grep -qE 'recv \(stream_id=2\) cache-control: .*(private|no-store)' set.out
check "without Urgency, which must not be forwarded" eval '! grep -qiE "recv .*\) urgency:" set.out'
check "without Topic, which must not be forwarded" eval '! grep -qiE "secret-topic" set.out'

head -c 4096 /dev/urandom >largest
check "4096 octets are taken over HTTP/1.1" answers 201 POST "$(absolute "$two_push")" --http1.1 \
    -H 'TTL: 60' --data-binary @largest
second=$(absolute "$(field location)")
check "they come by server push" wait_for 10 grep -qE ':path: '"${second#"$origin"}" set.out
promised_fields set.out >promise
check "with the link of the second subscription" grep -qxE "$links_two" promise
all_came() { # DATA frames of the second pushed stream
    awk -F '[=,]' '/recv DATA frame .*stream_id=4>/ { octets += $2 } END { exit octets != 4096 }' set.out
}
check "with 4096 octets" wait_for 10 all_came
check "nghttp verified the service" verified set.out
check "and saw no error" eval '! grep -qE "RST_STREAM|GOAWAY|PROTOCOL_ERROR|\[ERROR\]" set.out'
check "the request itself is not answered" eval '! grep -qE "recv \(stream_id=13\) :status" set.out'

# --------------------------------------------------------------------- acknowledgement

check "the first message is acknowledged" answers 204 DELETE "$first"
check "and then it is gone" answers 404 GET "$first"
check "it cannot be acknowledged twice" answers 404 DELETE "$first"

# ------------------------------------------------------------------------------ wait=0

once() { # FILE URL : nghttp with Prefer: wait=0; it ends when the response and all pushes are there
    SSL_CERT_FILE=$ca timeout 15 nghttp -nv -H 'prefer: wait=0' "$(by_name "$2")" >"$1" 2>&1
}

check "wait=0 ends by itself" once once.out "$(absolute "$one_set")"
check "and brings the message that is not acknowledged" grep -qF ":path: ${second#"$origin"}" once.out
check "and not the other one" eval '! grep -qF ":path: ${first#"$origin"}" once.out'
check "the second message is acknowledged" answers 204 DELETE "$second"
check "wait=0 ends with nothing stored" once empty.out "$(absolute "$one_set")"
check "with 204" grep -qE 'recv \(stream_id=[0-9]+\) :status: 204' empty.out
check "and no push" eval '! grep -q "recv PUSH_PROMISE" empty.out'

# ---------------------------------------------------------- both kinds of monitoring

check "nghttp monitors the set again" monitor again.out "$(absolute "$one_set")"
check "nghttp monitors one subscription" monitor one.out "$one_subscription"
check "a message is taken for it" answers 201 POST "$(absolute "$one_push")" -H 'TTL: 60' --data-binary @message
third=$(absolute "$(field location)")
comes_there() { grep -qF ":path: ${third#"$origin"}" one.out; }
comes_at_all() { comes_there || grep -qF ":path: ${third#"$origin"}" again.out; }
check "it comes to one of both monitors" wait_for 10 comes_at_all

# ----------------------------------------------------------------------------- removal

check "a subscription is removed" answers 204 DELETE "$one_subscription"
check "and then it is gone" answers 404 GET "$one_subscription"
gone() { # the RFC has 404 or 410 here
    local got
    got=$(request POST "$(absolute "$one_push")" -H 'TTL: 60' -d '')
    [[ $got == 404 || $got == 410 ]]
}
check "as is its push resource" gone
check "and its message" answers 404 GET "$third"
check "its monitor gets an answer" wait_for 10 grep -qE 'recv \(stream_id=13\) :status: 4(04|10)' one.out
check "the set is still there" answers 201 POST "$(absolute "$two_push")" -H 'TTL: 60' --data-binary @message
check "the set is removed" answers 204 DELETE "$(absolute "$one_set")"
check "and then it is gone" answers 404 GET "$(absolute "$one_set")"
check "as is the subscription in it" answers 404 GET "$two_subscription"
check "its monitor gets an answer" wait_for 10 grep -qE 'recv \(stream_id=13\) :status: 4(04|10)' again.out

echo "nghttp: $passed passed, $failed failed"
((failed == 0))
