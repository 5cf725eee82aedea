#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fine-tunes a real model on this machine's CPU, from nothing to an adapter that other tools load.
set -euo pipefail
caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tools/packages.sh
source tools/packages.sh

usage() {
  cat <<'TEXT'
usage: examples/quickstart/run.sh [options]

Installs what is missing, builds the nibble command, gets SmolLM2-135M-Instruct and a data set of
dictionary definitions, fine-tunes, and shows the model's answers before and after.

  --out DIR           where the adapter and the log go: new, or of an earlier call (default: out/quickstart
                      beside this checkout's README)
  --isa X             force an instruction set: auto, scalar, avx2, avx512
  --compute-dtype X   auto, fp32, bf16
  --yes               do not ask before installing packages (also: CI=true)
  --no-install        install nothing; say what is missing
  --jobs N            processes of the build (default: the number of processors)
  --help
Packages (Debian):
TEXT
  fold -s -w 96 <<<"${packages_quickstart[*]}" | sed 's/^/  /'
}

out="" jobs=$(nproc) mode=ask isa=() dtype=()
[[ ${CI:-} == true ]] && mode=yes
while (($#)); do
  case $1 in
    --out | --isa | --compute-dtype | --jobs)
      (($# > 1)) || { echo "$1 needs a value" >&2; exit 2; } ;;&
    --out)  # as the caller means it, not from the directory this script works in
      [[ $2 == /* ]] && out=$2 || out=$caller/$2
      shift ;;
    --isa) isa=("$1" "$2"); shift ;;
    --compute-dtype) dtype=("$1" "$2"); shift ;;
    --jobs) jobs=$2; shift ;;
    --yes) mode=yes ;;
    --no-install) mode=no ;;
    --help | -h) usage; exit ;;
    *) echo "unknown option: $1 (see --help)" >&2; exit 2 ;;
  esac
  shift
done

out=${out:-$PWD/out/quickstart}

section() { printf '\n== %s  [%d:%02d]\n' "$1" $((SECONDS / 60)) $((SECONDS % 60)); }

# Said before anything is done, not after the build.
resume=()
if [[ -f $out/adapter_config.json ]]; then
  echo "$out holds the adapter of a finished run: it is shown again, not trained again."
elif [[ -f $out/trainer_log.jsonl ]]; then
  echo "$out holds a run that was broken off: it goes on."
  resume=(--resume)
elif [[ -e $out && (! -d $out || -n $(ls -A "$out")) ]]; then
  echo "$out is there already and is not an empty directory; nothing was changed." >&2
  echo "Choose another place with --out DIR, or remove it." >&2
  exit 1
fi

section "Packages"
ensure_packages "$mode" "${packages_quickstart[@]}"

section "Build"
mkdir -p build
cmake -S . -B build/quickstart -G Ninja -DCMAKE_BUILD_TYPE=Release \
  -DNIBBLE_BUILD_TESTS=OFF -DNIBBLE_BUILD_BENCH=OFF >build/quickstart.log 2>&1 ||
  { cat build/quickstart.log; exit 1; }
cmake --build build/quickstart -j "$jobs"
nibble=build/quickstart/bin/nibble

section "Model and data"
python3 examples/quickstart/get_model.py
model=$PWD/models/SmolLM2-135M-Instruct.Q4_1.gguf
rows=2000 held_out=100
data=out/wordnet-$rows-$held_out
python3 examples/quickstart/make_dataset.py --train $rows --eval $held_out --output "$data"

# Three words that the model is never trained on, nor on any of their synonyms.
show_answers() {
  local question reference
  while IFS=$'\t' read -r question reference; do
    printf '\n%s\n  dictionary: %s\n  model:      ' "$question" "$reference"
    "$nibble" generate --model "$model" "$@" "${isa[@]}" --prompt "$question" \
      --max-new-tokens 60 | tr '\n' ' ' | cut -c 1-300
    echo
  done < <(python3 - "$data/eval.jsonl" <<'PYTHON'
import itertools, json, sys
with open(sys.argv[1], encoding="utf-8") as rows:
    for row in itertools.islice(rows, 3):
        question, answer = (m["content"] for m in json.loads(row)["messages"])
        print(question, answer, sep="\t")
PYTHON
  )
}

section "Answers before"
show_answers

section "Fine-tuning"
if [[ ! -f $out/adapter_config.json ]]; then
  python3 examples/quickstart/peak_memory.py "$nibble" finetune \
    --config examples/quickstart/quickstart.yaml --model "$model" --output-dir "$out" \
    --dataset "$data/train.jsonl" --eval-dataset "$data/eval.jsonl" \
    "${isa[@]}" "${dtype[@]}" "${resume[@]}"
fi

section "Answers after"
show_answers --adapter "$out"

section "Done"
python3 - "$out/trainer_log.jsonl" <<'PYTHON'
import json, sys
with open(sys.argv[1], encoding="utf-8") as log:
    losses = [e["eval_loss"] for e in map(json.loads, log) if e.get("eval_loss") is not None]
print("Loss on held-out words: %.3f before, %.3f after" % (losses[0], losses[-1]))
PYTHON
cat <<TEXT
Adapter (PEFT):   $out/adapter_model.safetensors, adapter_config.json
Adapter (GGUF):   $out/adapter.gguf
Log:              $out/trainer_log.jsonl

With llama.cpp:
  llama-cli -m $model --lora $out/adapter.gguf -p 'Define the noun "tide".'
With PEFT:
  from peft import PeftModel
  from transformers import AutoModelForCausalLM
  base = AutoModelForCausalLM.from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct")
  model = PeftModel.from_pretrained(base, "$out")
TEXT
