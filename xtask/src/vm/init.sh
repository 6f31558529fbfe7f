#!/bin/sh
# The first process of a guest: makes a host of it, runs what /cases names, and tells what became of it on
# the second serial line, where no word of the kernel's gets in between. `told.rs` reads it.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t cgroup2 cgroup /sys/fs/cgroup
for module in $(cat /modules/order); do
    insmod "/modules/$module"
done
ip link set lo up
hostname guest
cd /tmp || exit
# The host's own programs before busybox's, which know less.
export PATH=/usr/bin:/bin
export GOPULSE_BIN=/bin/gopulse GOPULSE_SERVICES=/services GOPULSE_LIVE=asked GOPULSE_SLOWNESS=4

stty -F /dev/ttyS1 raw
exec > /dev/ttyS1 2>&1

echo "@kernel $(uname -r)"
gopulse doctor
echo "@doctor $?"

while read -r case program test crowded; do
    echo "@case $case"
    export GOPULSE_VERDICTS="/tmp/$case"
    : > "$GOPULSE_VERDICTS"
    # They stay crowded: the kernel takes its time to give up what a process held, and the next would find
    # room later on. Cases that need the room come before.
    if [ -n "$crowded" ] && [ ! -p /tmp/crowded ]; then
        mkfifo /tmp/crowded
        # One word for each function.
        /services/trampolines $crowded > /tmp/crowded &
        head -n 1 /tmp/crowded
    fi
    # In CI a scenario that cannot run fails.
    CI=1 timeout -s KILL 180 "/scenarios/$program" \
        --exact "$test" --include-ignored --nocapture --test-threads 1
    status=$?
    sed 's/^/@verdict /' "$GOPULSE_VERDICTS"
    echo "@ended $status"
done < /cases

echo "@off"
sync
poweroff -f
