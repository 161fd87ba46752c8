#!/bin/bash
# Let two hosts take locks in one folder on real NFS: in a virtual machine, whose server
# and two clients are network namespaces with an NFS client each. Prints for 4.2, 3 and
# both at once how often a lock was held twice, and how often it was an error; "0" each is
# right. Takes some 8 minutes without hardware support.
#
#   bash tests/torture/nfs_guest.sh [PYTHON [COUNT]]
#
# For Debian, as any user: apt-get install qemu-system-x86 busybox-static e2fsprogs
# nfs-common strace. The kernel and the server are downloaded and unpacked, not installed.
# PYTHON has the packages that resumable needs; COUNT is how often each process takes a lock.
set -eu
python=${1:-python3} count=${2:-25}
tree=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"

image=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: //p' | head -1)
apt-get download -q "$image" nfs-kernel-server iproute2 nfs-common rpcbind >/dev/null 2>&1
for package in *.deb; do dpkg -x "$package" packages; done
release=${image#linux-image-}
modules=packages/lib/modules/$release/kernel

# The guest's disk: busybox, the programs of NFS, Python and what resumable imports.
mkdir -p root/{bin,sbin,lib64,etc,proc,sys,dev,tmp,run,mnt,project,export/t,python,var/lib/nfs}
cp "$(command -v busybox)" root/bin/busybox
for name in sh mount mkdir cat sleep modprobe poweroff hostname unshare tar rm; do
    ln -s busybox root/bin/$name
done
find packages -path '*bin/*' -type f -exec cp {} root/sbin/ \;
cp /etc/protocols /etc/services /etc/rpc /etc/netconfig /etc/passwd /etc/group root/etc/ \
    2>/dev/null || true
echo "127.0.0.1 localhost" > root/etc/hosts
prefix=$("$python" -c 'import sys; print(sys.base_prefix)')
libraries=$("$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir -p "root$libraries" root/python/site
cp -L "$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')" \
    root/python/python
tar c -C "$libraries" --exclude=test --exclude=site-packages --exclude='config-*' . |
    tar x -C "root$libraries"
for name in numpy numpy.libs h5py h5py.libs param cloudpickle threadpoolctl.py tqdm; do
    [ -e "$site/$name" ] && cp -r "$site/$name" root/python/site/
done
{ find root/sbin root/python "root$libraries" -type f | xargs -n1 ldd 2>/dev/null || true; } |
    awk '/=> \//{print $3} /^\t\/lib/{print $1}' | sort -u | while read -r library; do
    case $library in "$work"*) continue ;; esac
    mkdir -p "root$(dirname "$library")"
    cp -L "$library" "root$library"
done
mkdir -p root/lib/modules
cp -r "packages/lib/modules/$release" root/lib/modules/
busybox depmod -b root "$release"
mkdir -p root/project/tests
cp -r "$tree/resumable" root/project/
cp -r "$tree/tests/support" root/project/tests/

cat > root/init <<'INIT'
#!/bin/sh
export PATH=/sbin:/bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t tmpfs t /run; mount -t tmpfs t /tmp
hostname server
for name in veth lockd nfsd nfs nfsv3 nfsv4; do modprobe $name; done
mkdir -p /run/netns /run/rpcbind /var/lib/nfs/sm /var/lib/nfs/sm.bak /var/lib/nfs/v4recovery
: > /var/lib/nfs/etab; : > /var/lib/nfs/rmtab
mount -t nfsd n /proc/fs/nfsd
echo 5 > /proc/fs/nfsd/nfsv4gracetime
/sbin/ip link set lo up
rpcbind -w; rpc.statd
echo "/export *(rw,no_root_squash,no_subtree_check,fsid=0,insecure,sync)" > /etc/exports
exportfs -r; rpc.mountd; rpc.nfsd 8
for n in 1 2; do
    /sbin/ip netns add host$n
    /sbin/ip link add v$n type veth peer name eth0 netns host$n
    /sbin/ip addr add 10.$n.0.1/24 dev v$n; /sbin/ip link set v$n up
    /sbin/ip netns exec host$n /sbin/ip addr add 10.$n.0.2/24 dev eth0
    /sbin/ip netns exec host$n /sbin/ip link set eth0 up
    /sbin/ip netns exec host$n /sbin/ip link set lo up
done
sleep 6; echo Y > /proc/fs/nfsd/v4_end_grace
for versions in "4.2 4.2" "3 3" "4.2 3"; do
    rm -f /project/witness*; rm -rf /export/t; mkdir -p /export/t; n=0
    echo "NFS $versions"
    for version in $versions; do
        n=$((n + 1))
        /sbin/ip netns exec host$n unshare -m -u sh /host.sh $n $version &
        pids="$pids $!"
    done
    wait $pids; pids=
done
poweroff -f
INIT
cat > root/host.sh <<'HOST'
hostname host$1
mount -t tmpfs t /run; mkdir -p /run/rpcbind
mount -t tmpfs t /var/lib/nfs; mkdir -p /var/lib/nfs/sm /var/lib/nfs/sm.bak
[ -e /tmp/began$1 ] || { rpcbind -w; rpc.statd; } ; : > /tmp/began$1
folder=/; [ $2 = 3 ] && folder=/export
mount.nfs 10.$1.0.1:$folder /mnt -o vers=$2
export PYTHONHOME=PREFIX PYTHONPATH=/project:/python/site PYTHONDONTWRITEBYTECODE=1
for process in 1 2; do
    /python/python /project/tests/support/lock_storm.py COUNT /project/witness /mnt/t &
    pids="$pids $!"
done
wait $pids; echo
HOST
sed -i "s#PREFIX#$prefix#; s#COUNT#$count#" root/host.sh
chmod +x root/init

mkdir -p early/{bin,dev,new,lib}
cp "$(command -v busybox)" early/bin/busybox
cp $modules/drivers/virtio/virtio{,_ring,_pci,_pci_legacy_dev,_pci_modern_dev}.ko \
    $modules/drivers/block/virtio_blk.ko early/lib/
cat > early/init <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs d /dev
for name in _ring "" _pci_legacy_dev _pci_modern_dev _pci _blk; do
    /bin/busybox insmod /lib/virtio$name.ko
done
/bin/busybox sleep 1
/bin/busybox mount -t ext4 /dev/vda /new
/bin/busybox mount --move /dev /new/dev
exec /bin/busybox switch_root /new /init
INIT
chmod +x early/init
(cd early && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) > early.gz
PATH=$PATH:/sbin:/usr/sbin mke2fs -q -t ext4 -d root disk 2G
qemu-system-x86_64 -nodefaults -no-reboot -machine q35 -cpu max -smp 2 -m 2048 \
    -kernel packages/boot/vmlinuz-* -initrd early.gz -serial stdio -display none \
    -append "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check" \
    -drive file=disk,if=virtio,format=raw
