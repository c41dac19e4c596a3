"""Count the test cases of a meson run: the last line is "N passed, N failed, N skipped".

meson counts a test program as one; a cmocka program holds many cases and says how each ended on its
output, which the JUnit log carries. A program that failed without naming a failed case (it
crashed, or ran out of time) counts as one failure more.
"""

import re
import sys
import xml.etree.ElementTree as ET

CMOCKA = re.compile(r"^\[ *(OK|FAILED|SKIPPED|ERROR) *\] (\S+)$", re.M)
# What a test printed stands in meson's log as it is, a terminal's control characters too.
NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")


def count(case):
    """(passed, failed, skipped) of one <testcase>."""
    text = "\n".join(
        e.text or "" for e in case if e.tag in ("system-out", "system-err")
    )
    # Sets, because cmocka lists what failed or was skipped once more at the end.
    names = {"OK": set(), "FAILED": set(), "SKIPPED": set(), "ERROR": set()}
    for word, name in CMOCKA.findall(text):
        names[word].add(name)
    bad = names["FAILED"] | names["ERROR"]
    if case.find("skipped") is not None:
        return 0, 0, max(1, len(names["SKIPPED"]))
    if case.find("failure") is not None or case.find("error") is not None:
        return len(names["OK"] - bad), max(1, len(bad)), len(names["SKIPPED"])
    return max(1, len(names["OK"])), len(bad), len(names["SKIPPED"])


def main(paths):
    total = [0, 0, 0]
    for path in paths:
        with open(path, encoding="utf-8", errors="replace") as f:
            log = ET.fromstring(NOT_XML.sub("?", f.read()))
        for case in log.iter("testcase"):
            total = [a + b for a, b in zip(total, count(case))]
    if not sum(total):
        print("no test ran", file=sys.stderr)
        return 1
    print("%d passed, %d failed, %d skipped" % tuple(total))
    return 1 if total[1] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
