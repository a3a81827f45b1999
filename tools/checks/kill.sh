#!/usr/bin/env bash
# Appends every line of a file through three real nodes while nodes are killed with SIGKILL, then reads the
# log back from each node alone and compares it with the file, byte for byte.
#
#   tools/checks/kill.sh leader FILE [ROUNDS] [append options…]   kill the leader, ROUNDS times (default 3)
#   tools/checks/kill.sh all FILE [ROUNDS] [append options…]      kill all three at once
#
# Slow the append down (`--batch 1 --in-flight 16`) to have more rounds in it. Uses target/release/drave,
# ports 7101 to 7103 of 127.0.0.1 to 127.0.0.3, and a temporary directory that it removes.
set -euo pipefail
whom=$1 file=$2 rounds=${3:-3}
shift $(($# < 3 ? $# : 3))
drave=$(dirname "$0")/../../target/release/drave
dir=$(mktemp -d "${TMPDIR:-/tmp}/drave-kill-XXXXXX")
export DRAVE_ENDPOINTS=127.0.0.1:7101,127.0.0.2:7102,127.0.0.3:7103
declare -A pids=()

start() {
  "$drave" start --data-dir "$dir/n$1" 2>>"$dir/n$1.log" &
  pids[$1]=$!
}
leader() { "$drave" status --format json 2>/dev/null | sed -n 's/^  "leader_id": \([0-9]*\),$/\1/p'; }
await_leader() {
  for _ in $(seq 200); do
    [ -n "$(leader)" ] && return
    sleep 0.05
  done
  echo "no leader after 10 s; see $dir" >&2
  exit 1
}
finish() {
  kill -9 "${pids[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  [ "${keep:-}" ] || rm -rf "$dir"
}
trap finish EXIT

for n in 1 2 3; do
  "$drave" format --data-dir "$dir/n$n" --cluster-id kill --node-id "$n" 2>/dev/null \
    --member 1=127.0.0.1:7101 --member 2=127.0.0.2:7102 --member 3=127.0.0.3:7103
  start "$n"
done
await_leader
"$drave" append real --create --summary --timeout 60s "$@" <"$file" >"$dir/summary" 2>"$dir/append.log" &
append=$!

killed=0
while [ "$killed" -lt "$rounds" ] && kill -0 "$append" 2>/dev/null; do
  sleep "0.$((RANDOM % 900 + 100))"
  if [ "$whom" = all ]; then victims="1 2 3"; else victims=$(leader); fi
  [ -n "$victims" ] || continue
  kill -0 "$append" 2>/dev/null || break
  for n in $victims; do kill -9 "${pids[$n]}"; done
  echo "killed node(s) $victims"
  for n in $victims; do
    wait "${pids[$n]}" 2>/dev/null || true
    start "$n"
  done
  await_leader
  killed=$((killed + 1))
done
wait "$append" || { cat "$dir/append.log" >&2; keep=1; exit 1; }
cat "$dir/summary"
echo "kills while appending: $killed"

for n in 1 2 3; do
  for _ in $(seq 100); do
    "$drave" read real --format raw --node "$n" >"$dir/out" 2>/dev/null || true
    [ "$(stat -c %s "$dir/out")" -ge "$(stat -c %s "$file")" ] && break
    sleep 0.1
  done
  cmp "$dir/out" "$file" || { keep=1; echo "node $n differs; see $dir" >&2; exit 1; }
  echo "node $n: equal to the file, $(wc -l <"$dir/out") records"
  "$drave" read real --format json --node "$n" | cksum >"$dir/sum$n"
done
cmp "$dir/sum1" "$dir/sum2" && cmp "$dir/sum1" "$dir/sum3"
echo "the three replicas agree on every seq, time and byte"
