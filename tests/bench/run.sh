#!/usr/bin/env bash
# Measures and writes a page: run.sh BUILD_DIR PAGE. Called by ./dev bench.
set -euo pipefail
build=$(cd "$1" && pwd)
page=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

binary=$build/bin/gpuslice
"$build/bin/gpuslice-sim" create --root "$work/node8" --gpus 8xA100-SXM4-40GB >/dev/null
"$build/bin/gpuslice-sim" create --root "$work/node16" --gpus 16xA100-SXM4-40GB >/dev/null
# `chrt -r 10 ./dev bench` measures us and not our neighbours on a machine that does other work.
priority=
chrt -p $$ | grep -qE 'SCHED_(RR|FIFO)' && priority=' at real-time priority (`chrt`), since the machine had other work,'
library=$(find "$work/node8/usr" -name libnvidia-ml.so.1 | head -n 1)

{
  echo '# Performance'
  echo
  echo "Measured by \`./dev bench\` on simulated nodes,$priority on $(nproc) cores ($(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)),"
  echo "$(date -u +%Y-%m-%d). Budgets are those of the architecture. The agent is started as users start it; everything is seen from outside, over its sockets and"
  echo 'from `/proc`. Programs: `tests/bench/agent_bench.cc`, `agent_soak.cc`, `nvml_bench.cc`, `planning_bench.cc`.'
  echo
  echo '| what | budget | measured |'
  echo '|---|---|---|'
  printf '| release binary | ≤ 16 MB | %s MB |\n' "$(awk "BEGIN{printf \"%.1f\", $(stat -c %s "$binary")/1e6}")"
  "$build/bin/agent_bench" "$binary" "$work/node8" 8 1
  "$build/bin/agent_bench" "$binary" "$work/node8" 8 4
  "$build/bin/agent_bench" "$binary" "$work/node8" 8 4 all-roles
  "$build/bin/agent_bench" "$binary" "$work/node16" 16 1
  "$build/bin/agent_bench" "$binary" "$work/node8" 8 1000
  "$(dirname "$0")/soak.sh" "$build" 300 100000
  "$build/bin/nvml_bench" "$library"
  "$build/bin/planning_bench"
  echo
  echo '## A change of one GPU'
  echo
  echo "An A100 with MIG on. Each create and each destroy takes 200 ms where a time is given; calls are those that change something, done or refused, as the simulated"
  echo 'node counts them. The other column is the sequence of mig-parted, written call by call (`tests/bench/mig_parted_sequence.cc`), without its child processes, hooks'
  echo 'and the pods that its manager stops. Program: `tests/bench/mig_bench.py`.'
  echo
  echo '| change | gpuslice apply | mig-parted'"'"'s sequence |'
  echo '|---|---|---|'
  python3 "$(dirname "$0")/mig_bench.py" --bin "$build/bin"
} >"$work/page.md"
mkdir -p "$(dirname "$page")"
cp "$work/page.md" "$page"
cat "$page"
