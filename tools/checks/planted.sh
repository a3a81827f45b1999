#!/usr/bin/env bash
# Runs the Raft core's own tests under each planted bug and prints which test fails first.
# usage: tools/checks/planted.sh [NAME...]; exit 1 if a bug survives that docs/mutants.md does not excuse.
set -euo pipefail
cd "$(dirname "$0")/../.."

cargo test --quiet -p drave --features mutants --lib --no-run
binary=$(cargo test -p drave --features mutants --lib --no-run --message-format=json 2>/dev/null |
  sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)
names=("$@")
if [ ${#names[@]} -eq 0 ]; then
  mapfile -t names < <(sed -n '/^mutants! {/,/^}/s/^    [A-Za-z0-9]* "\([a-z0-9-]*\)"$/\1/p' src/raft/mutants.rs)
fi
survived=0
for name in "${names[@]}"; do
  output=$(DRAVE_PLANT=$name RUST_BACKTRACE=0 timeout 120 "$binary" raft:: replica:: 2>&1 || true)
  count=$(grep -c '\.\.\. FAILED$' <<<"$output" || true)
  first=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' <<<"$output" | grep -v simulation | head -1 || true)
  [ -n "$first" ] || first=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' <<<"$output" | head -1 || true)
  if [ "$count" -eq 0 ]; then
    grep -q "\`$name\`.*equivalent" docs/mutants.md 2>/dev/null || survived=1
    first="SURVIVED"
  fi
  printf '%-32s %3d  %s\n' "$name" "$count" "$first"
done
exit $survived
