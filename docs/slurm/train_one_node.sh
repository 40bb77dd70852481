#!/bin/bash
# `curate train` on one node with one GPU:
#
#     sbatch train_one_node.sh configs/train/small.yaml shards=/scratch/mine/shards/data output=/scratch/small
#
# Two minutes before its time is over, and when it is preempted, a checkpoint is written and Slurm starts this job
# again: it goes on from there.
#SBATCH --job-name=pretrain
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --mem=64G
#SBATCH --time=1-00:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append

told= # whether Slurm has told this job to go; where it tells the step alone, the step ends with status 143
trap 'told=yes; scancel --signal=TERM "$SLURM_JOB_ID"' TERM
srun curate train "$@" &
step=$!
while wait "$step"; status=$?; kill -0 "$step" 2>/dev/null; do :; done # a trap interrupts `wait`
again=
[[ $status == 143 || -n $told && $status != 0 ]] && again=yes
# A job that someone cancelled is no longer RUNNING, and stays so.
if [[ -n $again && $(squeue -h -j "$SLURM_JOB_ID" -o %T) == RUNNING ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
