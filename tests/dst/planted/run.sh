#!/usr/bin/env bash
# Plants bugs by hand, one after another, in a copy of the tree, and asks the seeded worlds for each: every one must be caught,
# by the invariant that it breaks, within SEEDS seeds. Prints the table of docs/testing.md.
#   tests/dst/planted/run.sh [NAME…]        (all of them: half an hour on two cores)
# NAME.patch: what is wrong, "Invariant: N", "Sentence: REGEX" of what the worlds then say, and the patch itself.
set -euo pipefail
seeds=${SEEDS:-300}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
if [ -n "${TREE:-}" ]; then
  copy=$TREE # a copy that is there already, and built: it comes out as it went in
  out=$(mktemp -d)
  trap 'rm -rf "$out"' EXIT
else
  copy=$(mktemp -d "${TMPDIR:-/tmp}/gpuslice-planted.XXXXXX")
  out=$copy
  trap 'rm -rf "$copy"' EXIT
  (cd "$root" && git ls-files -co --exclude-standard -z | xargs -0 cp --parents -t "$copy")
fi
cd "$copy"
build() { cmake --build --preset release --target gpuslice_dst >"$out/build.log" 2>&1 || { grep -A5 -E 'error|FAILED' "$out/build.log" | tail -n 40 >&2; return 1; }; }
worlds() { build/release/bin/gpuslice_dst --seeds "$1" --no-strike-floor; }
field() { sed -n "s/^$1: //p" "$2" | head -n 1; }

cmake --preset release >"$out/build.log" 2>&1 && build
worlds 50 >"$out/seen.log" || { cat "$out/seen.log" >&2; echo "the worlds do not hold as they are: nothing is planted" >&2; exit 1; }

patches=("$here"/*.patch)
[ $# -gt 0 ] && patches=("${@/#/$here/}") && patches=("${patches[@]/%/.patch}")
missed=0
echo "| bug | invariant | caught by | which says |"
echo "|---|---|---|---|"
for patch in "${patches[@]}"; do
  patch -s -p1 --no-backup-if-mismatch <"$patch" || { echo "$patch: does not fit the tree any more" >&2; exit 1; }
  build
  worlds "$seeds" >"$out/seen.log" || true
  caught=$(grep -E "^seed [0-9]+: event [0-9]+: .*($(field Sentence "$patch"))" "$out/seen.log" | sort -t' ' -k2n | head -n 1 || true)
  if [ -n "$caught" ]; then
    seed=$(sed -E 's/^seed ([0-9]+):.*/\1/' <<<"$caught")
    echo "| $(head -n 1 "$patch") | $(field Invariant "$patch") | seed $seed | $(sed -E 's/^seed [0-9]+: event [0-9]+: //; s/[GM][PI][UG]-[0-9a-f-]+/…/g' <<<"$caught") |"
  else
    missed=$((missed + 1))
    echo "| $(head -n 1 "$patch") | $(field Invariant "$patch") | MISSED in $seeds seeds | $(grep -E '^seed ' "$out/seen.log" | head -n 1) |"
  fi
  patch -s -R -p1 --no-backup-if-mismatch <"$patch"
done
echo "${#patches[@]} planted, $missed missed" >&2
[ "$missed" -eq 0 ]
