# Kills `slotpass reserve`, `release` and `apply` at random moments, and looks at what is left each time. Runs in the machine,
# with these set: slotpass, nvme (a function with driver nvme), file (that of the aliases), line (the function's), kills.
set -u
exec 9<> <(:)
driver() { local link; link=$(readlink /sys/bus/pci/devices/$nvme/driver) || link=none; driver=${link##*/}; }
fail() { echo "after $count kills, $1: $2; driver $driver, override $(</sys/bus/pci/devices/$nvme/driver_override), file:"; cat $file; exit 1; }
# The file has all lines whole, or is not there.
whole() {
  local text=
  [ ! -e $file ] || text=$(<$file)
  case $text in "# mine"|"# mine"$'\n'"$line") ;; *) fail "$1" "the file is torn" ;; esac
}
ends() { "$slotpass" "$@" >/run/said 2>&1 || fail "$*" "failed: $(</run/said)"; }
# How long a command takes, in milliseconds.
time_of() { local begin=${EPOCHREALTIME/./}; ends "$@"; took=$(( (${EPOCHREALTIME/./} - begin) / 1000 + 1 )); }
# Half of the times the command is killed when the function is just with no driver, else at any time until it should have ended.
killed() {
  local most=$1 wait pid; shift
  "$slotpass" "$@" >/dev/null 2>&1 & pid=$!
  if ((RANDOM % 2)); then
    while [ -e /sys/bus/pci/devices/$nvme/driver ] && kill -0 $pid 2>/dev/null; do :; done
  else
    wait=$((RANDOM % most))
    printf -v wait '%d.%03d' $((wait / 1000)) $((wait % 1000))
    read -r -t $wait -u 9 || true
  fi
  kill -9 $pid 2>/dev/null || true
  # Its state is looked at when it is gone. One that had ended by itself does not count.
  wait $pid 2>/dev/null
  [ $? != 137 ] || count=$((count + 1))
  whole "$*"
  driver
  case $driver in nvme|vfio-pci) ;; *) between=$((between + 1)) ;; esac
}
count=0 between=0 driver=?
echo '# mine' >$file
# What is not in memory yet would take its time only once.
ends reserve $nvme
ends release $nvme
time_of reserve $nvme; reserve=$took
time_of release $nvme; release=$took
ends reserve --boot $nvme
time_of apply; apply=$took
ends release $nvme
echo "reserve takes $reserve ms, release $release ms, apply $apply ms"
# What an interrupted command left is what the next one begins with.
reserved() { grep -q ^ppt $file; }
while ((count < kills)); do
  killed $reserve reserve $nvme
  if reserved; then killed $apply apply; fi
  if reserved && ((RANDOM % 2)); then ends apply; else ends reserve $nvme; fi
  driver; [ $driver = vfio-pci ] || fail reserve "is not finished"
  killed $release release $nvme
  if reserved; then killed $apply apply; fi
  if reserved && ((RANDOM % 4 == 0)); then
    ends apply
    driver; [ $driver = vfio-pci ] || fail release "apply does not undo it"
  fi
  if reserved; then ends release $nvme; fi
  driver; [ $driver = nvme ] || fail release "is not finished"
done
whole "the end"
rm $file
echo "$count kills, $between of them with the function between drivers"
