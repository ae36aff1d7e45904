"""Store what PyTorch computes: `python tests/torch_agreement/record.py [subject ...]` (all)."""

from __future__ import annotations

import sys

from agreement import RECORDS, subjects, torch_or_reason, write_records


def main(names: list[str]) -> None:
    torch, reason = torch_or_reason()
    if torch is None:
        raise SystemExit(reason)
    known = {s.name: s for s in subjects()}
    unknown = set(names) - set(known)
    if unknown:
        raise SystemExit(f"no such subjects: {sorted(unknown)}; there are {sorted(known)}")
    RECORDS.mkdir(exist_ok=True)
    for name in names or known:
        path = write_records(known[name], torch)
        print(f"{path.name}: {len(known[name].recorded)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
