#!/usr/bin/env bash
# Liveness: fails when the run's heartbeat stopped more than MINUTES ago.
#
#   launch/kubernetes/alive.sh MINUTES
#
# Until the first beat since this container's start it holds: preparing the data and compiling may
# take long, and train.watchdog looks after those.
beat=$RUN_DIR/heartbeat.json
[ "$beat" -nt "$STARTED" ] || exit 0
[ -n "$(find "$beat" -mmin "-$1")" ]
