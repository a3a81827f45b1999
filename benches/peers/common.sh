# What the scripts of this folder share; sourced by them.
#
# Each script starts three servers of another system on loopback, on free ports, with their data below DIR, and then
# prints, a word and its value a line:
#   version TEXT        what the program calls itself
#   endpoints HOST:PORT,...
#   pids PID,...        of the servers, for their processor time and memory
#   ready
# It stops them when its input ends, or at SIGINT or SIGTERM, and leaves DIR to whoever made it.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: $0 DIR   (an empty folder on the disk to be measured)" >&2; exit 2; }
directory=$1
mkdir -p "$directory"

require() {
  command -v "$1" >/dev/null 2>&1 || { echo "$1 is not installed: benches/peers/install.sh" >&2; exit 127; }
}

pids=()
stop() {
  trap - EXIT INT TERM
  # The servers' own ends are not waited for to be clean: the data is thrown away.
  [ ${#pids[@]} -eq 0 ] || kill -KILL "${pids[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
}
trap stop EXIT
trap 'stop; exit 130' INT TERM

# A port of loopback that nobody listens on, below those the kernel gives out by itself, and not given before.
declare -A given=()
free_port() {
  local candidate
  for _ in $(seq 200); do
    candidate=$((10000 + RANDOM % 20000))
    [ -z "${given[$candidate]:-}" ] || continue
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$candidate") 2>/dev/null; then
      given[$candidate]=1
      port=$candidate
      return
    fi
  done
  echo "no free port was found" >&2
  exit 1
}

# Runs a command until it succeeds, for 20 seconds at most.
until_it_works() {
  local deadline=$((SECONDS + 20))
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $deadline ]; then
      echo "did not come up: $*; see $directory/*.log" >&2
      exit 1
    fi
    sleep 0.1
  done
}

serve() {
  local joined
  joined=$(IFS=,; echo "${pids[*]}")
  echo "version $1"
  echo "endpoints $2"
  echo "pids $joined"
  echo ready
  cat >/dev/null
}
