#!/bin/bash
#SBATCH '--job-name=it'"'"'s "100%" $HOME `id` \ ; & ü 平仮名 #*'
#SBATCH --array=0-0
#SBATCH --ntasks=1
#SBATCH --gres=gpu:a100:2
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --partition=long
#SBATCH --account=lab
#SBATCH --qos=high
#SBATCH --time=1-12
#SBATCH --signal=B:USR1@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH '--output=/sh ared/it'"'"'s 100%% ü/%A_%a.log'
#SBATCH --export=ALL
#SBATCH '--constraint=a100|h100'
#SBATCH --exclusive
# Made by kmnist-search submit slurm. Each task of this array is one worker of a study.
set -u

: "${KMNIST_SEARCH_STORAGE:?is the URL of the database: export it, then run sbatch}"

worker='' received='' signals=0
# shellcheck disable=SC2329 # the traps call it
pass_on() {
    echo "Slurm sends $1: the worker is to stop."
    received="$received $1" signals=$((signals + 1))
    [ -z "$worker" ] || kill -s "$1" "$worker" 2>/dev/null
}
trap 'pass_on USR1' USR1 # the end of the time is near
trap 'pass_on TERM' TERM # scancel, scontrol requeue or preemption: Slurm itself knows whether to run this again

'/my venv/bin/python' 'it'"'"'s "100%" $HOME `id` \ ; & ü 平仮名 #*' &
worker=$!
for signal in $received; do kill -s "$signal" "$worker"; done # what came before there was a worker

while
    before=$signals
    wait "$worker"
    status=$?
    [ "$signals" -ne "$before" ] # then a signal has ended the waiting, not the worker
do :; done

if [ "$status" -eq 130 ] && [[ $received == *USR1* && $received != *TERM* ]]; then
    echo "It has stopped before the end of its time; this task waits for its next turn."
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$status"
