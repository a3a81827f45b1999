#!/usr/bin/env bash
# A log on disks that misbehave for real: the backing store fills up, the file system turns read-only, the
# device is throttled or frozen, the disk is filled to the last byte and freed again. Each with both engines.
#
#   tools/checks/bad_disk.sh [CASE…]    backing readonly throttled frozen full (default all); needs root
#
# In every case the log is afterwards held against the journal of what was acknowledged, byte for byte.
source "$(dirname "$0")/disk.sh" mkfs.xfs fsfreeze
cases=("$@")
[ $# -gt 0 ] || cases=(backing readonly throttled frozen full)

fresh() { rm -rf "$journal" "$dir/mnt/wal"; }
failure() { sed -n 's/^failed: //p' "$dir/writer.log"; }
field() { sed -n "s/.*$1:* \([0-9]*\).*/\1/p" "$dir/writer.log"; }

# The store below the file system is full: a write or a flush fails, once, and "works" again afterwards. The
# writer must have stopped at the first failure: it exits with 1 if anything is acknowledged later. Segments
# filled with zeros meet it when they are made, segments that are only reserved when they are written.
# The loop driver takes a write that its store cut short for a whole one, and so loses what it acknowledged
# itself; requests of one page cannot be cut short.
backing() {
  local fs=$1 engine=$2 prewrite=$3 options=()
  [ "$fs" != ext4 ] || options=(-b 4096 -E nodiscard)
  [ "$fs" != xfs ] || options=(-b size=4096 -K)
  mkdir -p "$dir/small"
  mount_at -t tmpfs -o size=120m none "$dir/small"
  device "$dir/small/disk.img" 400M
  echo 4 >"/sys/block/${loop##*/}/queue/max_sectors_kb"
  make_fs "$fs" "$loop" "${options[@]}"
  mount_at "$loop" "$dir/mnt"
  fresh
  writes "$engine" 12 --pause-us 100 --trim late --prewrite "$prewrite"
  # The writer uses up what there is, fails, and then tries for a while whether anything works again.
  for _ in $(seq 400); do
    if grep -q '^failed' "$dir/writer.log" || ! kill -0 "$writer" 2>/dev/null; then break; fi
    sleep 0.05
  done
  mount -o remount,size=600m "$dir/small"
  ended
  # Without room for the zeros of a new segment the log is not broken, only full.
  [ "$status" = 3 ] || { [ "$status" = 0 ] && [ "$prewrite" = yes ] && grep -q '^full' "$dir/writer.log"; } ||
    { cat "$dir/writer.log" >&2; fail "the writer ended with $status"; }
  umount "$dir/mnt"
  mount "$loop" "$dir/mnt"
  checks "$engine"
  local how
  how=$(failure)
  echo "backing $fs $engine, zeros $prewrite: ${how:-it said full, and nothing failed}; $(cat "$dir/check.log")"
  put_away
}

# The file system finds an error in itself and turns read-only under the log.
readonly_() {
  local engine=$1
  device "$dir/ro.img" 400M
  make_fs ext4 "$loop"
  mount_at -o errors=remount-ro "$loop" "$dir/mnt"
  fresh
  local trigger=/sys/fs/ext4/${loop##*/}/trigger_fs_error
  [ -w "$trigger" ] || { echo "readonly $engine: skipped, this kernel has no trigger_fs_error"; put_away; return; }
  writes "$engine" 20
  sleep 0.5
  echo 1 >"$trigger"
  ended
  [ "$status" = 3 ] || { cat "$dir/writer.log" >&2; fail "the writer ended with $status"; }
  umount "$dir/mnt"
  fsck.ext4 -fy "$loop" >/dev/null 2>&1 || true
  mount "$loop" "$dir/mnt"
  checks "$engine"
  echo "readonly ext4 $engine: $(failure); $(cat "$dir/check.log")"
  put_away
}

# 1 MB/s: the log is slow and says how slow, and is otherwise as ever.
throttled() {
  local engine=$1 group=/sys/fs/cgroup/blkio/drave-disk-$$ number
  mkdir "$group" 2>/dev/null || { echo "throttled $engine: skipped, no blkio cgroup"; return; }
  groups+=("$group")
  device "$dir/slow.img" 400M
  losetup --direct-io=on "$loop" 2>/dev/null || true
  make_fs ext4 "$loop"
  mount_at "$loop" "$dir/mnt"
  fresh
  number=$(lsblk -dno MAJ:MIN "$loop" | tr -d ' ')
  echo "$number 1048576" >"$group/blkio.throttle.write_bps_device"
  writes "$engine" 6
  echo "$writer" >"$group/cgroup.procs"
  ended
  [ "$status" = 0 ] || { cat "$dir/writer.log" >&2; fail "the writer ended with $status"; }
  checks "$engine"
  echo "throttled ext4 $engine: longest flush $(field flush_us_max) us, $(field appended) entries in 6 s;" \
    "$(cat "$dir/check.log")"
  put_away
}

# Frozen: nothing is acknowledged while the file system stands still, everything goes on after.
frozen() {
  local fs=$1 engine=$2 before after
  device "$dir/frozen.img" 400M
  make_fs "$fs" "$loop"
  mount_at "$loop" "$dir/mnt"
  fresh
  writes "$engine" 4
  sleep 0.7
  fsfreeze -f "$dir/mnt"
  # What was complete when the file system froze is still being written down.
  sleep 0.3
  before=$(grep -c '^[DE]' "$journal")
  sleep 1.5
  after=$(grep -c '^[DE]' "$journal")
  fsfreeze -u "$dir/mnt"
  ended
  [ "$before" = "$after" ] || fail "$((after - before)) acknowledgements came while nothing could be written"
  [ "$status" = 0 ] || { cat "$dir/writer.log" >&2; fail "the writer ended with $status"; }
  [ "$(grep -c '^[DE]' "$journal")" -gt "$after" ] || fail "nothing went on after the thaw"
  checks "$engine"
  echo "frozen $fs $engine: $before acknowledgements before, none within 1.5 s of standing still;" \
    "longest flush $(field flush_us_max) us; $(cat "$dir/check.log")"
  put_away
}

# Filled to the last byte and freed, 20 times: refused by name, nothing lost, and going on by itself. Segments
# are trimmed only when there is room again: a log that recycles its files would not feel the full disk at all.
full() {
  local fs=$1 engine=$2 round free
  device "$dir/full.img" 400M
  make_fs "$fs" "$loop"
  mount_at "$loop" "$dir/mnt"
  fresh
  writes "$engine" 0 --stop "$dir/stop" --pause-us 500 --trim late
  said 'engine .*' 1 || fail "the log does not open"
  for round in $(seq 20); do
    free=$(df --output=avail -B1 "$dir/mnt" | tail -1)
    fallocate -l $((free * 9 / 10)) "$dir/mnt/filler" || fail "the disk cannot be filled"
    dd if=/dev/zero of="$dir/mnt/filler2" bs=64k 2>/dev/null || true
    dd if=/dev/zero of="$dir/mnt/filler3" bs=512 2>/dev/null || true
    said full "$round" || fail "$fs, round $round: the full disk was not felt"
    rm -f "$dir"/mnt/filler*
    said 'room again' "$round" || fail "$fs, round $round: it did not go on"
  done
  : >"$dir/stop"
  ended
  rm "$dir/stop"
  [ "$status" = 0 ] || { cat "$dir/writer.log" >&2; fail "the writer ended with $status"; }
  checks "$engine"
  echo "full $fs $engine: 20 times, refused by name and resumed each time; $(cat "$dir/check.log")"
  put_away
}
# said LINE TIMES: waits until the writer has said it so often
said() {
  for _ in $(seq 200); do
    [ "$(grep -c "^$1$" "$dir/writer.log")" -ge "$2" ] && return
    kill -0 "$writer" 2>/dev/null || { cat "$dir/writer.log" >&2; return 1; }
    sleep 0.05
  done
  return 1
}

for case in "${cases[@]}"; do
  for engine in io_uring posix; do
    case $case in
      backing)
        for fs in ext4 xfs; do for prewrite in yes no; do backing "$fs" "$engine" "$prewrite"; done; done
        ;;
      frozen | full) for fs in ext4 xfs; do "$case" "$fs" "$engine"; done ;;
      readonly) readonly_ "$engine" ;;
      throttled) throttled "$engine" ;;
      *) fail "no such case: $case" ;;
    esac
  done
done
