#!/bin/sh
# Trainings side by side on a machine rented for minutes: packs the pictures, trains until the time is nearly over, and
# leaves everything worth taking home in one folder. Nothing is asked and nothing is downloaded.
#
#   recipes/session.sh -p PICTURES [-v PICTURES] [-w WHEELS] [-t SECONDS] [-o FOLDER] 'RECIPE [OPTION...]'...
#
#   recipes/session.sh -p pictures -v validation -t 540 'sa-rcan-light-x2 --set data.batch=32' 'sa-rcan-light-x4 ...'
#
# -p  pictures to train on, as files; packed into stores/session first, unless that is there
# -v  pictures to validate on
# -w  folder of wheels to install first, where the machine has no internet access
# -t  seconds from the start of this script to its end, packing and all (default 900)
# -o  folder for what goes home (default home): logs, and results.tar.00, .01 ... of at most 15 MiB each, which hold the
#     logs too: `cat results.tar.* | tar x` unpacks them
# -k  MiB of weights and checkpoints at most (default 60); the smallest files go first
# -s  scales to pack (default 2,3,4)
# -d  device (default cuda)
#
# A recipe is the name of a file here, and the options are those of `finescale train`. A run that fails is tried once
# more, uncompiled, from its last checkpoint, if it has one; one that diverges is started anew, at half the rate, in
# runs/RECIPE-half, with which later sessions go on. 1: one of them failed for good; 2: nothing was begun.
set -u

seconds=900 home=home keep=60 scales=2,3,4 device=cuda pictures='' validation='' wheels=''
while getopts p:v:w:t:o:k:s:d: option; do
    case $option in
    p) pictures=$OPTARG ;;
    v) validation=$OPTARG ;;
    w) wheels=$OPTARG ;;
    t) seconds=$OPTARG ;;
    o) home=$OPTARG ;;
    k) keep=$OPTARG ;;
    s) scales=$OPTARG ;;
    d) device=$OPTARG ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$0" >&2; exit 2; }

recipes=$(dirname "$0")
wrong() { echo "session.sh: $*" >&2; exit 2; }
[ -n "$pictures" ] || [ -e stores/session ] || wrong "-p names the pictures to train on"
for run in "$@"; do
    [ -f "$recipes/${run%% *}.toml" ] || wrong "there is no recipe '${run%% *}' (the name of a file in $recipes, without .toml)"
done
end=$(($(date +%s) + seconds))
left() { echo $((end - $(date +%s))); }
say() { echo "$(left) s left: $*"; }

python=${PYTHON:-python3}
mkdir -p "$home" runs || exit 1
if [ -n "$wheels" ]; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --target runs/.site "$wheels"/*.whl || exit 1
    export PYTHONPATH="$PWD/runs/.site${PYTHONPATH:+:$PYTHONPATH}"
fi
export PYTHONPATH="$PWD/$recipes/../src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
# several processes share the cores, and each would start as many threads and compilers as there are
threads=$(($(nproc 2>/dev/null || echo 4) / $#))
[ $threads -gt 0 ] || threads=1
[ $threads -le 8 ] || threads=8 # nproc does not know what a container may use of them
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$threads}"
export TORCHINDUCTOR_COMPILE_THREADS="${TORCHINDUCTOR_COMPILE_THREADS:-$threads}"

if [ "$device" = cuda ]; then
    "$python" -c 'import torch; print(torch.__version__, torch.cuda.get_device_name())' 2>"$home/gpu.log" ||
        wrong "no GPU can be used here ($(tail -n 1 "$home/gpu.log")); -d cpu trains without"
fi
if [ ! -e stores/session ]; then
    say packing
    OMP_NUM_THREADS=1 "$python" -m finescale data prepare "$pictures" -o stores/session --scales "$scales" || exit 1
fi

had() { # FOLDER: seconds that a run there has had; "all" if it has finished
    [ -e "$1/last.ckpt" ] || { echo 0; return; }
    "$python" -c 'import sys
from pathlib import Path
from finescale.training import checkpoints
progress = checkpoints.read_last(Path(sys.argv[1]))["progress"]
print("all" if progress["spent"] >= 1 else round(progress["seconds"]))' "$1" 2>/dev/null || echo 0
}

attempt() { # SECONDS FOLDER OPTION...: trains the recipe $name if there is so much time; sets $status
    status=1 least=$1 out=$2
    shift 2
    before=$(had "runs/$out") # is part of the budget
    if [ "$before" = all ]; then
        echo "runs/$out has finished; --warm-start from its weights goes on" >>"$home/$name.log"
        status=0
        return
    fi
    budget=$(($(left) - spare))
    [ $budget -gt "$least" ] || return
    # a late start of the process eats into the budget of time, not into what comes after: it is then told to stop
    timeout --preserve-status -k 15 $((budget + starting)) "$python" -m finescale train "$recipes/$name.toml" --resume \
        --data stores/session ${validation:+--validation "$validation"} --device "$device" --out "runs/$out" \
        --no-board --budget "$((budget + before))s" "$@" >>"$home/$name.log" 2>&1
    status=$?
    [ $status -eq 0 ] || echo "ended with status $status" >>"$home/$name.log"
}

at_half() { # SECONDS OPTION...: as attempt, into runs/$name-half, at half the rate that these options give
    least=$1 status=2 out=$name-half
    shift
    rate=$("$python" -c 'import sys
from finescale.cli.main import parser
from finescale.training.recipe import load
args = parser().parse_args(sys.argv[1:])
print(load(args.recipe, args.overrides, schedule=args.schedule).optimiser.rate / 2)' \
        train "$recipes/$name.toml" "$@" 2>>"$home/$name.log") || return
    attempt "$least" "$name-half" "$@" "--set=optimiser.rate=$rate"
}

train() { # NAME OPTION...: trains, and again uncompiled if that failed, or at half the rate if it diverged
    name=$1
    shift
    : >"$home/$name.log" # of an earlier session
    for compile in '' --set=compile=off; do
        if [ -e "runs/$name-half/last.ckpt" ]; then # it diverged in an earlier session
            at_half 10 "$@" $compile
        else
            attempt 10 "$name" "$@" $compile
        fi
        case $status in 0 | 2) break ;; esac # 2: the recipe or an option is wrong
        if [ "$out" = "$name" ] && grep -q 'a lower optimiser.rate may help' "$home/$name.log"; then # it diverged
            at_half 90 "$@" $compile
            break
        fi
    done
    [ $status -eq 0 ] || echo "$name" >>"$home/failed"
}

# seconds that it takes to start Python and load the pictures, the longer the more do it at once, and to pack the results
starting=$((25 + 3 * $#)) packing=20
[ "$device" = cuda ] || starting=10
spare=$((starting + packing))
say training
runs='' watching=''
rm -f "$home/failed"
for run in "$@"; do
    # shellcheck disable=SC2086 # words of one argument
    train $run &
    runs="$runs $!"
done
if [ "$device" = cuda ] && command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=timestamp,utilization.gpu,memory.used,power.draw --format=csv -l 5 >"$home/use.log" &
    watching=$!
    trap 'kill $watching 2>/dev/null' EXIT
fi
# shellcheck disable=SC2086 # numbers
wait $runs

kill $watching 2>/dev/null # its log is packed, too
say 'packing results'
rm -f "$home"/results.tar.*
# the smallest first: of what is too much, that which would push out the most stays behind
files=$(for run in "$@"; do
    for folder in "runs/${run%% *}" "runs/${run%% *}-half"; do
        # a run that has finished has its final weights; of another the best are there
        ls -d "$folder"/*.safetensors | grep -v '/best\.safetensors$' || ls -d "$folder"/best.safetensors
        ls -d "$folder"/last.ckpt
    done
done 2>/dev/null)
files=$(for file in $files; do echo "$(wc -c <"$file") $file"; done | sort -n)
size=0
chosen=$(echo "$files" | while read -r bytes file; do
    [ -n "$file" ] || continue
    size=$((size + bytes + 1024))
    if [ $size -le $((keep * 1048576)) ]; then echo "$file"; else echo "left behind: $file ($bytes bytes)" >&2; fi
done)
# shellcheck disable=SC2086 # names without blanks
tar c $chosen "$home"/*.log | split -b 15m -d - "$home/results.tar."
for run in "$@"; do
    echo "== ${run%% *}"
    grep -v '^$' "$home/${run%% *}.log" | tail -n 3
done
ls -l "$home"
say done
[ ! -e "$home/failed" ] || { echo "failed: $(tr '\n' ' ' <"$home/failed")" >&2; exit 1; }
