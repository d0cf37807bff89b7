#!/usr/bin/env bash
# What a scheduler starts once on each node. It starts the node's processes, has them write a
# checkpoint when the scheduler ends the node, and ends with fasttrain's own exit code:
#
#   0   the run is complete          2  the user's mistake    75  stopped by a signal:
#   1   a crash: start it again      3  training diverged         start it again
#
#   RUN_DIR=runs/mine launch/node.sh configs/advanced.yaml [KEY.PATH=VALUE ...]
#
# From the environment, by these names or torch's (PET_...):
#   RUN_DIR       the run's folder, which all nodes see
#   PROCESSES     on this node: the number of its GPUs, or how many share its cores (1)
#   NODES         how many nodes there are (1)
#   NODE_RANK     which of them this is, from 0
#   MASTER_ADDR   the first node's name, and
#   MASTER_PORT   a free port there
#   PET_SHUTDOWN_TIMEOUT   seconds that a checkpoint may take (120): less than the scheduler waits
#   STARTED       a file to touch at the start, for a liveness probe
set -uo pipefail

refuse() {
    echo "node.sh: $*" >&2
    exit 2
}

[ -n "${RUN_DIR:-}" ] || refuse "RUN_DIR is missing; name the run's folder, as in RUN_DIR=runs/mine"
processes=${PROCESSES:-${PET_NPROC_PER_NODE:-1}}
nodes=${NODES:-${PET_NNODES:-1}}
rank=${NODE_RANK:-${PET_NODE_RANK:-0}}
port=${MASTER_PORT:-${PET_MASTER_PORT:-29500}}
for given in "PROCESSES=$processes" "NODES=$nodes"; do
    [[ $given =~ ^[A-Z]+=[1-9][0-9]*$ ]] || refuse "$given must be a whole number from 1 up"
done
for given in "NODE_RANK=$rank" "MASTER_PORT=$port"; do
    [[ $given =~ ^[A-Z_]+=[0-9]+$ ]] || refuse "$given must be a whole number from 0 up"
done
export PET_SHUTDOWN_TIMEOUT=${PET_SHUTDOWN_TIMEOUT:-120}
[ -z "${STARTED:-}" ] || touch "$STARTED"

# All but the first node may have ended, and come to no meeting, when a run is complete.
if [ -e "$RUN_DIR/result.json" ]; then
    processes=1 nodes=1
fi

train=(fasttrain train "$@" --run-dir "$RUN_DIR" --resume)
if [ $((processes * nodes)) -eq 1 ]; then
    # `accelerate launch` with one process leaves it behind when it is told to end.
    command=(python -m "${train[@]}")
else
    threads=$(($(nproc) / processes))
    command=(
        accelerate launch --multi_gpu # on CPUs too: '--cpu' silently starts one process
        --num_machines "$nodes" --num_processes "$((processes * nodes))"
        --machine_rank "$rank"
        --main_process_ip "${MASTER_ADDR:-${PET_MASTER_ADDR:-127.0.0.1}}"
        --main_process_port "$port"
        # No restarts by the launcher: it would repeat the user's mistakes, too.
        --same_network --rdzv_backend static --rdzv_conf timeout=1800 --max_restarts 0
        --mixed_precision no --dynamo_backend no # the recipe decides
        --num_cpu_threads_per_process "$((threads > 0 ? threads : 1))"
        -m "${train[@]}"
    )
fi

FASTTRAIN_EXIT_CODES=$(mktemp)
export FASTTRAIN_EXIT_CODES
trap 'rm -f "$FASTTRAIN_EXIT_CODES"' EXIT

# A launcher takes every signal for a new one, so it gets one, from here, and none with the
# process group; should this script be killed, the system tells it.
asked=
stop() {
    [ -n "$asked" ] || kill -TERM "$launcher"
    asked=yes
}
setpriv --pdeathsig TERM setsid "${command[@]}" &
launcher=$!
trap stop TERM INT USR1

while :; do # a signal ends `wait`, not the launcher
    wait "$launcher"
    status=$?
    kill -0 "$launcher" 2>/dev/null || break
done

# Launchers end with 1 whatever their processes end with.
for code in 2 3 75; do
    ! grep -qx "$code" "$FASTTRAIN_EXIT_CODES" || exit "$code"
done
# Told to end when the run was complete already, a launcher still says that it failed.
if [ -n "$asked" ] && [ -e "$RUN_DIR/result.json" ]; then
    exit 0
fi
[ "$status" -eq 0 ] || exit 1
