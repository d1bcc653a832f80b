#!/usr/bin/env bash
# Builds device.elf in target/firmware and says what the link part takes of flash and RAM.
set -euo pipefail
cd "$(dirname "$0")"
out=${OUT:-../../../target/firmware}
cross=${CROSS:-arm-linux-gnueabihf-}

mtu=64 window=600 tx=64
flags=(-mcpu=cortex-m4 -mthumb -mfloat-abi=soft -std=c99 -ffreestanding -nostdlib -fno-pic -fno-tree-loop-distribute-patterns
  -Os -Wall -Wextra -Werror -ffunction-sections -fdata-sections
  -DFIELDGATE_LINK_FREESTANDING "-DFIELDGATE_LINK_MTU=$mtu" "-DFIELDGATE_LINK_WINDOW=$window" "-DFIELDGATE_LINK_TX=$tx")

mkdir -p "$out"
for part in startup main link; do "${cross}gcc" "${flags[@]}" -c "$part.c" -o "$out/$part.o"; done
"${cross}gcc" "${flags[@]}" -static -no-pie -T memory.ld -Wl,--build-id=none,--gc-sections \
  "$out"/{startup,main,link}.o -o "$out/device.elf"

flash=$("${cross}size" "$out/link.o" | awk 'NR == 2 { print $1 + $2 }')
session=$((16#$("${cross}nm" -S "$out/main.o" | awk '$4 == "session" { print $2 }')))
buffers=$((window + mtu - 2 + tx))
printf 'link: %d octets of flash, %d of RAM, of which buffers %d\n' "$flash" "$session" "$buffers"
printf 'device.elf: %s octets of flash\n' "$("${cross}size" "$out/device.elf" | awk 'NR == 2 { print $1 + $2 }')"
[ "$flash" -lt 16384 ] && [ "$((session - buffers))" -lt 1024 ]
