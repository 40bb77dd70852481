#!/bin/bash
# `curate train` on several nodes, a process for each GPU:
#
#     sbatch train_nodes.sh configs/train/vitl14_long.yaml shards=/scratch/lvd/shards/data output=/scratch/vitl14
#
# Two minutes before its time is over, and when it is preempted, a checkpoint is written and Slurm starts this job
# again: it goes on from there. Slurm itself starts the processes; torchrun, which may do it too, kills them half a minute
# after a SIGTERM, whether the checkpoint is written or not, unless TORCH_ELASTIC_SHUTDOWN_TIMEOUT=600 in its environment
# gives them more, which torch before 2.12 does not look at.
#SBATCH --job-name=pretrain
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --mem=480G
#SBATCH --time=1-00:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000)) WORLD_SIZE=$SLURM_NTASKS

told= # whether Slurm has told this job to go; the status does not tell: srun ends the other processes after a crash
trap 'told=yes; scancel --signal=TERM "$SLURM_JOB_ID"' TERM
srun --kill-on-bad-exit=1 bash -c 'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID exec curate train "$@"' - "$@" &
step=$!
while wait "$step"; status=$?; kill -0 "$step" 2>/dev/null; do :; done # a trap interrupts `wait`
# A job that someone cancelled is no longer RUNNING, and stays so.
if [[ -n $told && $status != 0 && $(squeue -h -j "$SLURM_JOB_ID" -o %T) == RUNNING ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
