#!/usr/bin/env bash
# Runs device.elf in QEMU against the gateway of ../test: each message must be printed once, in order.
set -euo pipefail
cd "$(dirname "$0")"
out=$(realpath -m ../../../target/firmware)
messages=${1:-200} largest=${2:-500}

./build.sh
cc -std=c99 -Wall -Wextra -Werror -O1 -o "$out/gateway" ../test/gateway.c
rm -f "$out/link.sock" "$out/device.out"
qemu-system-arm -M mps2-an386 -display none -monitor none -serial "unix:$out/link.sock,server=on,wait=off" \
  -serial "file:$out/device.out" -kernel "$out/device.elf" &
qemu=$!
trap 'kill $qemu' EXIT
"$out/gateway" connect "$out/link.sock" meter-7 "$messages" "$largest"

seq 0 $((messages - 1)) | sed 's/^/message /' > "$out/expected"
sed 's/^push [0-9a-f]\{16\} [12] \(message [0-9]*\) .*/\1/' "$out/device.out" | cmp - "$out/expected"
echo "$messages messages, each printed once and in order"
