#!/usr/bin/env bash
# Measure what docs/results.md shows: scripts/results.sh DATA_FOLDER [NAME ...]
# DATA_FOLDER contains spoken-digits-test.parquet. By default measures everything, which takes about
# two hours for the small models and three for cifar10 on two CPU cores with AMX or AVX-512 BF16.
# Finished parts are cached, so an interrupted run continues. Then run:
# python scripts/generate_docs.py
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
cd "${1:?folder of the data}"
shift
names=("$@")
known="digits spoken-digits spoken-digits-vocoder"
known+=" cifar10 cifar10-kappa cifar10-samplers cifar10-guidance cifar10-float32"
known+=" digits-solvers spoken-digits-solvers spoken-digits-vocoder-solvers cifar10-solvers"
known+=" digits-tuned spoken-digits-tuned spoken-digits-vocoder-tuned cifar10-tuned"
for name in "${names[@]}"; do
  [[ " $known " == *" $name "* ]] || { echo "unknown: $name; choose from $known" >&2; exit 2; }
done
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# measure NAME MODEL OPTIONS: compare, and keep the results and two figures
measure() {
  local name=$1
  shift
  if ((${#names[@]})) && [[ " ${names[*]} " != *" $name "* ]]; then return; fi
  fastdpm compare "$@" --out "$out/$name"
  cp "$out/$name/results.json" "$here/docs/results/$name.json"
  cp "$out/$name/distance.png" "$here/docs/results/$name-distance.png"
  cp "$out/$name/samples.png" "$here/docs/results/$name-samples.png"
}

multistep=dpmpp-2m-step-linear,dpmpp-2m-step-quadratic,dpmpp-2m-var-linear,dpmpp-2m-var-quadratic
multistep+=,multistep-3-step-linear,multistep-3-step-quadratic
multistep+=,multistep-3-var-linear,multistep-3-var-quadratic
rivals=diffusers-ddim-leading,diffusers-ddim-trailing,diffusers-ddpm-leading
rivals+=,diffusers-pndm-leading,diffusers-deis-linspace,diffusers-dpmpp-2m-trailing
rivals+=,diffusers-dpmpp-2m-karras,diffusers-unipc-trailing
measure digits digits -S 5,10,20,50 -n 1000 --methods "paper,$multistep,$rivals,standard" \
  --kappa 0,0.5,1
measure spoken-digits spoken-digits -S 5,10,20 -n 100 --methods paper,standard --precision bf16
measure spoken-digits-vocoder spoken-digits-vocoder -S 5,10,20 -n 30 --methods paper,standard \
  --against spoken-digits-test.parquet

color=(cifar10 --clip x0 --precision bf16)
few=step-quadratic-k0,dpmpp-2m-var-linear,multistep-3-var-linear
rivals=diffusers-ddim-trailing,diffusers-ddpm-leading,diffusers-dpmpp-2m-trailing
rivals+=,diffusers-unipc-leading
measure cifar10 "${color[@]}" --guidance 1 -S 10,20,50 -n 2000 --methods paper,standard \
  --kappa 0,1 --reference-n 300
measure cifar10-kappa "${color[@]}" --guidance 1 -S 10,20 -n 1000 --methods paper \
  --kappa 0,0.2,0.5,1
measure cifar10-samplers "${color[@]}" --guidance 1 -S 5,10,20 -n 1000 --methods "$few,$rivals"
guided=step-quadratic-k0,var-quadratic-k0,multistep-3-var-linear
measure cifar10-guidance "${color[@]}" --guidance 1,1.5,2 -S 10 -n 500 --methods "$guided"
measure cifar10-float32 "${color[@]}" --guidance 1 --precision float32 -S 10 -n 500 \
  --methods "$guided"

# solve MODEL OPTIONS: all samplers over all spacings, into the results of MODEL-solvers
solve() {
  if ((${#names[@]})) && [[ " ${names[*]} " != *" $1-solvers "* ]]; then return; fi
  python "$here/scripts/solvers.py" "$@"
}

solve digits -S "$(seq -s, 3 20)" -n 4000 --screen-n 1000
solve spoken-digits -S 5,8 -n 100 --screen-n 50 --precision bf16
solve spoken-digits-vocoder -S 5,6,8 -n 30 --screen-n 15 --against spoken-digits-test.parquet
solve cifar10 -S 5,8,10,20 -n 2000 --screen-n 1000 --clip x0 --guidance 1 --precision bf16

# learn MODEL OPTIONS: tuned plans beside the untrained ones, into the results of MODEL-tuned
learn() {
  if ((${#names[@]})) && [[ " ${names[*]} " != *" $1-tuned "* ]]; then return; fi
  python "$here/scripts/tuned.py" "$@"
}

learn digits -S 3,4,5,6,7,8,9,10 -n 4000 --tunings 3
learn spoken-digits -S 5,8 -n 100 --evaluations 20000 --precision bf16
learn spoken-digits-vocoder -S 5,8 -n 30 --evaluations 20000 --against spoken-digits-test.parquet
learn cifar10 -S 3,4,5,6,8,10 -n 2000 --evaluations 150000 --clip x0 --guidance 1 --precision bf16
learn cifar10 -S 3,4,5,6,8,10 -n 2000 --evaluations 150000 --clip x0 --guidance 1.5 --precision bf16
