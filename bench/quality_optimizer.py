#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What low-bit states and weights cost: held-out loss of a small transformer trained from scratch.

With --model: of LoRA on a llama GGUF (needs transformers and gguf, as requirements-heavy.txt of
tests/oracles has them: --venv that environment, --no-install).

Every row is trained from the same seeds as its baseline (the same initial weights and batches, and
where gradients are made heavy-tailed the same factors), so that differences are paired; the
interval is Student's, 95 %. Controls must be worse by more than their bar with every seed (runs
that blow up do so by very different amounts, so that an interval says little): a bench that cannot
tell them apart from what works proves nothing. The row of perturbed weights tells what chance alone
does. The exit status is 1 if a row is not as it must be.
"""
import argparse
import concurrent.futures
import dataclasses
import json
import math
import multiprocessing
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from peers import environment  # noqa: E402

# Student's t, 0.975, by degrees of freedom.
STUDENT = (math.inf, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
LINEAR = "exp_avg=int8,exp_avg_sq=int8_linear"
SMALL_RATE = 1e-4  # with which round-to-nearest bf16 loses most updates
SIGMA = 3.0


@dataclasses.dataclass(frozen=True)
class Row:
    """A setting, the one it is paired with, and what is asked of the difference."""
    name: str
    base: str
    fields: dict
    bar: float = math.nan  # relative difference
    kind: str = "reported"  # "within" the bar, "fails" by more than it, or only reported


def table():
    """The rows; baselines first."""
    def tail(name, bar, kind, **fields):
        return Row(name, "heavy tails: fp32", {"tail": SIGMA, **fields}, bar, kind)

    def slow(name, bar, kind, **fields):
        return Row(name, "small rate: fp32", {"rate": SMALL_RATE, **fields}, bar, kind)

    return [
        Row("fp32", "fp32", {}),
        Row("small rate: fp32", "small rate: fp32", {"rate": SMALL_RATE}),
        Row("heavy tails: fp32", "heavy tails: fp32", {"tail": SIGMA}),
        Row("fp32, weights perturbed by 1e-6", "fp32", {"perturb": 1e-6}),
        Row("int8", "fp32", {"states": "int8"}, 0.002, "within"),
        Row("int8_log", "fp32", {"states": "int8_log"}, 0.002, "within"),
        Row("int4", "fp32", {"states": "int4"}, 0.01, "within"),
        Row("int4_rank1", "fp32", {"states": "int4_rank1"}, 0.01, "within"),
        Row("bf16_stochastic", "fp32", {"weights": "bf16_stochastic"}),
        Row("bf16_stochastic, int8", "fp32", {"weights": "bf16_stochastic", "states": "int8"}),
        Row("bf16_correction8", "fp32", {"weights": "bf16_correction8"}),
        Row("int8 with linear second moment", "fp32", {"states": LINEAR}),
        slow("small rate: bf16_stochastic", math.nan, "reported", weights="bf16_stochastic"),
        slow("small rate: bf16_correction8", math.nan, "reported", weights="bf16_correction8"),
        slow("small rate: bf16_nearest (control)", 0.01, "fails", weights="bf16_nearest"),
        tail("heavy tails: int8", 0.01, "within", states="int8"),
        tail("heavy tails: int8_log", 0.01, "within", states="int8_log"),
        tail("heavy tails: int4", math.nan, "reported", states="int4"),
        tail("heavy tails: int4_rank1", math.nan, "reported", states="int4_rank1"),
        tail("heavy tails: int8, mode bnb (control)", 0.01, "fails", states="int8", mode="bnb"),
        tail("heavy tails: int8 with linear second moment (control)", 0.01, "fails",
             states=LINEAR),
    ]


def lora_table():
    """The rows of --model."""
    rate, slow = {"rate": 1e-3}, {"rate": SMALL_RATE}
    return [
        Row("fp32", "fp32", rate),
        Row("small rate: fp32", "small rate: fp32", slow),
        Row("int8", "fp32", {"states": "int8", **rate}, 0.002, "within"),
        Row("int4", "fp32", {"states": "int4", **rate}, 0.01, "within"),
        Row("int4_rank1", "fp32", {"states": "int4_rank1", **rate}, 0.01, "within"),
        Row("int8 with linear second moment", "fp32", {"states": LINEAR, **rate}),
        Row("small rate: bf16_nearest (control)", "small rate: fp32",
            {"weights": "bf16_nearest", **slow}, 0.002, "fails"),
        Row("small rate: bf16_stochastic", "small rate: fp32",
            {"weights": "bf16_stochastic", **slow}),
    ]


def parse():
    """(flags, rows)"""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    environment.add_arguments(parser)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--jobs", type=int, default=environment.PROCESSORS,
                        help="runs at a time, one thread each (default: one a processor)")
    parser.add_argument("--wordnet", default="/usr/share/wordnet",
                        help="directory of data.noun ... (Debian: wordnet-base)")
    parser.add_argument("--model", metavar="FILE.gguf", help="LoRA on this model")
    parser.add_argument("--program", default=str(environment.ROOT / "build/release/bin/nibble"),
                        help="nibble, which makes the rows for --model (default: %(default)s)")
    parser.add_argument("--row", action="append", metavar="NAME",
                        help="only this one and its baseline; may be given again")
    options = parser.parse_args()
    rows = lora_table() if options.model else table()
    if options.row:
        bases = {row.base for row in rows if row.name in options.row}
        unknown = set(options.row) - {row.name for row in rows}
        if unknown:
            parser.error("no row %s" % ", ".join(sorted(unknown)))
        rows = [row for row in rows if row.name in options.row or row.name in bases]
    if not 2 <= options.seeds < len(STUDENT) or options.steps < 1 or options.jobs < 1:
        parser.error("--seeds is 2 to %d, --steps and --jobs at least 1" % (len(STUDENT) - 1))
    return options, rows


WORKER = {}  # a worker's library and data


def begin(library, wordnet, program, model):
    """Once in each worker."""
    import torch
    from peers import nibble_api, small_transformer, smollm_lora
    torch.set_num_threads(1)
    WORKER["library"] = nibble_api.Library(library)
    WORKER["library"].set_threads(1)
    if model:
        WORKER["run"], WORKER["data"] = smollm_lora.run, smollm_lora.read_data(program, model)
    else:
        WORKER["run"], WORKER["data"] = small_transformer.run, small_transformer.read_text(wordnet)


def work(row, seed, steps):
    """One run."""
    from peers import small_transformer
    setting = small_transformer.Setting(row.name, **row.fields)
    return WORKER["run"](WORKER["library"], WORKER["data"], setting, seed, steps)


def train(rows, options):
    """{(name, seed): result}; seed by seed, so that baselines come first."""
    results = {}
    context = multiprocessing.get_context("spawn")
    arguments = (str(environment.find_library(options).absolute()), options.wordnet,
                 os.path.abspath(options.program), options.model and os.path.abspath(options.model))
    with concurrent.futures.ProcessPoolExecutor(options.jobs, context, begin, arguments) as pool:
        futures = [pool.submit(work, row, seed, options.steps)
                   for seed in range(1, options.seeds + 1) for row in rows]
        for future in concurrent.futures.as_completed(futures):
            result = future.result()
            results[result["name"], result["seed"]] = result
            print("  %-54s seed %d: %.4f  (%s)  %.0f s%s" % (
                result["name"], result["seed"], result["final"],
                " ".join("%.2f" % look for look in result["looks"]), result["seconds"],
                ", %d steps refused" % result["refused_steps"] if result["refused_steps"] else ""),
                flush=True)
    return results


def finite_or_worst(loss):
    """A loss that is not a number is the worst there can be."""
    return loss if math.isfinite(loss) else math.inf


def plain(value):
    """For JSON, which has no infinity."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def judge(row, results, seeds):
    """The row of the table: paired relative differences, their mean and interval, the verdict."""
    runs = [results[row.name, seed] for seed in range(1, seeds + 1)]
    bases = [results[row.base, seed] for seed in range(1, seeds + 1)]
    differences = [finite_or_worst(run["final"]) / base["final"] - 1
                   for run, base in zip(runs, bases)]
    mean = statistics.fmean(differences)
    half = math.nan
    if math.isfinite(mean):
        half = STUDENT[seeds - 1] * statistics.stdev(differences) / math.sqrt(seeds)
    low, high = (mean - half, mean + half) if math.isfinite(half) else (mean, mean)
    verdicts = {"within": abs(mean) <= row.bar, "fails": min(differences) > row.bar}
    return {"name": row.name, "base": row.base, "kind": row.kind,
            "bar": None if math.isnan(row.bar) else row.bar, "passed": verdicts.get(row.kind, True),
            "losses": [run["final"] for run in runs],
            "base_losses": [base["final"] for base in bases], "differences": differences,
            "mean": mean, "low": low, "high": high,
            "highest_on_the_way": max(finite_or_worst(look) for run in runs
                                      for look in run["looks"][1:]),
            "start": statistics.fmean(run["looks"][0] for run in runs),
            "quantised": runs[0]["quantised"], "runs": runs}


ASKED = {"within": "within %.1f %%", "fails": "worse by > %.1f %% with every seed"}


def show(judged):
    """The table."""
    print("%-54s | %7s | %9s | %-19s | %7s | %s" % (
        "row", "loss", "to base", "95 % interval", "highest", "asked"))
    for row in judged:
        asked = ASKED.get(row["kind"])
        verdict = "" if asked is None else asked % (100 * row["bar"]) + (
            ": yes" if row["passed"] else ": NO")
        print("%-54s | %7.4f | %+7.2f %% | %+7.2f .. %+7.2f | %7.2f | %s" % (
            row["name"], statistics.fmean(row["losses"]), 100 * row["mean"], 100 * row["low"],
            100 * row["high"], row["highest_on_the_way"], verdict))


def main():
    options, rows = parse()
    environment.enter(options)
    context = "%s; %d steps, %s" % (environment.machine(), options.steps,
                                    time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()))
    print(context, flush=True)
    results = train(rows, options)
    judged = [judge(row, results, options.seeds) for row in rows]
    show(judged)
    if options.json:
        options.json.write_text(json.dumps(plain([{**row, "context": context} for row in judged]),
                                           indent=1) + "\n", encoding="utf-8")
    return 0 if all(row["passed"] for row in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
