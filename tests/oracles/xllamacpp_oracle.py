# SPDX-License-Identifier: Apache-2.0
"""nibble against llama.cpp: xllamacpp_oracle.py NIBBLE MODEL.gguf

A short fine-tuning run with a high learning rate makes an adapter that matters. Then
  1. on an F32 copy of the model, with and without the adapter's LoRA-GGUF, llama.cpp must give
     nibble's next-token log-probabilities (top 200 of each prompt within 2e-3);
  2. prompts must be rendered and tokenised alike;
  3. on the quantised file itself, where llama.cpp rounds activations too, the adapter must keep at
     least 90 % of the held-out gain that nibble measures.
"""
import json
import os
import subprocess
import sys
import tempfile

from llama_cpp import LlamaCpp, write_f32_copy

TOP, TOLERANCE, KEPT = 200, 2e-3, 0.9
TRAIN_ROWS, HELD_OUT_ROWS = 240, 30
RAW_PROMPTS = [
    "The capital of France is",
    "def quicksort(arr):\n    if len(arr) <= 1:\n        return arr\n    pivot =",
    "Once upon a time, in a harbour town with two clocks,",
    "1, 2, 3, 5, 8, 13,",
    "  two  spaces\n\nnewlines\t tab",
    "Caf\u00e9 na\u00efve \u4e2d\u6587 \U0001F680 don't",
]
CHATS = [
    [{"role": "user", "content": "hi"}],
    [{"role": "user", "content": "Define the noun \"tide\"."}],
    [{"role": "user", "content": "Define the verb \"whittle\"."}],
    [{"role": "system", "content": "You answer in rhyme."},
     {"role": "user", "content": "Why is the sky blue?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2 = ?\n"}],
]


class Checks:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, good, text):
        self.passed += bool(good)
        self.failed += not good
        print("%s  %s" % ("ok    " if good else "FAILED", text), flush=True)


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def train(nibble, model, work):
    here = os.path.dirname(os.path.abspath(__file__))
    maker = os.path.join(here, "..", "..", "examples", "quickstart", "make_dataset.py")
    run(sys.executable, maker, "--train", str(TRAIN_ROWS), "--eval", str(HELD_OUT_ROWS),
        "--output", work)
    output = os.path.join(work, "adapter")
    run(nibble, "finetune", "--model", model, "--dataset", os.path.join(work, "train.jsonl"),
        "--output-dir", output, "--lora-r", "8", "--learning-rate", "2e-3", "--cutoff-len", "256",
        "--gradient-accumulation-steps", "2", "--num-train-epochs", "1", "--seed", "7")
    return output


def log_probabilities(nibble, model, adapter, prompt):
    """nibble's prompt ids and {id: log-probability} of the likeliest next tokens."""
    command = [nibble, "generate", "--model", model, "--logprobs", str(TOP)]
    command += ["--adapter", adapter] if adapter else []
    if isinstance(prompt, str):
        command += ["--raw", "--prompt", prompt]
    else:
        for message in prompt:
            flag = "--system" if message["role"] == "system" else "--prompt"
            command += [flag, message["content"]]
    answer = json.loads(run(*command))
    return answer["ids"], {entry["id"]: entry["logprob"] for entry in answer["top"]}


def compare_top(checks, nibble, model, adapter, peer, label):
    for prompt in RAW_PROMPTS + CHATS:
        ids, ours = log_probabilities(nibble, model, adapter, prompt)
        text = prompt if isinstance(prompt, str) else peer.chat(prompt)
        name = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        expected = peer.tokenize(text)
        # More than TOP of the peer's, since near the edge the order may differ.
        theirs = peer.top(ids, 2 * TOP)
        missing = [token for token in ours if token not in theirs]
        worst = max((abs(ours[t] - theirs[t]) for t in ours if t in theirs), default=float("inf"))
        checks.check(ids == expected and len(ours) == TOP and not missing and worst <= TOLERANCE,
                     "%-16s %-26.26r %3d ids%s, %d log-probabilities, worst %.1e"
                     % (label, name, len(ids), "" if ids == expected else " DIFFER",
                        len(ours) - len(missing), worst))


def control(checks, nibble, model, adapter):
    """A comparison that an adapter without effect would pass proves nothing."""
    base, adapted = (log_probabilities(nibble, model, a, CHATS[1])[1] for a in (None, adapter))
    moved = max(abs(base[t] - adapted[t]) for t in base if t in adapted)
    checks.check(moved > 100 * TOLERANCE, "control: the adapter moves a log-probability by %.2f"
                 % moved)


def held_out_rows(work, peer):
    with open(os.path.join(work, "eval.jsonl"), encoding="utf-8") as lines:
        for line in lines:
            messages = json.loads(line)["messages"]
            before = peer.chat(messages[:-1])
            prompt = peer.tokenize(before)
            whole = peer.tokenize(before + messages[-1]["content"] + "<|im_end|>")
            assert whole[:len(prompt)] == prompt
            yield prompt, whole[len(prompt):]


def held_out_gain(checks, nibble, model, adapter, peer, work):
    def evaluate(*more):
        return json.loads(run(nibble, "eval", "--model", model, "--json", "--dataset",
                              os.path.join(work, "eval.jsonl"), *more))

    before, after = evaluate(), evaluate("--adapter", adapter)
    rows = list(held_out_rows(work, peer))
    count = sum(len(completion) for _, completion in rows)
    checks.check(before["targets"] == count,
                 "held-out targets: nibble %d, llama.cpp %d" % (before["targets"], count))
    # All rows of one scale after each other: a change empties the peer's cache.
    theirs = [sum(peer.completion_loss(p, c, scale) for p, c in rows) / count
              for scale in (0.0, 1.0)]
    gain, kept = before["loss"] - after["loss"], theirs[0] - theirs[1]
    checks.check(gain > 0.2 and kept >= KEPT * gain,
                 "held-out loss: nibble %.4f -> %.4f, llama.cpp on the quantised file %.4f -> %.4f;"
                 " %.1f %% of the gain kept" % (before["loss"], after["loss"], *theirs,
                                                100 * kept / gain))


def main():
    nibble, model = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    checks = Checks()
    with tempfile.TemporaryDirectory() as work:
        adapter = train(nibble, model, work)
        lora = os.path.join(adapter, "adapter.gguf")
        copy = os.path.join(work, "f32.gguf")
        write_f32_copy(model, copy)
        peer = LlamaCpp(copy)
        compare_top(checks, nibble, model, None, peer, "base")
        del peer
        peer = LlamaCpp(copy, lora)
        compare_top(checks, nibble, model, adapter, peer, "with adapter")
        del peer
        control(checks, nibble, model, adapter)
        held_out_gain(checks, nibble, model, adapter, LlamaCpp(model, lora), work)
    print("%d passed, %d failed" % (checks.passed, checks.failed))
    # The server's threads would hold up an orderly exit.
    sys.stdout.flush()
    os._exit(1 if checks.failed else 0)


if __name__ == "__main__":
    main()
