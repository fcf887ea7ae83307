#!/usr/bin/env bash
# Retrain a built-in model: scripts/train_builtin.sh NAME DATA_FOLDER
# NAME is digits, cifar10, spoken-digits or spoken-digits-vocoder; DATA_FOLDER holds
# cifar10-train.parquet and spoken-digits-train.parquet (digits needs none).
set -euo pipefail
name=${1:?name of a built-in model}
case "$name" in
  digits) data=sklearn:digits ;;
  cifar10) data=${2:?folder of the data}/cifar10-train.parquet ;;
  spoken-digits*) data=${2:?folder of the data}/spoken-digits-train.parquet ;;
  *) echo "unknown model: $name" >&2; exit 2 ;;
esac
resume=()
if [ -f "runs/$name/checkpoint.pt" ]; then resume=(--resume); fi
exec fastdpm train "$name" --data "$data" --out "runs/$name" "${resume[@]}"
