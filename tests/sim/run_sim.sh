#!/usr/bin/env bash
# Runs the simulator with a seed that differs from commit to commit, or OSTLER_SIM_SEED, so that
# lives are tried that nobody has tried before. It prints the seed, which repeats the run.
# OSTLER_SIM_EVENTS: so many events instead of what ARGUMENTs say.
# usage: run_sim.sh OSTLER_SIM [ARGUMENT]...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
commit=$(git rev-parse HEAD 2>/dev/null || echo 2a)
export OSTLER_SIM_SEED=${OSTLER_SIM_SEED:-$((16#${commit:0:12}))}
exec "$@" ${OSTLER_SIM_EVENTS:+--events "$OSTLER_SIM_EVENTS"}
