#!/bin/bash
#SBATCH --job-name=kmnist
#SBATCH --array=0-15
#SBATCH --ntasks=1
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=2
#SBATCH --time=4:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=/home/me/kmnist-search.logs/%A_%a.log
#SBATCH --export=ALL
# Made by kmnist-search submit slurm. Each task of this array is one worker of a study.
set -u

export KMNIST_SEARCH_STORAGE=postgresql://me@server/kmnist

worker='' received='' signals=0
# shellcheck disable=SC2329 # the traps call it
pass_on() {
    echo "Slurm sent $1: the worker stops."
    received="$received $1" signals=$((signals + 1))
    [ -z "$worker" ] || kill -s "$1" "$worker" 2>/dev/null
}
trap 'pass_on USR1' USR1 # the time limit is near
trap 'pass_on TERM' TERM # scancel, scontrol requeue or preemption: Slurm decides whether to run this again

/venv/bin/python -P -m kmnist_search.cli worker kmnist --device auto &
worker=$!
for signal in $received; do kill -s "$signal" "$worker"; done # signals that came before the worker started

while
    before=$signals
    wait "$worker"
    status=$?
    [ "$signals" -ne "$before" ] # a signal ended the wait, not the worker
do :; done

if [ "$status" -eq 130 ] && [[ $received == *USR1* && $received != *TERM* ]]; then
    echo "The worker stopped before the time limit. Slurm starts this task again."
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$status"
