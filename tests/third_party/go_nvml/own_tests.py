"""Runs go-nvml's own tests on the node that we are on and compares each result with expectations.txt: own_tests.py FOLDER"""

import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
# How many tests the two packages have at the pinned version: fewer would mean that something did not run.
TESTS = {"nvml": 15, "dl": 10}


def expectations():
    found = {}
    for line in (HERE / "expectations.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            test, result, _ = line.split(maxsplit=2)
            found[test] = result
    return found


def main():
    folder = pathlib.Path(sys.argv[1])
    expected, differences, agreed = expectations(), [], 0
    for package, count in TESTS.items():
        done = subprocess.run([folder / f"{package}.test", "-test.v"], cwd=folder, capture_output=True, text=True)
        results = {f"{package}.{name}": result for result, name in re.findall(r"^--- (PASS|FAIL|SKIP): (\S+)", done.stdout, re.M)}
        if len(results) != count:
            differences.append(f"{package}: {len(results)} tests ran, expected {count}: {done.stdout[-400:]}{done.stderr[-400:]}")
        for test, result in sorted(results.items()):
            if result == expected.get(test, "PASS"):
                agreed += 1
            else:
                differences.append(f"{test}: expected {expected.get(test, 'PASS')}, seen {result}")
        for test in expected:
            if test.startswith(package + ".") and test not in results:
                differences.append(f"{test}: did not run")
    for difference in differences:
        print(difference)
    print(f"{agreed} tests as expected" + (f", {len(differences)} not" if differences else f", {len(expected)} of them a skip that expectations.txt explains"))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
