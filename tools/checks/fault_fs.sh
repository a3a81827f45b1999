#!/usr/bin/env bash
# A log over a file system of our own that fails, writes less than it was given, and flips bits (tools/faultfs),
# with both engines. After each case the log is held against the journal of what was acknowledged.
#
#   tools/checks/fault_fs.sh    needs root and /dev/fuse
source "$(dirname "$0")/disk.sh" mountpoint
[ -e /dev/fuse ] || skip "there is no /dev/fuse"
cargo build --quiet -p drave-faultfs --manifest-path "$root/Cargo.toml"
faultfs=${FAULTFS:-$root/target/debug/faultfs}
log=$dir/mnt

# begin [RULE…]: an empty file system with these rules
begin() {
  rm -rf "$dir/below" "$journal"
  mkdir "$dir/below"
  rules "$@"
  "$faultfs" "$dir/below" "$dir/mnt" "$dir/rules" >"$dir/faults.log" 2>&1 &
  server=$!
  for _ in $(seq 100); do mountpoint -q "$dir/mnt" && return; sleep 0.02; done
  cat "$dir/faults.log" >&2
  skip "FUSE cannot be mounted"
}
rules() { printf '%s\n' "$@" >"$dir/rules.new" && mv "$dir/rules.new" "$dir/rules"; }
end() {
  let_go "$dir/mnt"
  wait "$server" || true
}
faults() { grep -c ': ' "$dir/faults.log" || true; }
says() { sed -n "s/^$1//p" "$dir/$2" | tail -1; }
is() { [ "$status" = "$1" ] || { cat "$dir/writer.log" "$dir/faults.log" >&2; fail "$case_: ended with $status"; }; }
met() { [ "$(faults)" -gt 0 ] || fail "$case_: the fault was not met"; }

# fails NAME ENGINE RULE: the log must fail, name it, acknowledge nothing after, and hold what it acknowledged
fails() {
  case_="$1 $2"
  begin "$3"
  writes "$2" 20
  ended
  is 3
  met
  rules
  checks "$2"
  echo "$case_: $(says 'failed: ' writer.log)"
  end
}

# survives NAME ENGINE RULE…: the log must not notice
survives() {
  case_="$1 $2"
  local engine=$2
  shift 2
  begin "$@"
  writes "$engine" 2
  ended
  is 0
  met
  rules
  checks "$engine"
  echo "$case_: $(faults) times, not noticed"
  end
}

# passes NAME ENGINE RULE…: a full disk, said and gone through
passes() {
  case_="$1 $2"
  local engine=$2
  shift 2
  begin
  writes "$engine" 5 --trim late
  sleep 1
  rules "$@"
  sleep 2
  rules
  ended
  is 0
  met
  grep -q '^room again' "$dir/writer.log" || fail "$case_: it was not full, or did not go on"
  checks "$engine"
  echo "$case_: full, and on again; $(faults) refusals"
  end
}

# refused NAME ENGINE WRITING READING WORDS: what was written under one rule must be refused in these words when
# it is read under another
refused() {
  case_="$1 $2"
  begin "$3"
  writes "$2" 1 --trim late
  ended
  is 0
  rules "$4"
  status=0
  cp "$journal" "$dir/journal.kept"
  "$torture" check "$log" "$journal" --engine "$2" >"$dir/check.log" 2>&1 || status=$?
  is 4
  met
  grep -q "$5" "$dir/check.log" || { cat "$dir/check.log" >&2; fail "$case_: named wrongly"; }
  echo "$case_: $(says 'cannot open: ' check.log)"
  # What was only read wrong is whole when it is read right.
  if [ -z "$3" ]; then
    cp "$dir/journal.kept" "$journal"
    rules
    checks "$2"
  fi
  end
}

for engine in io_uring posix; do
  fails 'write EIO' "$engine" 'write seg- 40 error 5'
  fails 'flush EIO' "$engine" 'fsync seg- 40 error 5'
  fails 'flush ENOSPC once' "$engine" 'fsync seg- 60 error 28'
  fails 'meta write EIO' "$engine" 'write meta 5 error 5'
  fails 'directory flush EIO' "$engine" 'fsyncdir * 9 error 5'
  fails 'rename EIO' "$engine" 'rename spare- 3 error 5'
  survives 'short writes' "$engine" 'write seg- 5 short 512' 'write seg- 9 short 1000' 'write seg- 13 short 4096' \
    'write seg- 14 short 1' 'write seg- 30 short 4097' 'write meta 3 short 700'
  passes 'no room for files' "$engine" 'fallocate * 1+ error 28'
  passes 'no room for names' "$engine" 'create * 1+ error 28' 'rename * 1+ error 28'
  refused 'bit flipped in writing' "$engine" 'write seg- 20 flip 70' '' 'is damaged at offset'
  refused 'bit flipped in reading' "$engine" '' 'read seg- 1+ flip 5000' 'is damaged at offset 4096'
  refused 'read EIO' "$engine" '' 'read seg- 1+ error 5' 'Input/output error'
done
