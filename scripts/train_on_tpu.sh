#!/usr/bin/env bash
# Trains on Cloud TPU Spot VMs until the run is complete. Creates the TPU, copies the committed code
# to its hosts, installs it, starts the training, and begins again after each preemption. Deletes the
# TPU at the end, and also if the training fails within minutes three times.
#
#   scripts/train_on_tpu.sh NAME ZONE ACCELERATOR_TYPE RUNTIME_VERSION TRAIN_ARGUMENTS...
#
# Run it in tmux on a machine that stays up, such as a small VM. --workdir must be in a bucket.
set -euo pipefail
if (($# < 5)); then
  sed -n '2,8s/^# \{0,1\}//p' "$0"
  exit 2
fi
name=$1 zone=$2 type=$3 runtime=$4
shift 4
poll_seconds=${POLL_SECONDS:-60}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
git archive --output="$scratch/an_jax.tar.gz" HEAD

resource() { gcloud compute tpus queued-resources "$1" "$name" --zone="$zone" "${@:2}"; }
state() {
  resource describe --format='value(state.state)' 2>"$scratch/error" && return
  grep -qi 'not.found' "$scratch/error" && echo NONE || cat "$scratch/error"
}
on_all_hosts() { gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"; }

install='mkdir -p an_jax && tar -xzf an_jax.tar.gz -C an_jax && cd an_jax &&
  { test -x ~/.local/bin/uv || curl -LsSf https://astral.sh/uv/install.sh | sh; } &&
  { test -x .venv/bin/python || ~/.local/bin/uv venv -q --python 3.12 .venv; } &&
  ~/.local/bin/uv pip install -q -e ".[tpu]"'

train() {
  gcloud compute tpus tpu-vm scp "$scratch/an_jax.tar.gz" "$name:" --zone="$zone" --worker=all &&
    on_all_hosts "$install" &&
    on_all_hosts "cd an_jax && .venv/bin/python train.py $*" 2>&1 | tee "$scratch/log" &&
    grep -q '^best val top-1' "$scratch/log" # a preempted run ends without this line
}

quick_failures=0
while true; do
  now=$(state)
  echo "$(date +%H:%M:%S) $name: $now"
  case $now in
    NONE)
      resource create --node-id="$name" --accelerator-type="$type" --runtime-version="$runtime" --spot || true ;;
    ACTIVE)
      began=$SECONDS
      if train "$(printf '%q ' "$@")"; then
        resource delete --force --quiet
        exit 0
      elif [[ $(state) == ACTIVE ]] && ((SECONDS - began < 600)); then
        if ((++quick_failures == 3)); then
          resource delete --force --quiet
          echo "error: the training ended within minutes three times; see above" >&2
          exit 1
        fi
      else
        quick_failures=0
      fi ;;
    SUSPENDED | FAILED)
      resource delete --force --quiet || true ;;
  esac
  sleep "$poll_seconds"
done
