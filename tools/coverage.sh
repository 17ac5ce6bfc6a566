#!/usr/bin/env bash
# Line coverage that each fuzz target reaches from its seeds and what it found: tools/coverage.sh [TARGET…]
# Sources counted: those of the code under test, listed in tools/coverage.txt (TARGET LEAST-PERCENT SOURCE-REGEX).
set -euo pipefail
cd "$(dirname "$0")/.."
build=build/coverage
cmake --preset fuzz -B "$build" -DCMAKE_CXX_FLAGS="-fprofile-instr-generate -fcoverage-mapping" >/dev/null
status=0
while read -r target _; do
  grep -q "^$target " tools/coverage.txt || { echo "FAIL  $target has no line in tools/coverage.txt"; status=1; }
done <"$build/fuzzers.txt"
while read -r target least sources; do
  case $target in "" | \#*) continue ;; esac
  [ $# -eq 0 ] || [[ " $* " == *" $target "* ]] || continue
  cmake --build "$build" --target "$target" >"$build/$target.log" 2>&1 || { tail -n 30 "$build/$target.log" >&2; exit 1; }
  corpus=$(awk -v t="$target" '$1 == t {print $2}' "$build/fuzzers.txt")
  found=build/fuzz/found/$target
  [ -d "$found" ] || found=
  LLVM_PROFILE_FILE=$build/$target.profraw "$build/bin/$target" -runs=0 "$corpus" $found >"$build/$target.run" 2>&1 ||
    { tail -n 30 "$build/$target.run" >&2; exit 1; }
  llvm-profdata-19 merge -sparse "$build/$target.profraw" -o "$build/$target.profdata"
  percent=$(llvm-cov-19 export -summary-only "$build/bin/$target" -instr-profile="$build/$target.profdata" |
    python3 -c '
import json, re, sys
want = re.compile(sys.argv[1])
lines = covered = 0
for f in json.load(sys.stdin)["data"][0]["files"]:
    if want.search(f["filename"]):
        lines += f["summary"]["lines"]["count"]; covered += f["summary"]["lines"]["covered"]
print("%.1f" % (100 * covered / lines if lines else 0))' "$sources")
  if python3 -c 'import sys; sys.exit(float(sys.argv[1]) < float(sys.argv[2]))' "$percent" "$least"; then
    echo "ok    $target: $percent % of the lines of $sources (least: $least)"
  else
    echo "FAIL  $target: $percent % of the lines of $sources (least: $least)"; status=1
  fi
done <tools/coverage.txt
exit $status
