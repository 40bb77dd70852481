#!/usr/bin/env bash
# A real Slurm on this machine alone, for tests: a controller and two node daemons on loopback, two "GPUs" each.
#
#     slurm_one_node.sh start     start it, wait until both nodes take jobs
#     slurm_one_node.sh stop      end its jobs and daemons, remove its files
#
# Needs root and Debian's packages: apt-get install -y --no-install-recommends slurm-wlm munge
# It writes slurm.conf and gres.conf in /etc/slurm, and does nothing where there is one that is not its own. State and
# logs are in $SLURM_TEST_STATE (/tmp/curate-test-slurm).
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

mark="# Written by tests/cluster/slurm_one_node.sh"
state=${SLURM_TEST_STATE:-/tmp/curate-test-slurm}
etc=/etc/slurm
host=$(hostname -s)

refuse() {
    echo "slurm_one_node.sh: $*" >&2
    exit 1
}

# The names of the nodes must resolve, as those of real nodes do: torchrun meets at the first.
write_configuration() {
    local memory
    memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.45)}' /proc/meminfo)
    cat >"$etc/slurm.conf" <<CONF
$mark
ClusterName=curate-test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$state/controller
SlurmdSpoolDir=$state/spool-%n
SlurmctldPidFile=$state/controller.pid
SlurmdPidFile=$state/%n.pid
SlurmctldLogFile=$state/controller.log
SlurmdLogFile=$state/%n.log
SlurmdParameters=config_overrides
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_min_interval=100000,batch_sched_delay=0,bf_interval=1
ReturnToService=2
KillWait=2
OverTimeLimit=0
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 NodeHostname=$host Port=16818 CPUs=2 RealMemory=$memory Gres=gpu:2
NodeName=localhost NodeAddr=127.0.0.1 NodeHostname=$host Port=16819 CPUs=2 RealMemory=$memory Gres=gpu:2
PartitionName=main Nodes=$host,localhost Default=YES MaxTime=INFINITE State=UP
CONF
    printf '%s\nName=gpu File=/dev/null\nName=gpu File=/dev/zero\n' "$mark" >"$etc/gres.conf"
}

runs() { [ -s "$1" ] && kill -0 "$(cat "$1" 2>/dev/null)" 2>/dev/null; }

start() {
    local program
    for program in munged slurmctld slurmd runuser; do
        command -v "$program" >/dev/null ||
            refuse "no $program here: apt-get install -y --no-install-recommends slurm-wlm munge"
    done
    [ "$host" != localhost ] || refuse "this machine is called localhost; the two nodes need two names"
    ! runs "$state/controller.pid" || refuse "it runs already; stop it first"
    mkdir -p "$etc" "$state/controller" /run/munge
    write_configuration
    chown munge: /run/munge
    if ! runs /run/munge/munged.pid; then
        runuser -u munge -- munged --pid-file=/run/munge/munged.pid
        ln -s /run/munge/munged.pid "$state/munge.pid" # ours to stop
    fi
    slurmctld
    slurmd -N "$host"
    slurmd -N localhost
    for _ in $(seq 100); do
        if [ "$(sinfo --noheader --Node --states=idle --format=%N 2>/dev/null | wc -l)" = 2 ]; then
            timeout 20 srun --nodes=2 --ntasks=2 true && return
        fi
        sleep 0.1
    done
    cat "$state"/*.log >&2
    refuse "the nodes take no jobs; their logs are above"
}

stop() {
    local file
    runs "$state/controller.pid" && timeout 10 scancel --user="$(id -un)" || true
    for file in "$state"/*.pid; do
        if runs "$file"; then
            kill "$(cat "$file")"
            while runs "$file"; do sleep 0.1; done
        fi
    done
    rm -rf "$state"
    rm -f "$etc/slurm.conf" "$etc/gres.conf"
}

[ "$(id -u)" = 0 ] || refuse "needs root, this is user $(id -un)"
for file in "$etc/slurm.conf" "$etc/gres.conf"; do
    if [ -e "$file" ] && ! grep -qxF "$mark" "$file"; then
        refuse "$file belongs to a Slurm of this machine; it stays as it is"
    fi
done
case ${1:-} in
start) start ;;
stop) stop ;;
*) refuse "say start or stop" ;;
esac
