"""What every Python judge does: reads the truth, compares, says each difference, ends with how many values agree."""

import json
import os
import sys


class Judge:
    def __init__(self):
        with open(os.environ["JUDGE_TRUTH"]) as file:
            self.truth = json.load(file)
        self.agreed = 0
        self.differences = []

    def equal(self, what, seen, expected):
        if seen == expected:
            self.agreed += 1
        else:
            self.differences.append(f"{what}: expected {expected!r}, seen {seen!r}")

    def within(self, what, seen, low, high):
        if isinstance(seen, (int, float)) and low <= seen <= high:
            self.agreed += 1
        else:
            self.differences.append(f"{what}: expected {low}..{high}, seen {seen!r}")

    def raises(self, what, error, call, *arguments):
        try:
            seen = call(*arguments)
        except error:
            self.agreed += 1
        except Exception as other:  # any other refusal is a difference, and is told
            self.differences.append(f"{what}: expected {error.__name__}, raised {other!r}")
        else:
            self.differences.append(f"{what}: expected {error.__name__}, answered {seen!r}")

    def end(self):
        for difference in self.differences:
            print(difference)
        print(f"{self.agreed} values agree" + (f", {len(self.differences)} do not" if self.differences else ""))
        sys.exit(1 if self.differences or not self.agreed else 0)


def memory_of(clients):
    return sum(client["memoryMiB"] for client in clients)


def overhead_of(instances):
    """What instances take for themselves, (least, most) MiB: 11 to 15 a slice, by public nvidia-smi listings."""
    slices = sum(gi["row"]["slices"] for gi in instances)
    return 11 * slices, 15 * slices


def all_clients(gpu):
    """Everything that works on a GPU, on the whole of it or on its instances, with gi and ci (None: whole)."""
    found = [dict(client, gi=None, ci=None) for client in gpu["clients"]]
    for gi in gpu["instances"]:
        for ci in gi["computeInstances"]:
            found += [dict(client, gi=gi["gi"], ci=ci["ci"]) for client in ci["clients"]]
    return sorted(found, key=lambda client: client["pid"])
