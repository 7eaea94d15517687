#!/usr/bin/env bash
# Lint, format and tests; exit status 0 where all three are fine.
#
#     bash scripts/test.sh                          # all of it, on every core
#     bash scripts/test.sh tests/test_collator.py   # arguments go to pytest, which then runs one file after the other
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh

# With the tests' tiny models, threads wait for each other longer than they compute; where there are more of them than
# cores, one that waits must leave its core to the others.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"

# Each process takes about 1 GB of memory. One that is done takes half of what another has left, so that all end at the
# same time; what tests of a file share is made again where a file is divided.
[ "$#" -gt 0 ] || set -- -n logical --maxprocesses 8 --dist worksteal

status=0
echo "ruff check" && python -m ruff check . || status=1
echo "ruff format --check" && python -m ruff format --check . || status=1
echo "pytest" && python -m pytest "$@" || status=1
exit "$status"
