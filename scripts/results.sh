#!/usr/bin/env bash
# Measure what docs/results.md shows: scripts/results.sh DATA_FOLDER
# DATA_FOLDER contains spoken-digits-test.parquet. Takes about two hours on two CPU cores. Finished
# parts are cached, so an interrupted run continues. Then run: python scripts/generate_docs.py
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
cd "${1:?folder of the data}"
multistep=dpmpp-2m-step-linear,dpmpp-2m-step-quadratic,dpmpp-2m-var-linear,dpmpp-2m-var-quadratic
multistep+=,multistep-3-step-linear,multistep-3-step-quadratic
multistep+=,multistep-3-var-linear,multistep-3-var-quadratic
rivals=diffusers-ddim-leading,diffusers-ddim-trailing,diffusers-ddpm-leading
rivals+=,diffusers-pndm-leading,diffusers-deis-linspace,diffusers-dpmpp-2m-trailing
rivals+=,diffusers-dpmpp-2m-karras,diffusers-unipc-trailing
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
fastdpm compare digits -S 5,10,20,50 -n 1000 --methods "paper,$multistep,$rivals,standard" \
  --kappa 0,0.5,1 --out "$out/digits"
fastdpm compare spoken-digits -S 5,10,20 -n 100 --methods paper,standard --precision bf16 \
  --out "$out/spoken-digits"
fastdpm compare spoken-digits-vocoder -S 5,10,20 -n 30 --methods paper,standard \
  --against spoken-digits-test.parquet --out "$out/spoken-digits-vocoder"
for name in digits spoken-digits spoken-digits-vocoder; do
  cp "$out/$name/results.json" "$here/docs/results/$name.json"
  cp "$out/$name/distance.png" "$here/docs/results/$name-distance.png"
  cp "$out/$name/samples.png" "$here/docs/results/$name-samples.png"
done
