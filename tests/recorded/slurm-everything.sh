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

: "${KMNIST_SEARCH_STORAGE:?must be the URL of the database: export it, then run sbatch}"

worker='' received='' signals=0
# shellcheck disable=SC2329 # the traps call it
pass_on() {
    echo "Slurm sent $1: the worker stops."
    received="$received $1" signals=$((signals + 1))
    [ -z "$worker" ] || kill -s "$1" "$worker" 2>/dev/null
}
trap 'pass_on USR1' USR1 # the time limit is near
trap 'pass_on TERM' TERM # scancel, scontrol requeue or preemption: Slurm decides whether to run this again

'/my venv/bin/python' 'it'"'"'s "100%" $HOME `id` \ ; & ü 平仮名 #*' &
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
