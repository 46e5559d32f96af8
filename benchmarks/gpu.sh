#!/bin/sh
# Measures the tables of docs/benchmarks.md on a GPU within ten minutes, the most important first:
#     benchmarks/gpu.sh OUT
# Writes OUT/MODE_MODEL.json, and profiles of training into OUT/profile. If a measurement fails or
# runs out of time, the script says so, continues with the next, and exits with status 1.
# Environment variables: MODELS, BATCH_SIZE, DTYPE, REPEATS, DURATION (seconds of a turn),
# SECONDS_EACH and SECONDS_ALL (limits), PYTHON.
set -eu
out=${1:?"usage: benchmarks/gpu.sh OUT"}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")/.."
deadline=$(($(date +%s) + ${SECONDS_ALL:-570}))
status=0
measure() { # mode, model, further flags
  mode=$1 name=$2
  shift 2
  left=$((deadline - $(date +%s)))
  limit=${SECONDS_EACH:-200}
  [ "$left" -gt "$limit" ] || limit=$left
  [ "$limit" -gt 0 ] || limit=1 # timeout takes 0 for no limit
  timeout -k 5 "$limit" "${PYTHON:-python}" benchmark.py --mode="$mode" --models="$name" \
    --against=torch --dtype="${DTYPE:-bfloat16}" --batch_size="${BATCH_SIZE:-256}" \
    --repeats="${REPEATS:-7}" --seconds="${DURATION:-0.5}" --json="$out/${mode}_$name.json" "$@" ||
    { echo "gpu.sh: $mode $name failed: status $? (124: out of time)" >&2 && status=1; }
}
for model in ${MODELS:-resnet_50_an_bn2 resnet_50_bn aognet_12m_an mobilenetv2_an}; do
  case $model in
    # torch.compile takes longer for an AOGNet than all other measurements together.
    aognet_*) compile=--notorch_compile ;;
    *) compile=--torch_compile ;;
  esac
  measure train "$model" $compile --profile="$out/profile"
  measure infer "$model" $compile
done
exit $status
