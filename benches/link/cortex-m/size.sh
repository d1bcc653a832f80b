#!/usr/bin/env bash
# Flash and RAM that the link takes in firmware for a Cortex-M4: of a device with an MTU of 256, a window of 1,026, 256
# octets to send and 16 message ids. Needs: rustup target add thumbv7em-none-eabihf, and size and nm of binutils or LLVM.
#
#   benches/link/cortex-m/size.sh            prints
#   benches/link/cortex-m/size.sh --check    and fails if it is more than 16 KiB of flash or 1 KiB of RAM beside buffers
set -euo pipefail
cd "$(dirname "$0")"
target=thumbv7em-none-eabihf
folder=${CARGO_TARGET_DIR:-$PWD/../../../target}/cortex-m
# One frame in, the window, what is sent, and 9 octets for each id: parts of what a device remembers.
buffers=$((256 + 1026 + 256 + 9 * 16))

# build LEVEL FEATURES: the path of the firmware.
build() {
  CARGO_PROFILE_RELEASE_OPT_LEVEL=$1 cargo build --quiet --locked --release --target "$target" --target-dir "$folder/$1$2" ${2:+--features $2}
  echo "$folder/$1$2/$target/release/firmware"
}
# sum FILE PATTERN: octets of the sections that match.
sum() { size -A "$1" | awk -v pattern="$2" '$1 ~ pattern { sum += $2 } END { print sum + 0 }'; }

flash='^\.(text|rodata|data|ARM\.)'
worst=0
printf '%-12s %12s %12s %12s %14s %16s\n' opt-level 'flash, with' without 'the link' 'RAM, a device' 'beside buffers'
for level in '"z"' '"s"' 2; do
  name=${level//\"/}
  with=$(build "$name" device)
  without=$(build "$name" '')
  both=$(sum "$with" "$flash")
  alone=$(sum "$without" "$flash")
  state=$((16#$(nm --print-size "$with" | awk '/STATE/ { print $2 }')))
  printf '%-12s %12d %12d %12d %14d %16d\n' "$level" "$both" "$alone" $((both - alone)) "$state" $((state - buffers))
  if [ "$name" = z ]; then worst=$((both - alone)); fi
done
if [ "${1:-}" = --check ] && { [ "$worst" -gt 16384 ] || [ $((state - buffers)) -gt 1024 ]; }; then
  echo 'larger than it should be' >&2
  exit 1
fi
