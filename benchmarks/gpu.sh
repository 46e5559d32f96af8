#!/bin/sh
# The tables of docs/benchmarks.md on a GPU, in one call of less than ten minutes:
#     benchmarks/gpu.sh OUT
# MODELS, AOGNET, BATCH_SIZE, DTYPE, REPEATS, DURATION and PYTHON may be set, as the test does.
set -eu
out=${1:?"usage: benchmarks/gpu.sh OUT"}
cd "$(dirname "$0")/.."
mkdir -p "$out"
measure() { # mode, models, name of the result, further flags
  "${PYTHON:-python}" benchmark.py --mode="$1" --models="$2" --against=torch \
    --dtype="${DTYPE:-bfloat16}" --batch_size="${BATCH_SIZE:-256}" \
    --repeats="${REPEATS:-7}" --seconds="${DURATION:-0.5}" \
    --json="$out/$1_$3.json" --csv="$out/$1_$3.csv" "$4"
}
for mode in infer train; do
  measure $mode "${MODELS:-resnet_50_bn,resnet_50_an_bn2,mobilenetv2_an}" models --torch_compile
  # To compile an AOGNet, torch.compile takes longer than all the rest.
  measure $mode "${AOGNET:-aognet_12m_an}" aognet --notorch_compile
done
