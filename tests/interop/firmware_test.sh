#!/usr/bin/env bash
# The devices of boards/firmware, which share no code with the gateway, at the real one: the POSIX one on a Unix socket, and
# the firmware for a Cortex-M4 in QEMU with its UART on a pseudo-terminal. Push service, gateway and sender are the binary.
#
#   FIELDGATE=path/of/fieldgate ./firmware_test.sh [MESSAGES]
#
# Each message must be printed once and in order, and be acknowledged at the push service.
set -euo pipefail

: "${FIELDGATE:?path of the fieldgate binary}"
FIELDGATE=$(realpath "$(command -v "$FIELDGATE")")
firmware=$(realpath "$(dirname "$0")/../../boards/firmware")
messages=${1:-30}
umask 077
work=$(mktemp -d "${TMPDIR:-/tmp}/firmware.XXXXXX")
cd "$work"
running=()
cleanup() {
  local code=$? pid
  for pid in "${running[@]}"; do kill "$pid" 2>/dev/null || true; done
  [ $code -eq 0 ] || tail -n 20 "$work"/*.out "$work"/*.err 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$work"
  exit $code
}
trap cleanup EXIT

# Waits up to 30 s until a command succeeds.
await() {
  for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done
  echo "FAILED: this never came true: $*" >&2
  return 1
}

OUT=$work "$firmware/mps2-an386/build.sh"
cc -std=c99 -Wall -Wextra -Werror -O1 -o posix_device "$firmware/posix_device.c"

"$FIELDGATE" service --listen 127.0.0.1:0 --state service >service.out 2>service.err & running+=($!)
await grep -q '^listening https' service.out
url=$(awk '{print $2}' service.out) ca=$(sed 's/.* ca=//' service.out)
"$FIELDGATE" init --config gateway.toml --state gateway --push-service "$url" --ca-file "$ca" >/dev/null
"$FIELDGATE" run --config gateway.toml >gateway.out 2>gateway.err & running+=($!)
await "$FIELDGATE" status --config gateway.toml

qemu-system-arm -M mps2-an386 -display none -monitor none -serial pty -serial "file:$work/cortex.out" \
  -kernel device.elf >qemu.out 2>&1 & running+=($!)
await grep -q '/dev/pts/' qemu.out
uart=$(grep -o '/dev/pts/[0-9]*' qemu.out)
"$FIELDGATE" device --config gateway.toml add meter-7 --link "serial:$uart?baud=115200" --mtu 64 >/dev/null
"$FIELDGATE" device --config gateway.toml add meter-8 --link "unix:$work/line" --mtu 256 >/dev/null
await test -S line
./posix_device line meter-8 >posix.out 2>posix.err & running+=($!)

for meter in meter-7 meter-8; do
  "$FIELDGATE" device --config gateway.toml show $meter --json --wait 20 >$meter.json
  for number in $(seq "$messages"); do
    "$FIELDGATE" send --to $meter.json --ca "$ca" --ttl 600 "message $number of $meter" >/dev/null
  done
done
acknowledged() { "$FIELDGATE" status --config gateway.toml --json | grep -q "\"acknowledged\":$((2 * messages))[,}]"; }
await acknowledged
"$FIELDGATE" connections --config gateway.toml >connections.out

check() { # FILE METER: nothing twice, nothing missing, in order
  sed 's/^push [0-9a-f]\{16\} 1 \([0-9]* \)\?//' "$1" | cmp - <(for n in $(seq "$messages"); do echo "message $n of $2"; done)
}
check cortex.out meter-7
check posix.out meter-8
echo "firmware: $((2 * messages)) messages to a Cortex-M4 and a POSIX device, each once, in order and acknowledged"
