#!/usr/bin/env bash
# Cuts the power of real file systems (ext4 and xfs on loop devices) under a log that is being written, and
# again while the log recovers; then compares the log, byte for byte, with a journal kept elsewhere of what
# was asked and what was acknowledged. io_uring and posix take turns.
#
#   tools/checks/power_cut.sh [ROUNDS]    ROUNDS per file system (default 50); needs root, xfsprogs
#
# The cut is the file system's own shutdown: from that moment nothing of what it has cached reaches the disk.
# Every tenth round begins a new log, and cuts that one within a few milliseconds.
source "$(dirname "$0")/disk.sh" xfs_io mkfs.xfs
rounds=${1:-50}

cut() {
  # Every third cut lets the file system write its own log first: other states of names and sizes survive.
  if ((RANDOM % 3)); then xfs_io -x -c shutdown "$dir/mnt"; else xfs_io -x -c 'shutdown -f' "$dir/mnt"; fi
}
again() {
  umount "$dir/mnt"
  mount "$loop" "$dir/mnt"
}

for kind in ext4 xfs; do
  device "$dir/$kind.img" 400M
  make_fs "$kind" "$loop"
  mount_at "$loop" "$dir/mnt"
  failed=0 opening=0 interrupted=0 torn=0 acknowledged=0 kept=0 asked=0
  for round in $(seq "$rounds"); do
    engine=$(engine_of "$round")
    pause=0.$((RANDOM % 6))$((RANDOM % 10))
    if ((round % 10 == 1)); then
      rm -rf "$dir/mnt/wal" "$journal"
      sync -f "$dir/mnt"
      pause=0.0$((RANDOM % 3))$((RANDOM % 10))
    fi
    writes "$engine" 20
    sleep "$pause"
    cut
    ended
    case $status in
      3) failed=$((failed + 1)) ;;
      4) opening=$((opening + 1)) ;;
      *) cat "$dir/writer.log" >&2; fail "$kind, round $round: the writer ended with $status" ;;
    esac
    again
    "$torture" recover "$dir/mnt/wal" --engine "$engine" >"$dir/recover.log" 2>&1 &
    recovery=$!
    sleep "0.0$(printf %02d $((RANDOM % 40)))"
    cut
    wait "$recovery" || interrupted=$((interrupted + 1))
    again
    checks "$(engine_of $((round / 2)))"
    read -r a h q t < <(sed -n \
      's/.*acknowledged changes \([0-9]*\), held \([0-9]*\), asked for \([0-9]*\);.*torn \([01]\)$/\1 \2 \3 \4/p' \
      "$dir/check.log")
    acknowledged=$((acknowledged + a)) kept=$((kept + h)) asked=$((asked + q)) torn=$((torn + t))
  done
  echo "$kind: $rounds rounds, $failed cut while writing, $opening while opening, $interrupted recoveries cut," \
    "$torn torn ends after that; $acknowledged changes acknowledged, none missing; $kept held of $asked asked for"
  put_away
done
