#!/usr/bin/env bash
# A real Slurm on this machine alone, for tests: a controller and two node daemons on loopback.
#
#     slurm_one_node.sh start     start it, wait until both nodes take jobs
#     slurm_one_node.sh stop      end its daemons and jobs, remove its files
#
# Needs root and Debian's packages: apt-get install -y --no-install-recommends slurm-wlm munge
# It writes /etc/slurm/slurm.conf, and does nothing where there is one that is not its own. State and logs are in
# $SLURM_TEST_STATE (/tmp/curate-test-slurm).
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

mark="# Written by tests/cluster/slurm_one_node.sh."
state=${SLURM_TEST_STATE:-/tmp/curate-test-slurm}
conf=/etc/slurm/slurm.conf
nodes="one two"

refuse() {
    echo "slurm_one_node.sh: $*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || refuse "needs root, this is user $(id -un)"
if [ -e "$conf" ] && ! grep -qxF "$mark" "$conf"; then
    refuse "$conf belongs to a Slurm of this machine; it stays as it is"
fi

write_conf() {
    local memory
    memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.4)}' /proc/meminfo)
    cat <<CONF
$mark
ClusterName=curate-test
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$state/controller
SlurmdSpoolDir=$state/%n
SlurmctldPidFile=$state/controller.pid
SlurmdPidFile=$state/%n.pid
SlurmctldLogFile=$state/controller.log
SlurmdLogFile=$state/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1,requeue_setup_env_fail
PriorityType=priority/basic
ReturnToService=2
SlurmctldDebug=info
KillWait=2
MinJobAge=600
InactiveLimit=0
NodeName=one NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=16818 CPUs=2 RealMemory=$memory
NodeName=two NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=16819 CPUs=2 RealMemory=$memory
PartitionName=main Nodes=one,two Default=YES MaxTime=INFINITE State=UP
CONF
}

start() {
    write_conf >"$conf"
    mkdir -p "$state/controller" "$state/one" "$state/two" /run/munge
    chown munge:munge /run/munge
    munged_running || runuser -u munge -- munged --pid-file=/run/munge/munged.pid
    slurmctld
    for node in $nodes; do slurmd -N "$node"; done
    sinfo
}
munged_running() { [ -s /run/munge/munged.pid ] && kill -0 "$(cat /run/munge/munged.pid)" 2>/dev/null; }
start
