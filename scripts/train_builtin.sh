#!/usr/bin/env bash
# Retrain a built-in model or feature network: scripts/train_builtin.sh NAME DATA_FOLDER
# NAME is digits, cifar10, spoken-digits or spoken-digits-vocoder, or one of the first three with
# "-features". DATA_FOLDER contains cifar10-train.parquet and cifar10-test.parquet, or
# spoken-digits-train.parquet and spoken-digits-test.parquet. The digits need no data.
set -euo pipefail
name=${1:?name of a built-in model or feature network}
case "$name" in
  digits | digits-features) train=sklearn:digits test=sklearn:digits-test ;;
  cifar10 | cifar10-features) kind=cifar10 ;;
  spoken-digits | spoken-digits-features | spoken-digits-vocoder) kind=spoken-digits ;;
  *) echo "unknown model: $name" >&2; exit 2 ;;
esac
if [ -n "${kind:-}" ]; then
  train=${2:?folder of the data}/$kind-train.parquet test=$2/$kind-test.parquet
fi
options=(--data "$train" --test "$test" --out "runs/$name")
if [ -f "runs/$name/checkpoint.pt" ]; then options+=(--resume); fi
exec fastdpm train "$name" "${options[@]}"
