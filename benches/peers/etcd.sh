#!/usr/bin/env bash
# Three etcd servers; a put is acknowledged when a majority has flushed it. See common.sh for what is printed.
source "$(dirname "$0")/common.sh"
require etcd

clients=() peers=() cluster=""
for node in 1 2 3; do
  free_port; clients+=("$port")
  free_port; peers+=("$port")
  cluster+="${cluster:+,}n$node=http://127.0.0.1:$port"
done
for node in 1 2 3; do
  client="http://127.0.0.1:${clients[node - 1]}" peer="http://127.0.0.1:${peers[node - 1]}"
  etcd --name "n$node" --data-dir "$directory/n$node" --log-level error --quota-backend-bytes 8589934592 \
    --listen-client-urls "$client" --advertise-client-urls "$client" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
    --initial-cluster "$cluster" --initial-cluster-state new >"$directory/n$node.log" 2>&1 </dev/null &
  pids+=($!)
done
# /health is answered with 200 once there is a leader.
healthy() {
  exec 3<>"/dev/tcp/127.0.0.1/$1"
  printf 'GET /health HTTP/1.0\r\n\r\n' >&3
  head -n 1 <&3 | grep -q ' 200 '
}
for client in "${clients[@]}"; do until_it_works eval "(healthy $client)"; done
serve "$(etcd --version | head -n 1)" "$(printf '127.0.0.1:%s\n' "${clients[@]}" | paste -sd,)"
