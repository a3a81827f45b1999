#!/usr/bin/env bash
# A Redis server and two replicas, each of which flushes its log before it answers (appendfsync always). With WAIT 1
# after a write, the write is acknowledged by two of three that have flushed it. See common.sh for what is printed.
source "$(dirname "$0")/common.sh"
require redis-server
require redis-cli

endpoints=""
for node in 1 2 3; do
  free_port
  [ "$node" -eq 1 ] && first=$port
  of_whom=()
  [ "$node" -eq 1 ] || of_whom=(--replicaof 127.0.0.1 "$first")
  mkdir -p "$directory/n$node"
  # No rewriting of the log meanwhile, and no snapshots: both would only cost.
  redis-server --bind 127.0.0.1 --port "$port" --dir "$directory/n$node" --save '' --appendonly yes \
    --appendfsync always --auto-aof-rewrite-percentage 0 --repl-diskless-sync yes --repl-diskless-sync-delay 0 \
    "${of_whom[@]}" >"$directory/n$node.log" 2>&1 </dev/null &
  pids+=($!)
  endpoints+="${endpoints:+,}127.0.0.1:$port"
  [ "$node" -ne 1 ] || until_it_works redis-cli -p "$port" ping
done
replicated() { [ "$(redis-cli -p "$first" info replication | grep -c 'state=online')" -eq 2 ]; }
until_it_works replicated
serve "$(redis-server --version | cut -d' ' -f1-3)" "$endpoints"
