#!/bin/bash
# `curate run` on one node, a worker process for each group of cores:
#
#     sbatch run_one_node.sh configs/hierarchical.yaml workdir=/scratch/mine sources.pool=/data/pool \
#         executor.workers=8 executor.threads=8
#
# A minute before its time is over, and when it is preempted, the run ends and Slurm starts this job again: it goes on.
#SBATCH --job-name=curate
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=64
#SBATCH --mem=256G
#SBATCH --time=1-00:00:00
#SBATCH --signal=B:TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append

told= # whether Slurm has told this job to go; where it tells the step alone, the step ends with status 143
trap 'told=yes; scancel --signal=TERM "$SLURM_JOB_ID"' TERM
srun curate run "$@" executor.kind=local &
step=$!
while wait "$step"; status=$?; kill -0 "$step" 2>/dev/null; do :; done # a trap interrupts `wait`
again=
[[ $status == 143 || -n $told && $status != 0 ]] && again=yes
# Some images could not be had, such as from a busy server; the same command reads these again.
[[ $status == 3 && ${SLURM_RESTART_COUNT:-0} -lt 20 ]] && again=yes
# A job that someone cancelled is no longer RUNNING, and stays so.
if [[ -n $again && $(squeue -h -j "$SLURM_JOB_ID" -o %T) == RUNNING ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
