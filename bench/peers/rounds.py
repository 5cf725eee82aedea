# SPDX-License-Identifier: Apache-2.0
"""Paired rounds: every round runs each contender once in turn; ratios are taken inside a round."""
import statistics
import time

PAUSE = 0.003  # seconds between turns, in which threads of the last contender fall asleep
WARM_UP_ROUNDS = 5
AGREEMENT = 0.05


def one_round(contenders, first):
    """Seconds of each contender, beginning with number `first`: none always follows the same."""
    seconds = [0.0] * len(contenders)
    for offset in range(len(contenders)):
        index = (first + offset) % len(contenders)
        contender = contenders[index]
        if contender.prepare:
            contender.prepare()
        time.sleep(PAUSE)
        begin = time.perf_counter()
        contender.turn()
        seconds[index] = time.perf_counter() - begin
    return seconds


def agree(one, other):
    """Whether two rounds are the same within AGREEMENT, for every contender."""
    return all(abs(a - b) <= AGREEMENT * min(a, b) for a, b in zip(one, other))


def measure(contenders, rounds):
    """Checks each contender's work, warms up, and returns {name: seconds of each round}."""
    for contender in contenders:
        if contender.check:
            if contender.prepare:
                contender.prepare()
            error = contender.check()
            print("  checked %-46s error %.2g" % (contender.name, error))
    last = None
    for _ in range(WARM_UP_ROUNDS):
        now = one_round(contenders, 0)
        if last and agree(last, now):
            break
        last = now
    table = [one_round(contenders, number) for number in range(rounds)]
    return {contender.name: [row[index] for row in table]
            for index, contender in enumerate(contenders)}


def quartiles(values):
    """(first quartile, median, third quartile)"""
    values = sorted(values)
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def throughput(contender, seconds):
    """Millions of elements a second in each round."""
    return [contender.elements / each / 1e6 for each in seconds]


def bandwidth(contender, seconds):
    """GB/s in each round, by the bytes that the work must move."""
    return [contender.elements * contender.bytes_per_element / each / 1e9 for each in seconds]


def compare(work, one, other, seconds, asked=None, goal=None, within=None):
    """The row of `one` beside `other`: how many times as fast, over the rounds in which `other`'s
    GB/s lie in `within`; None if there are none."""
    kept = range(len(seconds[one.name]))
    if within:
        speeds = bandwidth(other, seconds[other.name])
        kept = [number for number in kept if within[0] <= speeds[number] <= within[1]]
    if not kept:
        return None
    ours = [seconds[one.name][number] for number in kept]
    theirs = [seconds[other.name][number] for number in kept]
    fast, slow = throughput(one, ours), throughput(other, theirs)
    low, middle, high = quartiles([a / b for a, b in zip(fast, slow)])
    return {
        "work": work, "peer": other.name, "unit": "M elements/s", "contender": one.name,
        "ours": statistics.median(fast), "theirs": statistics.median(slow),
        "ratio": middle, "ratio_q1": low, "ratio_q3": high, "rounds": len(ours),
        "asked": asked, "goal": goal,
        "ours_gb_s": [round(x, 2) for x in bandwidth(one, ours)],
        "theirs_gb_s": [round(x, 2) for x in bandwidth(other, theirs)],
    }
