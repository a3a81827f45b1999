#!/usr/bin/env bash
# Counts the instructions of one durable append: callgrind over two runs of different length, the difference
# divided, so that opening and closing fall out. Both engines can be given; valgrind knows only system calls'
# effects, not the kernel's own instructions.
# usage: tools/checks/instructions.sh [ENGINE [BODY_BYTES [WAITING [LIMIT]]]]; exit 1 at LIMIT (1000) or above.
set -euo pipefail
cd "$(dirname "$0")/../.."

engine=${1:-posix}
bytes=${2:-128}
waiting=${3:-4096}
limit=${4:-1000}
few=$((10 * waiting))
many=$((110 * waiting))

cargo build --quiet --release -p drave-wal --example instructions
count() {
  valgrind --tool=callgrind --callgrind-out-file=/dev/null \
    target/release/examples/instructions "$engine" "$1" "$bytes" "$waiting" 2>&1 |
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}
each=$((($(count $many) - $(count $few)) / (many - few)))
echo "$engine: $each instructions per append of $bytes bytes, $waiting waiting"
[ "$each" -lt "$limit" ]
