# SPDX-License-Identifier: Apache-2.0
"""What the quickstart must reach: quickstart_check.py OUTPUT_DIRECTORY ITS_PRINTED_TEXT [ISA]. With
ISA that instruction set must have been in force."""
import json
import os
import re
import sys

LOSS_FALL, PEAK_MIB = 0.5, 1.2 * 1024
FILES = ("adapter_model.safetensors", "adapter_config.json", "adapter.gguf", "trainer_log.jsonl")


def main():
    output, printed, *forced = sys.argv[1:]
    with open(os.path.join(output, "trainer_log.jsonl"), encoding="utf-8") as log:
        losses = [entry.get("eval_loss") for entry in map(json.loads, log)]
    with open(printed, encoding="utf-8") as text:
        said = text.read()
    peak = float(re.search(r"Peak resident memory: (\d+) MiB", said).group(1))
    isa = re.search(r"instruction set (\S+)", said).group(1)
    checks = [
        (losses[0] - losses[-1] >= LOSS_FALL,
         "held-out loss %.4f -> %.4f (first and last line of the log)" % (losses[0], losses[-1])),
        (isa == (forced or [isa])[0], "instruction set %s" % isa),
        (peak <= PEAK_MIB, "peak resident memory %.0f MiB" % peak),
        (all(os.path.getsize(os.path.join(output, name)) for name in FILES), ", ".join(FILES))]
    for good, text in checks:
        print("%s  %s" % ("ok    " if good else "FAILED", text))
    return 0 if all(good for good, _ in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
