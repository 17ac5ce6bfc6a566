#!/usr/bin/env python3
"""Where two recordings of tools/nvml_record.py differ: nvml_diff.py A.jsonl B.jsonl [--values]

Lists the calls whose return code differs, those that only one of them has, and the values that differ in kind: another
field, null against a number, text of another form, a number that means "unknown" on one side only, an empty list against
one with entries. --values lists every other value that differs as well.

Exit code 0: nothing to list, 1: something.
"""

import argparse
import json
import re
import sys

UNKNOWN = {0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF, -1}


def key_of(record):
    return record["call"], record["on"], json.dumps(record["args"], sort_keys=True)


def read(path):
    """{(call, on, args, how often before): record}, in the file's order."""
    records, seen = {}, {}
    with open(path) as lines:
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                key = key_of(record)
            except (ValueError, KeyError, TypeError) as error:
                raise SystemExit(f"{path}:{number}: not a line of nvml_record.py: {error}")
            seen[key] = seen.get(key, 0) + 1
            records[(*key, seen[key])] = record
    return records


def form(value):
    """What a text looks like: digits and hexadecimal letters in lower case made alike, runs made one."""
    return re.sub(r"x+", "x", re.sub(r"[0-9a-f]", "x", value)) if value else "(empty)"


def kind(value):
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, (int, float)):
        return "unknown" if value in UNKNOWN else "number"
    if isinstance(value, str):
        return f"text {form(value)}"
    return "list" if value else "empty list"


def differences(a, b, path=""):
    """(path, a's value, b's value, whether they differ in kind)."""
    if isinstance(a, dict) and isinstance(b, dict):
        for name in [*a, *(n for n in b if n not in a)]:
            where = f"{path}.{name}" if path else name
            if name not in a or name not in b:
                yield where, a.get(name, "(absent)"), b.get(name, "(absent)"), True
            else:
                yield from differences(a[name], b[name], where)
    elif isinstance(a, list) and isinstance(b, list) and a and b:
        if len(a) != len(b):
            yield f"{path}.length", len(a), len(b), False
        for i, (one, other) in enumerate(zip(a, b)):
            yield from differences(one, other, f"{path}[{i}]")
    elif a != b:
        yield path, a, b, kind(a) != kind(b)


def shown(record):
    args = " ".join(f"{name}={value}" for name, value in record["args"].items())
    return f"{record['call']} on {record['on']}" + (f" ({args})" if args else "")


def code(record):
    return "no such function" if record["ret"] is None else str(record["ret"])


def compare(a, b, values):
    codes, kinds, others, only = [], [], [], []
    for key, one in a.items():
        other = b.get(key)
        if other is None:
            only.append(f"  A only: {shown(one)} -> {code(one)}")
            continue
        if one["ret"] != other["ret"]:
            codes.append(f"  {shown(one)}: {code(one)} against {code(other)}")
            continue
        for field in ("out", "on_error", "beyond", "needed"):
            for path, left, right, grave in differences({field: one.get(field)}, {field: other.get(field)}):
                (kinds if grave else others).append(f"  {shown(one)}: {path}: {left!r} against {right!r}")
    only += [f"  B only: {shown(other)} -> {code(other)}" for key, other in b.items() if key not in a]
    sections = [("return codes that differ", codes), ("values that differ in kind", kinds), ("calls that one of them lacks", only)]
    if values:
        sections.append(("other values that differ", others))
    return sections


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("a")
    words.add_argument("b")
    words.add_argument("--values", action="store_true", help="list every value that differs")
    args = words.parse_args()
    sections = compare(read(args.a), read(args.b), args.values)
    for title, lines in sections:
        print(f"{title}: {len(lines)}")
        for line in lines:
            print(line)
    return 1 if any(lines for _, lines in sections) else 0


if __name__ == "__main__":
    sys.exit(main())
