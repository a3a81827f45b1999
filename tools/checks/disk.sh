# What the checks on real file systems share: loop devices, mounts, the writer, and putting all of it away.
# To be sourced, with the programs needed as arguments. The log is at $log, in a file system at $dir/mnt.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
torture=${TORTURE:-$root/target/debug/examples/torture}

skip() { echo "skipped: $*"; exit 0; }
fail() { echo "FAILED: $*; left for inspection: $dir" >&2; keep=1; exit 1; }

[ "$(id -u)" = 0 ] || skip "mounting needs root"
for program in losetup mkfs.ext4 mount umount "$@"; do
  command -v "$program" >/dev/null || skip "$program is not installed"
done
[ -e /dev/loop-control ] || skip "there are no loop devices"

[ -n "${TORTURE:-}" ] || cargo build --quiet -p drave-wal --example torture --manifest-path "$root/Cargo.toml"
dir=$(mktemp -d "${TMPDIR:-/tmp}/drave-disk-XXXXXX")
mkdir "$dir/mnt"
journal=$dir/journal log=$dir/mnt/wal
loops=() mounts=() groups=() pids=()

# let_go MOUNTPOINT: unmounts it; a frozen or failed file system may need a moment until its last user is gone
let_go() {
  fsfreeze -u "$1" 2>/dev/null || true
  for _ in $(seq 50); do
    mountpoint -q "$1" || return 0
    umount "$1" 2>/dev/null || sleep 0.1
  done
  echo "$1 cannot be unmounted" >&2
}

# put_away: the log's file system, the devices, what they lie on, the cgroups
put_away() {
  let_go "$dir/mnt"
  local at
  for at in "${loops[@]}"; do losetup -d "$at" 2>/dev/null || true; done
  for at in "${mounts[@]}"; do let_go "$at"; done
  for at in "${groups[@]}"; do rmdir "$at" 2>/dev/null || true; done
  mounts=() loops=() groups=()
}

cleanup() {
  local status=$?
  trap - EXIT
  for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  put_away
  [ -n "${keep:-}" ] || rm -rf "$dir"
  exit "$status"
}
trap cleanup EXIT

# device FILE BYTES: a loop device over a new sparse file; its name in $loop
device() {
  truncate -s "$2" "$1"
  loop=$(losetup -f --show "$1") || skip "no loop device can be set up"
  loops+=("$loop")
}

# make_fs KIND DEVICE [MKFS OPTIONS…]
make_fs() {
  local kind=$1 on=$2
  shift 2
  case $kind in
    ext4) mkfs.ext4 -q -F "$@" "$on" ;;
    xfs) mkfs.xfs -q -f "$@" "$on" ;;
  esac
}

mount_at() {
  mount "$@"
  mounts+=("${!#}")
}

# writes ENGINE SECONDS [OPTIONS…]: the writer in the background; its number in $writer
writes() {
  local engine=$1 seconds=$2
  shift 2
  "$torture" write "$log" "$journal" --engine "$engine" --seconds "$seconds" \
    --seed "$RANDOM" "$@" >"$dir/writer.log" 2>&1 &
  writer=$!
  pids=("$writer")
}

# ended: waits for the writer; its exit status in $status
ended() {
  status=0
  wait "$writer" 2>/dev/null || status=$?
  pids=()
}

# checks ENGINE: the log must be what the journal says
checks() {
  "$torture" check "$log" "$journal" --engine "$1" >"$dir/check.log" 2>&1 ||
    { cat "$dir/writer.log" "$dir/check.log" >&2; fail "the log is not what was acknowledged"; }
}

engine_of() { if (($1 % 2)); then echo io_uring; else echo posix; fi; }
